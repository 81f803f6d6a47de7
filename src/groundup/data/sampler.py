"""Samples batches: batch k is a function of (tokens, seed, k), so the only state is the step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from groundup.data.permutation import permute, random_key
from groundup.data.splits import Tokens

IGNORED = -100  # a target that counts in no loss: cross entropy's own convention
PLANNED = 8192  # examples whose places are worked out at once


@dataclass(frozen=True)
class Sampler:
    """Shuffled windows of one or more streams of tokens, epoch after epoch.

    Each epoch cuts every stream into windows from a fresh offset and visits all windows of all
    streams once, in one seeded order. The windows of an epoch don't overlap in their targets, and
    an epoch misses fewer than 2 * block_size tokens of a stream. A stream that is shorter than a
    window has no windows.

    Args:
        tokens: The streams.
        block_size: The number of inputs of a window, which holds one token more: the last target.
        batch_size: The number of windows of a batch.
        seed: Decides the offsets and the order.
        starts: Where the windows of each stream begin, [windows] each; None cuts the streams as
            described above.
    """

    tokens: Tokens
    block_size: int
    batch_size: int
    seed: int
    starts: tuple[np.ndarray, ...] | None = None

    @cached_property
    def _ends(self) -> np.ndarray:
        """Windows in all streams up to each one, itself included: [streams] int64.

        In a stream one fewer than fit, so that every offset below a window's length leaves room for
        all; at least one.
        """
        if self.starts is not None:
            return np.cumsum([len(starts) for starts in self.starts])
        fitting = [max(0, len(stream) - 1) // self.block_size for stream in self.tokens.streams]
        return np.cumsum([max(min(1, windows), windows - 1) for windows in fitting])

    @property
    def windows_per_epoch(self) -> int:
        """The number of windows in an epoch, which is the same in every epoch."""
        return int(self._ends[-1])

    def batch(self, step: int, rows: slice = slice(None)) -> Tensor:
        """Give the windows of batch `step`, or only the windows of some of its rows.

        Returns:
            [rows, block_size + 1] int64; the targets of a row are its inputs shifted by one token.

        Raises:
            CorpusError: A token isn't in the vocabulary.
        """
        examples = step * self.batch_size + np.arange(self.batch_size)[rows]
        return torch.from_numpy(self.windows(examples))

    def windows(self, examples: np.ndarray) -> np.ndarray:
        """Give the windows at some positions of the endless order of windows.

        Args:
            examples: The positions, [n].

        Returns:
            [n, block_size + 1] int64.

        Raises:
            CorpusError: A token isn't in the vocabulary.
        """
        blocks, places = np.divmod(examples, PLANNED)
        planned = np.empty((2, len(examples)), dtype=np.int64)
        for block in set(blocks.tolist()):  # nearly always one
            inside = blocks == block
            planned[:, inside] = self._plan(block)[:, places[inside]]
        return self.tokens.read(planned[0], planned[1], self.block_size + 1)

    @cached_property
    def _plan(self) -> Callable[[int], np.ndarray]:
        """Each example's stream in a block, and where it starts: [2, PLANNED] int64.

        A whole block is worked out as fast as a few of its examples.
        """
        return lru_cache(maxsize=2)(self._plan_block)

    def _plan_block(self, block: int) -> np.ndarray:
        size = self.windows_per_epoch
        epochs, places = np.divmod(block * PLANNED + np.arange(PLANNED), size)
        has_one = epochs[0] == epochs[-1]
        epoch = epochs[0] if has_one else epochs.astype(np.uint64)
        numbers = permute(places, size, random_key(self.seed, epoch, 0))
        streams = np.searchsorted(self._ends, numbers, side="right")
        places = numbers - self._begins[streams]
        if self.starts is not None:
            found = zip(streams.tolist(), places.tolist(), strict=True)
            return np.stack([streams, [self.starts[stream][place] for stream, place in found]])
        keys = random_key(self.seed, epochs.astype(np.uint64), 1 + streams.astype(np.uint64))
        offsets = (keys % self._offsets[streams]).astype(np.int64)
        return np.stack([streams, offsets + places * self.block_size])

    @cached_property
    def _begins(self) -> np.ndarray:
        """Windows in all streams before each one: [streams] int64."""
        return np.append(0, self._ends[:-1])

    @cached_property
    def _offsets(self) -> np.ndarray:
        """In how many places the first window of each stream may start: [streams] uint64."""
        lengths = np.array([len(stream) for stream in self.tokens.streams])
        taken = (self._ends - self._begins) * self.block_size
        return np.maximum(1, lengths - taken).astype(np.uint64)


def evaluation_batches(
    tokens: Tokens, block_size: int, batch_size: int, most: int = 0
) -> Iterator[Tensor]:
    """Go through all streams in order, so that each token but a stream's first is a target once.

    Args:
        tokens: The streams.
        block_size: The number of inputs of a window, which holds one token more: the last target.
        batch_size: The number of windows of a batch.
        most: About how many targets to take, in evenly spread windows; 0 takes all.

    Yields:
        [batch_size, block_size + 1] int64, all of one shape; positions past the end of a stream
        hold IGNORED.
    """
    ends = np.cumsum([-(-max(0, len(stream) - 1) // block_size) for stream in tokens.streams])
    windows, targets = int(ends[-1]), sum(max(0, len(stream) - 1) for stream in tokens.streams)
    chosen = np.arange(windows)
    if 0 < most < targets:
        chosen = np.linspace(0, windows - 1, max(1, most // block_size)).astype(np.int64)
    for first in range(0, len(chosen), batch_size):
        batch = np.full((batch_size, block_size + 1), IGNORED, dtype=np.int64)
        for row, window in enumerate(chosen[first : first + batch_size]):
            stream = int(np.searchsorted(ends, window, side="right"))
            start = int(window - (ends[stream - 1] if stream else 0)) * block_size
            length = min(block_size + 1, len(tokens.streams[stream]) - start)
            batch[row, :length] = tokens.read(np.array([stream]), np.array([start]), length)[0]
        yield torch.from_numpy(batch)
