"""One text of a model as it is: a prompt goes in, and one token after the other comes out."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from groundup.errors import GenerationError, TokenizerError
from groundup.generation.engine import Engine
from groundup.generation.settings import SamplingSettings
from groundup.generation.texts import Written
from groundup.generation.writer import Precision, evaluating
from groundup.models.registry import Model
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


def stream_tokens(
    model: Model,
    tokens: Tensor,
    settings: SamplingSettings,
    ends: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """Yield the tokens that continue a text, as `model.generate` would draw them.

    The weights are used as they are, in their own dtype and by torch's own products, so a model in
    training can write as well.

    Args:
        model: Any model; its mode stays as it is, and it writes in eval mode.
        tokens: [1, time] int64.
        settings: The number of tokens to draw, and how to draw them.
        ends: The tokens that end a text; they aren't yielded.
    """
    for written in _write(model, None, tokens, settings, ends):
        if written.token is not None:
            yield written.token


def stream_text(
    model: Model,
    tokenizer: Tokenizer,
    tokens: Tensor,
    settings: SamplingSettings,
    ends: frozenset[int] = frozenset(),
) -> Iterator[str]:
    """Yield the text that continues `tokens` in pieces of whole characters, as they are made.

    Args:
        model: Any model; its mode stays as it is, and it writes in eval mode.
        tokenizer: The model's tokenizer, whose token `<|endoftext|>` ends a text.
        tokens: [1, time] int64.
        settings: The number of tokens to draw, and how to draw them.
        ends: Other tokens that end a text.
    """
    for written in _write(model, tokenizer, tokens, settings, ends):
        yield written.text


def _write(
    model: Model,
    tokenizer: Tokenizer | None,
    tokens: Tensor,
    settings: SamplingSettings,
    ends: frozenset[int],
) -> Iterator[Written]:
    """Write one text by an engine that has the memory that this text needs.

    From its first token to its last the model is in eval mode.
    """
    prompt = tokens[0].tolist()
    memory = {"slots": 1, "room": len(prompt) + settings.length, "piece": model.block_size}
    precision = Precision(compile="off")
    engine = Engine(model, tokenizer, **memory, ends=ends, precision=precision)
    with evaluating(engine.writer.model):
        yield from engine.submit(prompt, settings)


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
