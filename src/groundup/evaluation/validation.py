"""The mean loss over a text, every token counted once."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from groundup.data.sampler import IGNORED, evaluation_batches
from groundup.data.splits import Tokens
from groundup.machine.device import reduction_device
from groundup.machine.kinds import to_device
from groundup.parallel.world import World


@torch.no_grad()
def mean_loss(
    objective: nn.Module,
    tokens: Tokens,
    *,
    block_size: int,
    batch_size: int,
    device: torch.device,
    world: World,
    most: int = 0,
    interrupt: Callable[[], None] = lambda: None,
) -> float:
    """Measure the mean loss of a text, with equally many forward passes in every process.

    Args:
        objective: The model and its loss, (inputs, targets) -> mean loss. It is left in the mode
            that it was in.
        tokens: The text.
        block_size: The number of inputs of a window.
        batch_size: The number of windows of a forward pass.
        device: Where the objective computes.
        world: The processes, which share the batches.
        most: About how many tokens to measure, evenly spread; 0 takes all.
        interrupt: Is called before each forward pass, and ends the measurement by raising.

    Returns:
        Nats a token.
    """
    where = reduction_device(device)  # it isn't waited for between batches
    total = torch.zeros(2, dtype=torch.float64, device=where)  # of the losses, and their number
    was_training = objective.training
    objective.eval()
    try:
        for batch in share_of(evaluation_batches(tokens, block_size, batch_size, most), world):
            interrupt()
            there = to_device(batch, device)
            # what is IGNORED as a target still needs a row to read
            loss = objective(there[:, :-1].clamp(min=0), there[:, 1:])
            # the loss of no target is no number
            if counted := float((batch[:, 1:] != IGNORED).sum()):
                total[0] += loss.to(where).double() * counted
                total[1] += counted
    finally:
        objective.train(was_training)
    loss_sum, count = world.sum(total).tolist()
    return loss_sum / count


def share_of(batches: Iterable[Tensor], world: World) -> Iterator[Tensor]:
    """Yield this process's share of some batches, which is equally large in every process.

    A distributed model computes in all processes at once, so all need equally many forward passes.
    Where the batches don't suffice, a process gets one of IGNORED tokens, which count in no loss.

    Args:
        batches: All batches, of one shape, the same in every process.
        world: The processes.
    """
    remaining = iter(batches)
    while turn := list(itertools.islice(remaining, world.size)):
        has_own = world.rank < len(turn)
        yield turn[world.rank] if has_own else torch.full_like(turn[0], IGNORED)
