"""The world: the processes that share a run. A single process is a world of one, so nobody asks
whether it is alone.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """`rank` of `size` processes, `local_rank` of `local_size` on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same on each. values: any shape, on the run's device ->
        the same shape
        """
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, text: str) -> str:
        """The main process's text, on every process."""
        if self.size == 1:
            return text
        texts = [text]
        dist.broadcast_object_list(texts, src=0)
        return texts[0]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()


def main_first(world: World, work: Callable[[], Result]) -> Result:
    """The work done by the main process, then by the others; where it fails they meet that too, and
    say it.
    """
    if not world.is_main:
        world.barrier()
    try:
        return work()
    finally:
        if world.is_main:
            world.barrier()


@contextmanager
def join_world(uses_cuda: bool) -> Iterator[World]:
    """The world that torchrun's environment describes, else a world of one.

    The process group is destroyed on the way out: gloo can abort at exit where it outlives its
    users.
    """
    world = World(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
    if world.size == 1:
        yield world
        return
    if uses_cuda:
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("nccl" if uses_cuda else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()
