"""The engine: a prompt in, text out, a token at a time."""

import codecs
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.errors import GenerationError, TokenizerError
from groundup.models.registry import Model, cache_for, hidden_states
from groundup.models.sampling import next_token
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer

Ends = frozenset[int]


@dataclass(frozen=True)
class SamplingSettings:
    """How a text is drawn. Raises GenerationError for a value out of its range.

    length: tokens to write. temperature: 0 is greedy. top_k: 0 keeps all tokens, more than there
    are keeps all. top_p: in (0, 1]. seed: the same seed, prompt and model give the same text.
    """

    length: int = 500
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1337

    def __post_init__(self) -> None:
        if self.length < 1:
            raise GenerationError(f"length = {self.length} must be at least 1 token")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise GenerationError(
                f"temperature = {self.temperature} must be a finite number from 0 (greedy); the "
                "usual: 0.1 to 2"
            )
        if self.top_k < 0:
            raise GenerationError(
                f"top-k = {self.top_k} must be a number of tokens, from 1; leave it out to keep all"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise GenerationError(f"top-p = {self.top_p} must be in (0, 1]; 1 keeps all tokens")
        if not 0 <= self.seed < 2**63:
            raise GenerationError(f"seed = {self.seed} must be a whole number from 0, below 2^63")


def start_of(prompt: str, tokenizer: Tokenizer, document_start: int | None = None) -> Tensor:
    """The prompt's tokens, [1, time] int64. Raises TokenizerError.

    An empty one starts as a document does where the model has learned from documents, else as a new
    line does: what a plain text never had before it has taught the model nothing.
    """
    if prompt:
        return torch.from_numpy(tokenizer.encode(prompt))[None]
    if document_start is not None:
        return torch.tensor([[document_start]])
    try:
        return torch.from_numpy(tokenizer.encode("\n"))[None]
    except TokenizerError:  # characters without a line's end
        return torch.tensor([[0]])


def fit_prompt(
    tokens: Tensor, block_size: int, strict: bool, report: Callable[[str], None]
) -> Tensor:
    """The newest `block_size` tokens of a prompt, and a word if some had to go; `strict` refuses
    them instead.

    tokens: [1, time] -> [1, at most block_size]. Raises GenerationError.
    """
    length = tokens.size(1)
    if length > block_size:
        if strict:
            raise GenerationError(
                f"the prompt has {length:,} tokens, but the model's context is {block_size:,}"
            )
        report(
            f"the prompt has {length:,} tokens: the model sees the newest {block_size:,}, its "
            "whole context"
        )
    return tokens[:, -block_size:]


@torch.inference_mode()
def stream_tokens(
    model: Model,
    tokens: Tensor,
    settings: SamplingSettings,
    vocab_size: int | None = None,
    ends: Ends = frozenset(),
) -> Iterator[int]:
    """Yield `settings.length` tokens that continue `tokens`, [1, time] int64, as `model.generate`
    would draw them.

    vocab_size: of the tokenizer, where the model's is padded: what is above has no text. ends:
    tokens any of which ends them before, and isn't yielded. What was read is cached until the
    context is full; from then on the oldest token goes with each new one, every position changes,
    and the whole context is read again, as `model.generate` always does.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(settings.seed)
    context = tokens[:, -model.block_size :].to(device)
    was_training = model.training
    model.eval()
    cache = cache_for(model, min(model.block_size, context.size(1) + settings.length))
    try:
        for _ in range(settings.length):
            if context.size(1) > model.block_size:
                context, cache = context[:, -model.block_size :], None
            unread = context if cache is None else context[:, cache.length :]
            logits = model.logits(hidden_states(model, unread, cache)[:, -1])[:, :vocab_size]
            uniform = torch.rand(1, generator=generator).to(device)
            token = next_token(
                logits, uniform, settings.temperature, settings.top_k, settings.top_p
            )
            if (number := int(token)) in ends:
                return
            context = torch.cat([context, token[:, None]], dim=1)
            yield number
    finally:
        model.train(was_training)


def stream_text(
    model: Model,
    tokenizer: Tokenizer,
    tokens: Tensor,
    settings: SamplingSettings,
    ends: Ends = frozenset(),
) -> Iterator[str]:
    """The pieces of text that continue `tokens`, as they are made, each of whole characters.

    end-of-text ends it, and so does each of `ends`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    ends |= {token for name, token in tokenizer.special_tokens.items() if name == END_OF_TEXT}
    for token in stream_tokens(model, tokens, settings, tokenizer.vocab_size, ends):
        yield decoder.decode(tokenizer.decode_bytes([token]))
    if rest := decoder.decode(b"", final=True):
        yield rest


def write_text(
    model: Model,
    tokenizer: Tokenizer,
    settings: SamplingSettings,
    prompt: str = "",
    start: int | None = None,
) -> str:
    """What follows the prompt, whole. Raises TokenizerError for a character that the vocabulary
    lacks.

    start: the token that documents begin with, as in `start_of`.
    """
    return "".join(stream_text(model, tokenizer, start_of(prompt, tokenizer, start), settings))
