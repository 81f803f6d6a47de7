"""Batches that a thread prepares while the device computes on the batch before."""

import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groundup.data.mixture import Mixture
from groundup.data.sampler import Sampler
from groundup.machine.kinds import pinned, to_device


@dataclass
class Loader:
    """The batches of one process, micro-step by micro-step, on its device.

    In a micro-step each process takes the rows after those of the process before, so a batch
    doesn't depend on how many processes share it.

    Args:
        sampler: Where the windows come from.
        rows: The number of sequences of one process in a micro-step.
        rank: The number of this process, in [0, size).
        size: The number of processes.
        device: Where the tokens go.
    """

    sampler: Sampler | Mixture
    rows: int
    rank: int
    size: int
    device: torch.device
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "batches"))
    # (step, micro-step) and what the thread makes of it
    next: tuple[tuple[int, int], Future[tuple[Tensor, int]]] | None = None

    @property
    def micro_steps(self) -> int:
        """The number of forward passes of each process in an optimizer step."""
        return self.sampler.batch_size // (self.rows * self.size)

    def take(self, step: int, micro_step: int) -> tuple[Tensor, int]:
        """Give this process's rows of a micro-step, and let the thread begin the next ones.

        Returns:
            The tokens on the device, [rows, block_size + 1] int64, and what they add to the hash
            of the batch, as `hash_rows` computes it.

        Raises:
            CorpusError: A token isn't in the vocabulary.
        """
        if self.next is not None and self.next[0] == (step, micro_step):
            tokens, batch_hash = self.next[1].result()
        else:
            tokens, batch_hash = self.prepare(step, micro_step)
        after = (step, micro_step + 1) if micro_step + 1 < self.micro_steps else (step + 1, 0)
        self.next = after, self.thread.submit(self.prepare, *after)
        return to_device(tokens, self.device), batch_hash

    def prepare(self, step: int, micro_step: int) -> tuple[Tensor, int]:
        """Read this process's rows of a micro-step and compute their hash.

        For a GPU the rows are put in pinned memory, from which they can be copied asynchronously.
        """
        first = (micro_step * self.size + self.rank) * self.rows
        tokens = self.sampler.batch(step, slice(first, first + self.rows))
        batch_hash = hash_rows(tokens, first)
        return pinned(tokens, self.device), batch_hash


def hash_rows(batch: Tensor, first: int) -> int:
    """Sum the CRC-32s of the rows, each seeded by the row's index in the whole batch.

    The hash of the batch is the total of all processes; in float64 it is exact up to 2^21 rows.

    Args:
        batch: [rows, time] int64.
        first: The index of the first row in the whole batch.
    """
    return sum(zlib.crc32(row.tobytes(), first + place) for place, row in enumerate(batch.numpy()))
