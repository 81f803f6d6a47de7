"""One call that spreads an objective over the world. DDP today; FSDP2 has its place here."""

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from groundup.parallel.world import World


def distribute(objective: nn.Module, world: World) -> nn.Module:
    """The objective whose gradients are means over all processes; in a world of one, the objective
    itself.
    """
    if world.size == 1:
        return objective
    return DistributedDataParallel(objective, gradient_as_bucket_view=True)


def synchronise_only_if(last: bool, objective: nn.Module) -> AbstractContextManager[None]:
    """Around a forward and backward pass: gradients travel between processes at the last micro-step
    only.
    """
    if isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    return nullcontext()
