"""Log-probabilities of tokens after others, in batches: what every evaluation of a model is made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import EvaluationError
from groundup.models.catalogue import Model, hidden_after, new_cache
from groundup.models.kv_cache import KVCache

LOGITS_AT_ONCE = 2**23  # numbers: 32 MB in float32
CONTEXTS_ALIKE = 4  # tokens by which contexts that are computed together differ at the most
ENDINGS_AT_ONCE = 128  # tokens: as few as keep a processor busy, so that endings of other lengths needn't be padded


@dataclass(frozen=True)
class Continuations:
    """A context of at least a token and the endings that may follow it. [tokens] int64 each"""

    context: np.ndarray
    endings: tuple[np.ndarray, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest ending."""
        return max(map(len, self.endings))


def sums_of_endings(
    model: Model,
    asked: Sequence[Continuations],
    batch_size: int,
    tell: Callable[[int], None] = lambda _: None,
) -> list[list[float]]:
    """The sum of the log-probabilities of each ending's tokens after its context, in nats.

    A context is computed once for all of its endings where the model has a cache, up to `batch_size` contexts of about
    one length together; then their endings, those of about one length together, padded on the right, where nothing
    looks. What is longer than the model's block_size loses its beginning, each ending for itself. `tell` is told how
    many contexts are done. Raises EvaluationError for an ending longer than block_size.
    """
    check_endings(asked, model.block_size)
    pieces = [
        (number, first, piece)
        for number, continuations in enumerate(asked)
        for first, piece in _fitting(continuations, model.block_size)
    ]
    sums = [[0.0] * len(continuations.endings) for continuations in asked]
    done = 0
    for batch in _batches(pieces, batch_size):
        for (number, first, _), found in zip(batch, _score([piece for _, _, piece in batch], model), strict=True):
            sums[number][first : first + len(found)] = found
        done += len(batch)
        tell(done)
    return sums


def check_endings(asked: Sequence[Continuations], block_size: int) -> None:
    """Raises EvaluationError for an ending that is longer than the model's context."""
    longest = max((continuations.longest for continuations in asked), default=0)
    if longest > block_size:
        raise EvaluationError(
            f"an ending has {longest} tokens, but the model's context is {block_size}: it can't be scored. Evaluate a "
            "model with a longer context, or one whose tokens are longer than characters"
        )


def is_cut(continuations: Continuations, block_size: int) -> bool:
    """Whether the context loses its beginning before the longest ending. The last token of all isn't read."""
    return len(continuations.context) + continuations.longest - 1 > block_size


def _fitting(continuations: Continuations, block_size: int) -> Iterator[tuple[int, Continuations]]:
    """What a model of that context can read: all endings at once, or each after what is left of the context."""
    if not is_cut(continuations, block_size):
        yield 0, continuations
        return
    for place, ending in enumerate(continuations.endings):
        yield place, Continuations(continuations.context[-(block_size + 1 - len(ending)) :], (ending,))


Piece = tuple[int, int, Continuations]  # which was asked, its first ending's place there, and what is to be scored


def _batches(pieces: list[Piece], batch_size: int) -> Iterator[list[Piece]]:
    """Pieces with contexts of about one length together, the longest first: if memory ends, then at once."""
    batch: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: len(piece[2].context), reverse=True):
        if batch and (len(batch) == batch_size or len(batch[0][2].context) - len(piece[2].context) > CONTEXTS_ALIKE):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


@dataclass(frozen=True)
class _Row:
    """What is left of a context, and an ending. context: its place in the batch; first: the ending's place in here."""

    context: int
    ending: int
    tokens: np.ndarray
    first: int


@torch.inference_mode()
def _score(batch: list[Continuations], model: Model) -> list[list[float]]:
    """The sums of each context's endings."""
    device = device_of(model)
    shared = min(len(continuations.context) for continuations in batch) - 1  # the last one's state is needed itself
    cache = new_cache(model) if shared else None
    if cache is None:
        shared = 0
    else:
        contexts = np.stack([continuations.context[:shared] for continuations in batch])
        hidden_after(model, torch.from_numpy(contexts).to(device), cache)
    rows = [
        _Row(number, place, np.concatenate([asked.context[shared:], ending]), len(asked.context) - shared)
        for number, asked in enumerate(batch)
        for place, ending in enumerate(asked.endings)
    ]
    sums = [[0.0] * len(continuations.endings) for continuations in batch]
    for some in _of_one_length(rows):
        chosen = None if cache is None else cache.rows(torch.tensor([row.context for row in some], device=device))
        scores = log_probabilities(model, [row.tokens for row in some], [row.first for row in some], chosen)
        for row, found in zip(some, scores, strict=True):
            sums[row.context][row.ending] = float(found.sum(dtype=np.float64))
    return sums


def _of_one_length(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows whose lengths differ by a token at most, or by more where they are few tokens in all."""
    some: list[_Row] = []
    for row in sorted(rows, key=lambda row: len(row.tokens), reverse=True):
        longest = len(some[0].tokens) if some else 0
        if some and len(some) * longest >= ENDINGS_AT_ONCE and longest - len(row.tokens) > 1:
            yield some
            some = []
        some.append(row)
    yield some


@torch.inference_mode()
def log_probabilities(
    model: Model, rows: Sequence[np.ndarray], firsts: Sequence[int], cache: KVCache | None = None
) -> list[np.ndarray]:
    """The log-probability of each token of a row from place `first` on, in nats, given those before it.

    rows: [tokens] int64 each; firsts: of each row, from 1. cache: of what comes before the rows, with as many of them.
    """
    inputs = np.zeros((len(rows), max(map(len, rows)) - 1), dtype=np.int64)
    counted = np.zeros(inputs.shape, dtype=bool)
    for place, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        inputs[place, : len(row) - 1] = row[:-1]
        counted[place, first - 1 : len(row) - 1] = True
    device = device_of(model)
    hidden = hidden_after(model, torch.from_numpy(inputs).to(device), cache)
    targets = np.concatenate([row[first:] for row, first in zip(rows, firsts, strict=True)]).astype(np.int64)
    states = hidden[torch.from_numpy(counted).to(device)]  # [counted, width], in the order of the targets
    found = _by_chunks(model, states, torch.from_numpy(targets).to(device))
    lengths = [len(row) - first for row, first in zip(rows, firsts, strict=True)]
    return np.split(found.cpu().numpy(), np.cumsum(lengths)[:-1])


def _by_chunks(model: Model, states: Tensor, targets: Tensor) -> Tensor:
    """[n, width], [n] -> [n], without all logits at once; below float32, logits are normalised in float32."""
    rows = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    found = []
    for some, wanted in zip(states.split(rows), targets.split(rows), strict=True):
        logits = model.head(some)
        precise = logits if logits.dtype == torch.float64 else logits.float()
        found.append(-F.cross_entropy(precise, wanted, reduction="none"))
    return torch.cat(found)


def device_of(model: Model) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device
