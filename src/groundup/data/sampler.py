"""The sampler: batch k is a function of (tokens, seed, k), so its whole state is the step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # a target that counts in no loss: cross entropy's own convention


@dataclass(frozen=True)
class Sampler:
    """Shuffled windows of a text, epoch after epoch.

    Each epoch cuts the text into windows from a fresh offset and visits each once, in a seeded order. The windows of
    an epoch don't overlap in their targets, and all but fewer than 2 * block_size tokens are seen.
    """

    tokens: np.ndarray  # [tokens] unsigned
    block_size: int
    batch_size: int
    seed: int

    @property
    def windows_per_epoch(self) -> int:
        """One fewer than fit, so that every offset below a window's length leaves room for all; at least one."""
        return max(1, (len(self.tokens) - 1) // self.block_size - 1)

    def batch(self, step: int, rows: slice = slice(None)) -> Tensor:
        """The windows of batch `step`, or those of its `rows`: [rows, block_size + 1] int64.

        Each row holds its inputs and, one further, its targets.
        """
        examples = step * self.batch_size + np.arange(self.batch_size)[rows]
        starts = np.empty_like(examples)
        epochs = examples // self.windows_per_epoch
        for epoch in np.unique(epochs):  # a batch may end one epoch and begin the next
            inside = epochs == epoch
            window = permute(examples[inside] % self.windows_per_epoch, self.windows_per_epoch, self._key(epoch, 0))
            starts[inside] = self._offset(epoch) + window * self.block_size
        windows = self.tokens[starts[:, None] + np.arange(self.block_size + 1)]
        return torch.from_numpy(windows.astype(np.int64))

    def _offset(self, epoch: int) -> int:
        """Where the first window of an epoch starts."""
        slack = len(self.tokens) - 1 - self.windows_per_epoch * self.block_size
        return int(self._key(epoch, 1)[0]) % (slack + 1)

    def _key(self, epoch: int, purpose: int) -> np.ndarray:
        """A random number for this epoch and purpose: [1] uint64."""
        key = np.zeros(1, dtype=np.uint64)
        for part in (self.seed, epoch, purpose):
            key = _mix(key ^ np.uint64(part))
        return key


def permute(indices: np.ndarray, size: int, key: np.ndarray, rounds: int = 6) -> np.ndarray:
    """A seeded permutation of range(size), evaluated at `indices` in constant memory.

    A Feistel network on the smallest even number of bits that holds `size`, walked until it falls inside
    (Black & Rogaway 2002, sections 4 and 5). indices: [n] in [0, size), key: [1] uint64 -> [n] int64
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    round_keys = _mix(key ^ np.arange(rounds, dtype=np.uint64))
    result = indices.astype(np.uint64)
    outside = np.arange(len(result))
    while outside.size:
        left, right = result[outside] >> shift, result[outside] & mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        result[outside] = (left << shift) | right
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele et al. 2014): every input bit changes half of the output bits. [n] uint64"""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def evaluation_batches(tokens: np.ndarray, block_size: int, batch_size: int, most: int = 0) -> Iterator[Tensor]:
    """Every token of a text once as a target, in order; with `most`, that many of them in evenly spread windows.

    Yields [batch_size, block_size + 1] int64 of one shape; what is past the text is IGNORED as a target.
    """
    starts = np.arange(0, len(tokens) - 1, block_size)
    if 0 < most < len(tokens) - 1:
        starts = starts[np.linspace(0, len(starts) - 1, max(1, most // block_size)).astype(np.int64)]
    for first in range(0, len(starts), batch_size):
        batch = np.full((batch_size, block_size + 1), IGNORED, dtype=np.int64)
        for row, start in enumerate(starts[first : first + batch_size]):
            window = tokens[start : start + block_size + 1]
            batch[row, : len(window)] = window
        yield torch.from_numpy(batch)
