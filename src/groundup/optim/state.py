"""The state of optimizers as named tensors, as checkpoints hold it."""

import torch
from torch import Tensor, nn

from groundup.errors import CheckpointError
from groundup.optim.groups import trained_parameters


def optimizer_state(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return the optimizers' tensors by `parameter name:state name`."""
    return {
        f"{name}:{key}": value
        for name, parameter in trained_parameters(model).items()
        for key, value in _owner_of(parameter, optimizers).state[parameter].items()
    }


def load_optimizer_state(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Put back into the optimizers what `optimizer_state` returned.

    Raises:
        CheckpointError: A parameter has no state among the tensors.
    """
    for name, parameter in trained_parameters(model).items():
        state = {
            key.rpartition(":")[2]: value.to(parameter.device)
            for key, value in tensors.items()
            if key.rpartition(":")[0] == name
        }
        if not state:
            raise CheckpointError(
                f"the checkpoint has no optimizer state of {name}, so this recipe's training can't "
                "be resumed from it. Start a new run from its model: --init"
            )
        _owner_of(parameter, optimizers).state[parameter] = state


def _owner_of(
    parameter: nn.Parameter, optimizers: list[torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    """The one optimizer that updates a parameter."""
    return next(
        optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        if any(member is parameter for member in group["params"])
    )
