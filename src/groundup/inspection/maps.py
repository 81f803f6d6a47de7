"""Attention as pictures: whole, or so small that all heads can be seen at a glance.

Both are made in bands, some tokens that read at a time: they yield after each, so that nobody waits
long for them, and need little memory however long the text is.
"""

from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from groundup.inspection.reading import Inspection

WEIGHTS_AT_ONCE = 2**20


def small_map(
    inspection: Inspection, layer: int, head: int, size: int
) -> Generator[None, None, tuple[Tensor, Tensor]]:
    """Return the small map of a head, and what the head reads in the mean.

    Args:
        inspection: The text, which was read.
        layer: The index of the layer.
        head: The index of the head of queries.
        size: The number of cells on a side, at most the number of tokens.

    Returns:
        [size, size] uint8, the largest weight of each cell times 255; and [3] float64, the mean
        weight on the token before the one that reads, on itself and on the first token.
    """
    time = len(inspection.tokens)
    cells = torch.arange(time) * size // time  # of each token
    small, sums = torch.zeros(size, size), torch.zeros(3, dtype=torch.float64)
    for first, found in bands(inspection, layer, head):
        weights, rows = found.cpu().float(), torch.arange(first, first + len(found))
        columns = cells[: weights.size(1)].expand(len(weights), -1)
        narrowed = torch.zeros(len(weights), size).scatter_reduce(1, columns, weights, "amax")
        small.scatter_reduce_(0, cells[rows, None].expand(-1, size), narrowed, "amax")
        later = rows[rows > 0]  # the first token has none before it
        sums[0] += weights[later - first, later - 1].sum()
        sums[1] += weights[rows - first, rows].sum()
        sums[2] += weights[later - first, 0].sum()
        yield
    others = max(time - 1, 1)
    means = sums / torch.tensor([others, time, others])
    return (small * 255).round().to(torch.uint8), means


def triangle(inspection: Inspection, layer: int, head: int) -> Generator[None, None, Tensor]:
    """Return a head's map: the lower triangle, row after row, [time (time + 1) / 2] float16."""
    found = []
    for first, weights in bands(inspection, layer, head):
        seen = torch.ones(weights.shape, dtype=torch.bool, device=weights.device).tril(first)
        found.append(weights[seen].to(torch.float16))
        yield
    return torch.cat(found)


def bands(inspection: Inspection, layer: int, head: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the first token of each band, and the weights of the band's tokens."""
    time = len(inspection.tokens)
    rows = max(1, WEIGHTS_AT_ONCE // time)
    for first in range(0, time, rows):
        yield first, inspection.attention(layer, head, first, min(first + rows, time))
