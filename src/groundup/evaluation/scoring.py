"""Computes log-probabilities of tokens in batches, which all evaluation tasks need."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import EvaluationError
from groundup.machine.kinds import to_device
from groundup.models.cache import KVCache
from groundup.models.registry import Model, cache_for, hidden_states

ROWS, WORDS = 1024, 4096  # states and words whose logits are computed together: 16 MB in float32
CONTEXTS_ALIKE = 4  # tokens by which contexts that are computed together differ at the most
COST_OF_A_PASS = 20  # tokens that a processor computes in the time that a pass takes beside them
ROWS_AT_ONCE = 64  # endings: each takes a copy of its context's keys and values


@dataclass(frozen=True)
class Continuations:
    """A context of at least one token and the endings that may follow it, [tokens] int64 each."""

    context: np.ndarray
    endings: tuple[np.ndarray, ...]

    @property
    def longest(self) -> int:
        """The number of tokens of the longest ending."""
        return max(map(len, self.endings))


def sums_of_endings(
    model: Model,
    asked: Sequence[Continuations],
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[list[float]]:
    """Sum the log-probabilities of each ending's tokens after its context, in nats.

    Where the model has a cache, a context is computed once for all of its endings. Up to
    `batch_size` contexts of about the same length are computed together, then their endings in
    groups of about the same length. The padding is on the right, where no token attends to it. If
    a context and an ending are too long for the model's block_size, that context is cut at its
    beginning, and is computed for each ending separately.

    Args:
        model: A model in evaluation mode.
        asked: The contexts and their endings.
        batch_size: How many contexts are computed together at the most.
        progress: Is told after each batch how many contexts are done.

    Returns:
        For each context the sums of its endings, in the order of `asked`.

    Raises:
        EvaluationError: An ending is longer than the model's block_size.
    """
    sums = [[0.0] * len(continuations.endings) for continuations in asked]
    done = 0.0
    for batch in plan_batches(asked, model, batch_size):
        for piece, found in zip(batch.pieces, _score(batch, model), strict=True):
            sums[piece.request][piece.first : piece.first + len(found)] = found
            done += len(found) / len(sums[piece.request])
        progress(round(done))
    return sums


def check_endings(asked: Sequence[Continuations], block_size: int) -> None:
    """Check that every ending fits into a model's context of `block_size` tokens.

    Raises:
        EvaluationError: An ending is longer than `block_size`.
    """
    longest = max((continuations.longest for continuations in asked), default=0)
    if longest > block_size:
        raise EvaluationError(
            f"an ending has {longest} tokens, but the model's context is {block_size}: it can't "
            "be scored. Evaluate a model with a longer context, or one whose tokens are longer "
            "than characters"
        )


def is_cut(continuations: Continuations, block_size: int) -> bool:
    """Tell whether a context must lose its beginning, so that its longest ending fits after it.

    The last token of an ending is only predicted, so the model needs no room for it.
    """
    return len(continuations.context) + continuations.longest - 1 > block_size


@dataclass(frozen=True)
class Piece:
    """Endings of one context that are scored together: all of them, or one whose context was cut.

    Args:
        request: The index of the context among all contexts.
        first: The index of the piece's first ending among all endings of the context.
        asked: The context, cut if it is too long, and the piece's endings.
    """

    request: int
    first: int
    asked: Continuations


@dataclass(frozen=True)
class Row:
    """A row of a forward pass: an ending, after the tokens of its context that aren't cached.

    Args:
        piece: The index of the ending's piece in the batch.
        ending: The index of the ending in that piece.
        tokens: The context's tokens that aren't in the cache, and the ending's tokens.
        first: The index of the ending's first token in `tokens`.
    """

    piece: int
    ending: int
    tokens: np.ndarray
    first: int


@dataclass(frozen=True)
class Batch:
    """Pieces that are computed together: their contexts in one pass, then their rows in groups.

    Args:
        pieces: The pieces, whose contexts are of about one length.
        shared: How many tokens of every context are read once, for all of its endings; 0 where the
            model has no cache.
        groups: The rows in groups of about the same length, the longest first.
    """

    pieces: list[Piece]
    shared: int
    groups: list[list[Row]]

    @property
    def passes(self) -> int:
        """How often the model is called for this batch."""
        # after a cached context, an ending's only token is predicted without another pass
        return (self.shared > 0) + sum(len(group[0].tokens) > 1 for group in self.groups)


def plan_batches(asked: Sequence[Continuations], model: Model, batch_size: int) -> Iterator[Batch]:
    """Divide contexts and their endings into a model's batches, the longest contexts first.

    So a lack of memory shows at once.

    Args:
        asked: The contexts and their endings.
        model: The model.
        batch_size: How many contexts a batch has at the most.

    Raises:
        EvaluationError: An ending is longer than the model's block_size.
    """
    check_endings(asked, model.block_size)
    has_cache = cache_for(model, room=0) is not None
    pieces = [
        piece
        for number, continuations in enumerate(asked)
        for piece in _pieces(number, continuations, model.block_size)
    ]
    together: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: len(piece.asked.context), reverse=True):
        if together:
            shorter = len(together[0].asked.context) - len(piece.asked.context)
            if len(together) == batch_size or shorter > CONTEXTS_ALIKE:
                yield _batch(together, has_cache)
                together = []
        together.append(piece)
    if together:
        yield _batch(together, has_cache)


def count_passes(model: Model, asked: Sequence[Continuations], batch_size: int) -> int:
    """Count the forward passes that `sums_of_endings` makes with the same arguments."""
    return sum(batch.passes for batch in plan_batches(asked, model, batch_size))


@torch.inference_mode()
def pass_ignored_tokens(model: Model, passes: int) -> None:
    """Call the model `passes` times on a token whose states nobody uses.

    A sharded model gathers its weights in every pass, so all processes must make equally many
    passes.
    """
    ignored = torch.zeros(1, 1, dtype=torch.int64, device=device_of(model))
    for _ in range(passes):
        hidden_states(model, ignored, None)


def _pieces(number: int, asked: Continuations, block_size: int) -> Iterator[Piece]:
    """All endings at once, or each after what is left of the context in a window of block_size."""
    if not is_cut(asked, block_size):
        yield Piece(number, 0, asked)
        return
    for place, ending in enumerate(asked.endings):
        left = asked.context[-(block_size + 1 - len(ending)) :]
        yield Piece(number, place, Continuations(left, (ending,)))


def _batch(pieces: list[Piece], has_cache: bool) -> Batch:
    shared = min(len(piece.asked.context) for piece in pieces) if has_cache else 0
    rows = [
        Row(
            *(number, place, np.concatenate([piece.asked.context[shared:], ending])),
            len(piece.asked.context) - shared,
        )
        for number, piece in enumerate(pieces)
        for place, ending in enumerate(piece.asked.endings)
    ]
    return Batch(pieces, shared, cheapest_groups(rows))


def cheapest_groups(rows: list[Row]) -> list[list[Row]]:
    """Divide rows of forward passes into groups, so that passes and padding cost the least.

    A group is one pass. A pass over n rows costs COST_OF_A_PASS plus n times the longest row, in
    tokens, and has at most ROWS_AT_ONCE rows. The rows are sorted, the longest first, and cut into
    groups by dynamic programming: the least cost of the first `end` rows is the least, over the
    beginnings of the last group, of that group's cost and the least cost of all rows before it.
    """
    ordered = sorted(rows, key=lambda row: len(row.tokens), reverse=True)
    lengths = [len(row.tokens) for row in ordered]
    least_cost, last_begins = [0], [0]  # of the first rows: none, one ... all
    for end in range(1, len(ordered) + 1):
        cost, begin = min(
            (least_cost[begin] + COST_OF_A_PASS + lengths[begin] * (end - begin), begin)
            for begin in range(max(0, end - ROWS_AT_ONCE), end)
        )
        least_cost.append(cost)
        last_begins.append(begin)
    groups, end = [], len(ordered)
    while end:
        groups.append(ordered[last_begins[end] : end])
        end = last_begins[end]
    return groups[::-1]


@torch.inference_mode()
def _score(batch: Batch, model: Model) -> list[list[float]]:
    """The sums of each piece's endings."""
    device = device_of(model)
    cache, before = cache_for(model, batch.shared), None
    if cache is not None:
        contexts = np.stack([piece.asked.context[: batch.shared] for piece in batch.pieces])
        before = hidden_states(model, to_device(torch.from_numpy(contexts), device), cache)[:, -1]
    sums = [[0.0] * len(piece.asked.endings) for piece in batch.pieces]
    for group in batch.groups:
        chosen = to_device(torch.tensor([row.piece for row in group]), device)
        scores = log_probabilities(
            model,
            [row.tokens for row in group],
            [row.first for row in group],
            None if cache is None else cache.rows(chosen, room=len(group[0].tokens)),
            None if before is None else before[chosen],
        )
        for row, found in zip(group, scores, strict=True):
            sums[row.piece][row.ending] = float(found.sum(dtype=np.float64))
    return sums


@torch.inference_mode()
def log_probabilities(
    model: Model,
    rows: Sequence[np.ndarray],
    firsts: Sequence[int],
    cache: KVCache | None = None,
    before: Tensor | None = None,
) -> list[np.ndarray]:
    """Compute the log-probability of each row's tokens from an index on, given all tokens before.

    Args:
        model: A model in evaluation mode.
        rows: The rows' tokens, [tokens] int64 each.
        firsts: For each row the index of the first token to score, at least 1; at least 0 where
            `before` is given.
        cache: The keys and values of what comes before the rows, with as many rows.
        before: The states of the last tokens that come before the rows, [rows, width].

    Returns:
        For each row the log-probabilities, in nats, [tokens - first] float32 or float64.
    """
    inputs = np.zeros((len(rows), max(map(len, rows)) - 1), dtype=np.int64)
    for place, row in enumerate(rows):
        inputs[place, : len(row) - 1] = row[:-1]
    device = device_of(model)
    hidden = []  # [rows, some, width] each: the states that predict the tokens, one after the other
    if before is not None:
        hidden.append(before[:, None])
    if inputs.shape[1]:
        hidden.append(hidden_states(model, to_device(torch.from_numpy(inputs), device), cache))
    predicted = 1 if before is None else 0  # the place of the first token with a state before it
    counted = np.zeros((len(rows), inputs.shape[1] + 1 - predicted), dtype=bool)
    for place, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        counted[place, first - predicted : len(row) - predicted] = True
    scored = [row[first:] for row, first in zip(rows, firsts, strict=True)]
    targets = to_device(torch.from_numpy(np.concatenate(scored).astype(np.int64)), device)
    # the places of the states, because a GPU would be waited for to count those of a mask
    places = to_device(torch.from_numpy(np.flatnonzero(counted)), device)
    states = torch.cat(hidden, dim=1).flatten(0, 1)[places]  # [counted, width]
    found = _of_targets(model, states, targets).cpu().numpy()
    return np.split(found, np.cumsum([len(some) for some in scored])[:-1])


def _of_targets(model: Model, states: Tensor, targets: Tensor) -> Tensor:
    """The targets' log-probabilities: [n, width], [n] -> [n]. Below float32, float32 normalises."""
    pieces = zip(states.split(ROWS), targets.split(ROWS), strict=True)
    return torch.cat([_of_some(model, *piece) for piece in pieces])


def _of_some(model: Model, states: Tensor, targets: Tensor) -> Tensor:
    """A piece of the vocabulary at a time, so that its logits stay in a processor's cache."""
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
    """Return the device of the model's weights."""
    return next(model.parameters()).device
