"""The world: the processes that share a run. A single process is a world of one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from groundup.errors import MachineError

Result = TypeVar("Result")

_kept: list[dist.ProcessGroup | None] = []  # until the process ends


@dataclass(frozen=True)
class World:
    """The processes that share a run, and the number of this process among them.

    Attributes:
        rank: The number of this process among all processes, from 0.
        size: The number of all processes.
        local_rank: The number of this process among those on this machine, from 0.
        local_size: The number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    @property
    def command(self) -> str:
        """What a user types to start groundup with as many processes on this machine as now."""
        several = f"torchrun --nproc-per-node {self.local_size} -m groundup"
        return several if self.size > 1 else "groundup"

    def sum(self, values: Tensor) -> Tensor:
        """Add up values of any shape over all processes, which all get the same sum."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, text: str) -> str:
        """Return the main process's text in every process."""
        if self.size == 1:
            return text
        texts = [text]
        dist.broadcast_object_list(texts, src=0)
        return texts[0]

    def barrier(self) -> None:
        """Wait until every process has come to this call."""
        if self.size > 1:
            dist.barrier()


def main_first(world: World, work: Callable[[], Result]) -> Result:
    """Do some work in the main process, then in the others, which needn't download again.

    If the work fails in the main process, the others still try it, and fail for themselves.
    """
    if not world.is_main:
        world.barrier()
    try:
        return work()
    finally:
        if world.is_main:
            world.barrier()


@contextmanager
def join_world(world: World, backend: str | None) -> Iterator[None]:
    """Join the other processes of a world while the body runs; a world of one has none.

    At the end torch's process group can't be used any more, but stays in memory. Freeing it would
    hold Python's global lock and wait for gloo's threads, which may wait for that lock themselves.

    Args:
        world: The world.
        backend: By what torch.distributed adds up tensors of the run's device: nccl or gloo. A
            process has chosen its GPU before it comes here.
    """
    if world.size == 1:
        yield
        return
    dist.init_process_group(backend)
    _kept.append(dist.group.WORLD)
    try:
        yield
    finally:
        dist.destroy_process_group()


def described_world() -> World:
    """Return the world that torchrun's environment describes, else a world of one.

    Raises:
        MachineError: The environment describes a part of a world.
    """
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    said = {name: os.environ.get(name, alone) for name, alone in names.items()}
    is_whole = all(map(str.isascii, said.values())) and all(map(str.isdecimal, said.values()))
    world = World(*map(int, said.values())) if is_whole else World(size=0)
    needed = [*names, "MASTER_ADDR", "MASTER_PORT"] if world.size > 1 else []
    missing = [name for name in needed if name not in os.environ]
    if missing or not 0 <= world.rank < world.size or not world.local_rank < world.local_size:
        stated = " ".join(f"{name}={value}" for name, value in said.items() if name in os.environ)
        lacks = f", and no {', '.join(missing)}" if missing else ""
        raise MachineError(
            f"the environment has {stated}{lacks}: that is no group of processes. Unset what is "
            "stray (unset WORLD_SIZE), or start them with torchrun --nproc-per-node N -m groundup"
        )
    return world
