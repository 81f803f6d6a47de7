"""Optimizer states that a checkpoint lacks are named."""

import pytest
import torch
from torch import nn

from groundup.errors import CheckpointError
from groundup.optim.state import load_optimizer_state, optimizer_state


def test_a_parameter_without_a_state_is_named() -> None:
    model = nn.Linear(2, 3)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(model.parameters())]
    model(torch.ones(1, 2)).sum().backward()
    optimizers[0].step()
    tensors = optimizer_state(model, optimizers)
    load_optimizer_state(model, optimizers, tensors)
    left = {key: value for key, value in tensors.items() if not key.startswith("bias:")}
    with pytest.raises(CheckpointError, match=r"has no optimizer state of bias, .* --init"):
        load_optimizer_state(model, optimizers, left)
