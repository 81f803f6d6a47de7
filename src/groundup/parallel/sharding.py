"""Spreads an objective over the processes, by torch's DistributedDataParallel."""

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from groundup.parallel.world import World


def distribute(objective: nn.Module, world: World) -> nn.Module:
    """Spread an objective over the processes, so that its gradients are means over all of them.

    Optimizers must be built afterwards, because a way of sharding may replace the parameters.

    Args:
        objective: The model with its loss.
        world: The processes.

    Returns:
        The objective to call; with one process the objective itself.
    """
    if world.size == 1:
        return objective
    return DistributedDataParallel(objective, gradient_as_bucket_view=True)


def synchronise_only_if(last: bool, objective: nn.Module) -> AbstractContextManager[None]:
    """Return a context for a micro-step, in which processes exchange gradients only if `last`.

    Args:
        last: Whether the micro-step is the last one of its optimizer step.
        objective: What `distribute` returned.
    """
    if isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    return nullcontext()
