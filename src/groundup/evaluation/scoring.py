"""Log-probabilities of tokens after others, in batches: what every evaluation of a model is made
of.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import EvaluationError
from groundup.models.cache import KVCache
from groundup.models.registry import Model, cache_for, hidden_states

ROWS, WORDS = 1024, 4096  # states and words whose logits are computed together: 16 MB in float32
CONTEXTS_ALIKE = 4  # tokens by which contexts that are computed together differ at the most
# tokens that a processor computes in the time that a pass takes beyond its tokens
COST_OF_A_PASS = 20
ROWS_AT_ONCE = 64  # endings: each takes a copy of its context's keys and values


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

    A context is computed once for all of its endings where the model has a cache, up to
    `batch_size` contexts of about one length together; then their endings, those of about one
    length together, padded on the right, where nothing looks. What is longer than the model's
    block_size loses its beginning, each ending for itself. `tell` is told how many contexts are
    done. Raises EvaluationError for an ending longer than block_size.
    """
    check_endings(asked, model.block_size)
    pieces = [
        (number, first, piece)
        for number, continuations in enumerate(asked)
        for first, piece in _fitting(continuations, model.block_size)
    ]
    sums = [[0.0] * len(continuations.endings) for continuations in asked]
    done = 0.0
    for batch in _batches(pieces, batch_size):
        for (number, first, _), found in zip(
            batch, _score([piece for _, _, piece in batch], model), strict=True
        ):
            sums[number][first : first + len(found)] = found
            done += len(found) / len(sums[number])
        tell(round(done))
    return sums


def check_endings(asked: Sequence[Continuations], block_size: int) -> None:
    """Raises EvaluationError for an ending that is longer than the model's context."""
    longest = max((continuations.longest for continuations in asked), default=0)
    if longest > block_size:
        raise EvaluationError(
            f"an ending has {longest} tokens, but the model's context is {block_size}: it can't "
            "be scored. Evaluate a model with a longer context, or one whose tokens are longer "
            "than characters"
        )


def is_cut(continuations: Continuations, block_size: int) -> bool:
    """Whether the context loses its beginning before the longest ending. The last token of all
    isn't read.
    """
    return len(continuations.context) + continuations.longest - 1 > block_size


def _fitting(continuations: Continuations, block_size: int) -> Iterator[tuple[int, Continuations]]:
    """What a model of that context can read: all endings at once, or each after what is left of the
    context.
    """
    if not is_cut(continuations, block_size):
        yield 0, continuations
        return
    for place, ending in enumerate(continuations.endings):
        yield (
            place,
            Continuations(continuations.context[-(block_size + 1 - len(ending)) :], (ending,)),
        )


# which was asked, its first ending's place there, and what is to be scored
Piece = tuple[int, int, Continuations]


def _batches(pieces: list[Piece], batch_size: int) -> Iterator[list[Piece]]:
    """Pieces with contexts of about one length together, the longest first: if memory ends, then at
    once.
    """
    batch: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: len(piece[2].context), reverse=True):
        if batch and (
            len(batch) == batch_size
            or len(batch[0][2].context) - len(piece[2].context) > CONTEXTS_ALIKE
        ):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


@dataclass(frozen=True)
class _Row:
    """What is left of a context, and an ending. context: its place in the batch; first: the
    ending's place in here.
    """

    context: int
    ending: int
    tokens: np.ndarray
    first: int


@torch.inference_mode()
def _score(batch: list[Continuations], model: Model) -> list[list[float]]:
    """The sums of each context's endings."""
    device = device_of(model)
    shortest = min(len(continuations.context) for continuations in batch)
    cache, shared, before = cache_for(model, shortest), 0, None
    if cache is not None:
        shared = shortest
        contexts = np.stack([continuations.context[:shared] for continuations in batch])
        before = hidden_states(model, torch.from_numpy(contexts).to(device), cache)[:, -1]
    rows = [
        _Row(
            number,
            place,
            np.concatenate([asked.context[shared:], ending]),
            len(asked.context) - shared,
        )
        for number, asked in enumerate(batch)
        for place, ending in enumerate(asked.endings)
    ]
    sums = [[0.0] * len(continuations.endings) for continuations in batch]
    for some in _of_one_length(rows):
        chosen = torch.tensor([row.context for row in some], device=device)
        scores = log_probabilities(
            model,
            [row.tokens for row in some],
            [row.first for row in some],
            None if cache is None else cache.rows(chosen, room=len(some[0].tokens)),
            None if before is None else before[chosen],
        )
        for row, found in zip(some, scores, strict=True):
            sums[row.context][row.ending] = float(found.sum(dtype=np.float64))
    return sums


def _of_one_length(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows of about one length together, the longest first: so that passes and padding cost the
    least in all.
    """
    ordered = sorted(rows, key=lambda row: len(row.tokens), reverse=True)
    lengths = [len(row.tokens) for row in ordered]
    # of the first rows, 0 to all: the least cost in tokens, and where the last group begins
    least, begins = [0], [0]
    for end in range(1, len(ordered) + 1):
        cost, begin = min(
            (least[begin] + COST_OF_A_PASS + lengths[begin] * (end - begin), begin)
            for begin in range(max(0, end - ROWS_AT_ONCE), end)
        )
        least.append(cost)
        begins.append(begin)
    groups, end = [], len(ordered)
    while end:
        groups.append(ordered[begins[end] : end])
        end = begins[end]
    yield from reversed(groups)


@torch.inference_mode()
def log_probabilities(
    model: Model,
    rows: Sequence[np.ndarray],
    firsts: Sequence[int],
    cache: KVCache | None = None,
    before: Tensor | None = None,
) -> list[np.ndarray]:
    """The log-probability of each token of a row from place `first` on, in nats, given those before
    it.

    rows: [tokens] int64 each; firsts: of each row, from 1, or from 0 with `before`. cache: of what
    comes before the rows, with as many of them. before: [rows, width], the states of the last
    tokens in there.
    """
    inputs = np.zeros((len(rows), max(map(len, rows)) - 1), dtype=np.int64)
    for place, row in enumerate(rows):
        inputs[place, : len(row) - 1] = row[:-1]
    device = device_of(model)
    hidden = []  # [rows, some, width] each: the states that predict the tokens, one after the other
    if before is not None:
        hidden.append(before[:, None])
    if inputs.shape[1]:
        hidden.append(hidden_states(model, torch.from_numpy(inputs).to(device), cache))
    # the place of the first token that has a state before it
    predicted = 1 if before is None else 0
    counted = np.zeros((len(rows), inputs.shape[1] + 1 - predicted), dtype=bool)
    for place, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        counted[place, first - predicted : len(row) - predicted] = True
    targets = np.concatenate([row[first:] for row, first in zip(rows, firsts, strict=True)]).astype(
        np.int64
    )
    # [counted, width], as the targets are
    states = torch.cat(hidden, dim=1)[torch.from_numpy(counted).to(device)]
    found = _of_targets(model, states, torch.from_numpy(targets).to(device))
    lengths = [len(row) - first for row, first in zip(rows, firsts, strict=True)]
    return np.split(found.cpu().numpy(), np.cumsum(lengths)[:-1])


def _of_targets(model: Model, states: Tensor, targets: Tensor) -> Tensor:
    """[n, width], [n] -> [n], a piece of the vocabulary at a time: its logits stay in a processor's
    cache.

    Below float32, logits are normalised in float32.
    """
    return torch.cat(
        [
            _of_some(model, *some)
            for some in zip(states.split(ROWS), targets.split(ROWS), strict=True)
        ]
    )


def _of_some(model: Model, states: Tensor, targets: Tensor) -> Tensor:
    chosen, sums, first = torch.zeros(len(states), device=states.device), [], 0
    for weights in model.head.weight.split(WORDS):
        logits = F.linear(states, weights)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        inside = (first <= targets) & (targets < first + len(weights))
        picked = logits.gather(1, (targets - first).clamp(0, len(weights) - 1)[:, None])[:, 0]
        chosen = torch.where(inside, picked, chosen)
        sums.append(logits.logsumexp(dim=1))
        first += len(weights)
    return chosen - torch.stack(sums).logsumexp(dim=0)


def device_of(model: Model) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device
