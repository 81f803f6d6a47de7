"""The loss on a text, read through a sliding window, and where in the text it was highest and
lowest.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from groundup.data.tokens import Tokens
from groundup.errors import EvaluationError
from groundup.evaluation.scoring import log_probabilities
from groundup.evaluation.units import bits_per_byte, perplexity
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer

PASSAGE = 64  # tokens
SHOWN = 3  # passages at each end


@dataclass(frozen=True)
class Passage:
    """Some tokens in a row and their mean loss in nats. place: of its first token in its stream."""

    stream: str
    place: int
    loss: float
    text: str


@dataclass(frozen=True)
class TextLoss:
    """The loss over all tokens of a text but each stream's first, in nats a token; size: their
    bytes as text.

    stride: each token was predicted from at least block_size - stride + 1 tokens before it, where
    there are as many.
    """

    tokens: int
    size: int
    loss: float
    stride: int
    block_size: int
    seconds: float
    worst: list[Passage]
    best: list[Passage]

    @property
    def bits_per_byte(self) -> float:
        """Comparable over tokenizers; NaN where the tokens stand for no text."""
        return bits_per_byte(self.loss, self.size / self.tokens) if self.size else math.nan

    def to_json(self) -> dict[str, Any]:
        """Everything, and what follows from it; None for a unit that there is no number in."""
        derived = {"bits_per_byte": self.bits_per_byte, "perplexity": perplexity(self.loss)}
        stated = {unit: value if math.isfinite(value) else None for unit, value in derived.items()}
        return asdict(self) | stated | {"tokens_per_second": self.tokens / self.seconds}


def text_loss(
    model: Model,
    tokenizer: Tokenizer,
    tokens: Tokens,
    *,
    stride: int,
    batch_size: int,
    tell: Callable[[int], None] = lambda _: None,
) -> TextLoss:
    """Score every token of every stream but its first; streams don't see each other. Model in
    evaluation mode.

    Raises EvaluationError where it gives no number.
    """
    started, byte_counts = time.perf_counter(), bytes_of_tokens(tokenizer, model.config.vocab_size)
    total, count, size, passages = 0.0, 0, 0, []
    for name, stream in zip(tokens.names, tokens.streams, strict=True):
        losses = losses_of(
            model, stream, stride, batch_size, lambda done, before=count: tell(before + done)
        )
        total += float(losses.sum(dtype=np.float64))
        size += int(byte_counts[stream[1:]].sum())
        count += len(losses)
        passages += passages_of(name, stream, losses, tokenizer)
    passages.sort(key=lambda passage: passage.loss)
    seconds = time.perf_counter() - started
    worst, best = passages[: -SHOWN - 1 : -1], passages[:SHOWN]
    return TextLoss(count, size, total / count, stride, model.block_size, seconds, worst, best)


def losses_of(
    model: Model,
    stream: np.ndarray,
    stride: int,
    batch_size: int,
    tell: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """The nats of each token but the first. stream: [tokens] -> [tokens - 1] float32

    Raises EvaluationError where the model gives no number.
    """
    losses = np.empty(max(0, len(stream) - 1), dtype=np.float32)
    for first, found in sliding_losses(model, stream, stride, batch_size):
        losses[first : first + len(found)] = found
        tell(first + len(found))
    if not np.isfinite(losses).all():
        raise EvaluationError(
            "the model's loss on the text is no number: its weights are damaged, or it overflows "
            "in the precision that it is kept in"
        )
    return losses


def sliding_losses(
    model: Model, stream: np.ndarray, stride: int, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The nats of each token but the first, in order: (of which target these are the first,
    [some]).

    The first window counts all of its tokens, each later one begins `stride` tokens further and
    counts what is new. stream: [tokens]; stride: from 1 to block_size.
    """
    window, targets = model.block_size, len(stream) - 1
    windows = 1 + max(0, -(-(targets - window) // stride)) if targets > 0 else 0
    for number in range(0, windows, batch_size):
        chosen = range(number, min(number + batch_size, windows))
        rows = [
            stream[place * stride : place * stride + window + 1].astype(np.int64)
            for place in chosen
        ]
        firsts = [1 if place == 0 else window - stride + 1 for place in chosen]
        found = log_probabilities(model, rows, firsts)
        yield number * stride + firsts[0] - 1, -np.concatenate(found)


def passages_of(
    name: str, stream: np.ndarray, losses: np.ndarray, tokenizer: Tokenizer
) -> list[Passage]:
    """The stream's passages of highest and of lowest loss, cut every PASSAGE tokens; a shorter end
    is left out.

    stream: [tokens], losses: [tokens - 1], the first of which is that of the second token.
    """
    length = min(PASSAGE, len(losses))
    if not length:
        return []
    means = (
        losses[: len(losses) // length * length].reshape(-1, length).mean(axis=1, dtype=np.float64)
    )
    order = np.argsort(means, kind="stable")
    # each once where there are few
    chosen = dict.fromkeys([*order[:SHOWN].tolist(), *order[-SHOWN:].tolist()])
    return [
        Passage(
            name,
            1 + number * length,
            float(means[number]),
            _text(stream, number * length, length, tokenizer),
        )
        for number in chosen
    ]


def _text(stream: np.ndarray, first: int, length: int, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(
        token for token in stream[1 + first : 1 + first + length] if token < tokenizer.vocab_size
    )


def bytes_of_tokens(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """How many bytes of text each token stands for: none for special ones and those that pad.
    [vocab_size] int64
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    special = set(tokenizer.special_tokens.values())
    for token in range(min(vocab_size, tokenizer.vocab_size)):
        if token not in special:
            counts[token] = len(tokenizer.decode_bytes([token]))
    return counts
