"""Computes token losses in a sliding window, and the passages with the highest and lowest loss."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from groundup.errors import EvaluationError
from groundup.evaluation.scoring import log_probabilities
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer

PASSAGE = 64  # tokens
SHOWN = 3  # passages at each end


@dataclass(frozen=True)
class Passage:
    """Some tokens in a row and their mean loss in nats.

    Args:
        stream: The name of the stream of tokens that the passage is in.
        place: The index of the passage's first token in that stream.
        loss: The mean loss of the passage's tokens, in nats.
        text: The passage's text.
    """

    stream: str
    place: int
    loss: float
    text: str


def losses_of(
    model: Model,
    stream: np.ndarray,
    stride: int,
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
    *,
    window: int = 0,
) -> np.ndarray:
    """Compute the loss in nats of each token but the first: [tokens] -> [tokens - 1] float32.

    Args:
        model: A model in evaluation mode.
        stream: The tokens, [tokens].
        stride: The number of tokens from one window of the model to the next.
        batch_size: How many windows are computed together.
        progress: Is told after each batch how many losses are computed.

    Raises:
        EvaluationError: A loss isn't finite.
    """
    losses = np.empty(max(0, len(stream) - 1), dtype=np.float32)
    for first, found in sliding_losses(model, stream, stride, batch_size, window):
        losses[first : first + len(found)] = found
        progress(first + len(found))
    if not np.isfinite(losses).all():
        raise EvaluationError(
            "the model's loss on the text is no number: its weights are damaged, or it overflows "
            "in the precision that it is kept in"
        )
    return losses


def sliding_losses(
    model: Model, stream: np.ndarray, stride: int, batch_size: int, window: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Compute the loss in nats of each token but the first, in order, window after window.

    In the first window all tokens but the first are scored. Each later window begins `stride`
    tokens further; only its new tokens are scored.

    Args:
        model: A model in evaluation mode.
        stream: The tokens, [tokens].
        stride: The number of tokens from one window to the next, from 1 to block_size.
        batch_size: How many windows are computed together.
        window: The number of tokens of a window; 0 takes block_size.

    Yields:
        The index of a batch's first loss among all losses, and the batch's losses, [some].
    """
    window, targets = window or model.block_size, len(stream) - 1
    windows = 1 + max(0, -(-(targets - window) // stride)) if targets > 0 else 0
    for number in range(0, windows, batch_size):
        chosen = range(number, min(number + batch_size, windows))
        starts = [place * stride for place in chosen]
        rows = [stream[start : start + window + 1].astype(np.int64) for start in starts]
        firsts = [1 if place == 0 else window - stride + 1 for place in chosen]
        found = log_probabilities(model, rows, firsts)
        yield number * stride + firsts[0] - 1, -np.concatenate(found)


def passages_of(
    name: str, stream: np.ndarray, losses: np.ndarray, tokenizer: Tokenizer
) -> list[Passage]:
    """Find the passages of highest and of lowest loss in a stream, cut every PASSAGE tokens.

    A shorter passage at the end is left out.

    Args:
        name: The name of the stream.
        stream: The stream's tokens, [tokens].
        losses: The loss of each token but the first, in nats, [tokens - 1].
        tokenizer: The tokenizer that decodes the passages.
    """
    length = min(PASSAGE, len(losses))
    if not length:
        return []
    whole = losses[: len(losses) // length * length].reshape(-1, length)
    means = whole.mean(axis=1, dtype=np.float64)
    order = np.argsort(means, kind="stable")
    # each once where there are few
    chosen = dict.fromkeys([*order[:SHOWN].tolist(), *order[-SHOWN:].tolist()])
    starts = {number: 1 + number * length for number in chosen}
    return [
        Passage(name, start, float(means[number]), _text(stream[start : start + length], tokenizer))
        for number, start in starts.items()
    ]


def _text(tokens: np.ndarray, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(token for token in tokens if token < tokenizer.vocab_size)


def bytes_of_tokens(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """Count the bytes of text that each token stands for, [vocab_size] int64.

    Special tokens and tokens that pad the vocabulary stand for no bytes.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    special = set(tokenizer.special_tokens.values())
    for token in range(min(vocab_size, tokenizer.vocab_size)):
        if token not in special:
            counts[token] = len(tokenizer.decode_bytes([token]))
    return counts
