"""Streams text: a prompt goes in, and one sampled token after the other comes out."""

import codecs
import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from groundup.errors import GenerationError, TokenizerError
from groundup.generation.settings import SamplingSettings
from groundup.machine.kinds import to_device
from groundup.models.registry import Model, cache_for, hidden_states
from groundup.models.sampling import next_token, window_start
from groundup.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)


def encode_prompt(prompt: str, tokenizer: Tokenizer, document_start: int | None = None) -> Tensor:
    """Encode a prompt, or what an empty one stands for, as [1, time] int64.

    Args:
        prompt: The text. An empty one stands for `document_start`, or without that for a new line,
            or for token 0 if the vocabulary has no new line.
        tokenizer: The model's tokenizer.
        document_start: The token that documents begin with, or None.

    Raises:
        TokenizerError: The vocabulary lacks a character of the prompt.
    """
    if not prompt and document_start is not None:
        return torch.tensor([[document_start]])
    try:
        return torch.from_numpy(tokenizer.encode(prompt or "\n"))[None]
    except TokenizerError:
        if prompt:
            raise
        return torch.tensor([[0]])  # characters without a line's end


def fit_prompt(tokens: Tensor, block_size: int, strict: bool) -> Tensor:
    """Keep the newest `block_size` tokens of a prompt, and warn if the others are left out.

    Args:
        tokens: [1, time] int64.
        block_size: The model's context.
        strict: Whether a longer prompt is refused instead.

    Returns:
        [1, at most block_size] int64.

    Raises:
        GenerationError: The prompt is longer than `block_size`, and `strict` is set.
    """
    too_long, prompt = tokens.size(1) > block_size, f"the prompt has {tokens.size(1):,} tokens"
    if too_long and strict:
        raise GenerationError(f"{prompt}, but the model's context is {block_size:,}")
    if too_long:
        logger.warning(f"{prompt}: the model sees the newest {block_size:,}, its whole context")
    return tokens[:, -block_size:]


@torch.inference_mode()
def stream_tokens(
    model: Model,
    tokens: Tensor,
    settings: SamplingSettings,
    vocab_size: int | None = None,
    ends: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """Yield the tokens that continue a text, as `model.generate` would draw them.

    The keys and values of tokens that were read are cached. Whenever the context is full, its
    newest half is read again from the first position on, as `window_start` has it.

    Args:
        model: Any model; while tokens are drawn it is in eval mode.
        tokens: [1, time] int64.
        settings: The number of tokens to draw, and how to draw them.
        vocab_size: The size of the tokenizer's vocabulary, where the model's is padded with tokens
            that have no text.
        ends: The tokens that end a text; they aren't yielded.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(settings.seed)
    context = to_device(tokens[:, -model.block_size :], device)
    was_training = model.training
    model.eval()
    cache = cache_for(model, min(model.block_size, context.size(1) + settings.length))
    limits = settings.temperature, settings.top_k, settings.top_p
    try:
        for _ in range(settings.length):
            if start := window_start(context.size(1), model.block_size):
                context, cache = context[:, start:], cache_for(model, model.block_size)
            unread = context if cache is None else context[:, cache.length :]
            logits = model.logits(hidden_states(model, unread, cache)[:, -1])[:, :vocab_size]
            uniform = to_device(torch.rand(1, generator=generator), device)
            token = next_token(logits, uniform, *limits)
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
    ends: frozenset[int] = frozenset(),
) -> Iterator[str]:
    """Yield the text that continues `tokens` in pieces of whole characters, as they are made.

    Args:
        model: Any model; while tokens are drawn it is in eval mode.
        tokenizer: The model's tokenizer, whose token `<|endoftext|>` ends a text.
        tokens: [1, time] int64.
        settings: The number of tokens to draw, and how to draw them.
        ends: Other tokens that end a text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    ends |= set() if tokenizer.end_of_text is None else {tokenizer.end_of_text}
    for token in stream_tokens(model, tokens, settings, tokenizer.vocab_size, ends):
        yield decoder.decode(tokenizer.decode_bytes([token]))
    if rest := decoder.decode(b"", final=True):
        yield rest


def write_text(
    model: Model,
    tokenizer: Tokenizer,
    settings: SamplingSettings,
    prompt: str = "",
    document_start: int | None = None,
) -> str:
    """Return the whole text that follows a prompt.

    Args:
        model: Any model; while tokens are drawn it is in eval mode.
        tokenizer: The model's tokenizer.
        settings: The number of tokens to draw, and how to draw them.
        prompt: The prompt. An empty one stands for `document_start`, or without that for a new
            line, or for token 0 if the vocabulary has no new line.
        document_start: The token that documents begin with, or None.

    Raises:
        TokenizerError: The vocabulary lacks a character of the prompt.
    """
    tokens = encode_prompt(prompt, tokenizer, document_start)
    return "".join(stream_text(model, tokenizer, tokens, settings))
