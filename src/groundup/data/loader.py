"""Batches prepared ahead: while the device computes on one, a thread makes the next."""

import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groundup.data.sampler import BatchSource


@dataclass(frozen=True)
class Slice:
    """One process's rows of a micro-step: [rows, block_size + 1] int64, and the hash that they add
    to the batch's.
    """

    tokens: Tensor
    batch_hash: int


@dataclass
class Batches:
    """The slices of every batch that one of `size` processes computes on, `rows` sequences at a
    time.

    The rows of a micro-step lie side by side over the processes, so a batch doesn't depend on their
    number.
    """

    source: BatchSource
    rows: int
    rank: int
    size: int
    device: torch.device
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "batches"))
    # (step, micro-step) and what the thread makes of it
    next: tuple[tuple[int, int], Future[Slice]] | None = None

    @property
    def micro_steps(self) -> int:
        """Forward passes of each process in an optimizer step."""
        return self.source.batch_size // (self.rows * self.size)

    def take(self, step: int, micro_step: int) -> Slice:
        """The slice of this micro-step on the device; the one after it is begun."""
        if self.next is not None and self.next[0] == (step, micro_step):
            prepared = self.next[1].result()
        else:
            prepared = self.prepare(step, micro_step)
        after = (step, micro_step + 1) if micro_step + 1 < self.micro_steps else (step + 1, 0)
        self.next = after, self.thread.submit(self.prepare, *after)
        return Slice(
            prepared.tokens.to(self.device, non_blocking=self.device.type == "cuda"),
            prepared.batch_hash,
        )

    def prepare(self, step: int, micro_step: int) -> Slice:
        """The slice in memory that a GPU can read by itself, or just in memory."""
        first = (micro_step * self.size + self.rank) * self.rows
        tokens = self.source.batch(step, slice(first, first + self.rows))
        batch_hash = hash_rows(tokens, first)
        return Slice(tokens.pin_memory() if self.device.type == "cuda" else tokens, batch_hash)


def hash_rows(batch: Tensor, first: int) -> int:
    """The sum of the rows' CRC-32s, each seeded by its place in the whole batch, so that processes
    can add theirs up.

    batch: [rows, time] int64; exact in float64 for up to 2^21 rows.
    """
    return sum(zlib.crc32(row.tobytes(), first + place) for place, row in enumerate(batch.numpy()))
