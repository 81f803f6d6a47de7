"""The world: the processes that share a run. One process is a world of one, and nobody asks."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")

_kept: list[dist.ProcessGroup | None] = []  # until the process ends


@dataclass(frozen=True)
class World:
    """This process's place among those that share a run.

    Attributes:
        rank: Its number among all, from 0.
        size: How many there are.
        local_rank: Its number among those on this machine.
        local_size: How many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add up values of any shape over all processes, which all get the same sum."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, text: str) -> str:
        """Give every process the main process's text."""
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
    """Do some work in the main process, then in the others, which find what it has downloaded.

    Where it fails in the main process the others fail as well, each for itself.
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
    """Join the world that torchrun's environment describes, else a world of one.

    On the way out nobody may use the process group any more, but it stays in memory: whoever frees
    it holds Python's lock and waits for gloo's threads, and these may wait for that lock.

    Args:
        uses_cuda: Whether the processes compute on GPUs, one each.

    Yields:
        The world.
    """
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    world = World(*(int(os.environ.get(name, alone)) for name, alone in names.items()))
    if world.size == 1:
        yield world
        return
    if uses_cuda:
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("nccl" if uses_cuda else "gloo")
    _kept.append(dist.group.WORLD)
    try:
        yield world
    finally:
        dist.destroy_process_group()
