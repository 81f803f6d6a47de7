"""The mean loss over a text, every token counted once."""

import torch
from torch import nn

from groundup.data.sampler import IGNORED, evaluation_batches
from groundup.data.tokens import Tokens
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
) -> float:
    """Nats a token over all tokens in windows of `block_size`, or over an evenly spread sample of
    `most` tokens.

    objective: (inputs, targets) -> mean loss. Processes share the batches; the objective is left in
    the mode it was in.
    """
    # a GPU isn't waited for between batches
    where = device if device.type == "cuda" else torch.device("cpu")
    # the sum of the losses, and their number
    total = torch.zeros(2, dtype=torch.float64, device=where)
    was_training = objective.training
    objective.eval()
    for number, batch in enumerate(evaluation_batches(tokens, block_size, batch_size, most)):
        if number % world.size == world.rank:
            # what is IGNORED as a target still needs a row to read
            inputs = batch[:, :-1].clamp(min=0).to(device)
            targets = batch[:, 1:].to(device)
            counted = float((batch[:, 1:] != IGNORED).sum())
            total[0] += objective(inputs, targets).to(where).double() * counted
            total[1] += counted
    objective.train(was_training)
    loss_sum, count = world.sum(total).tolist()
    return loss_sum / count
