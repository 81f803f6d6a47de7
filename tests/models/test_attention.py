"""Attention inside a bfloat16 model on the CPU is float32 attention, whatever autocast would rather have."""

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.models.attention import causal_attention


def heads(seed: int) -> list[Tensor]:
    """Query, key, value and the gradient of what is found, in bfloat16: each [batch, n_head, time, head_dim]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 10, 8, generator=generator).bfloat16() for _ in range(4)]


def test_under_autocast_output_and_gradients_are_those_of_float32_rounded() -> None:
    *inputs, gradient = heads(1)
    for tensor in inputs:
        tensor.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = causal_attention(*inputs, 0.0)
    found.backward(gradient)
    precise = [tensor.detach().float().requires_grad_() for tensor in inputs]
    expected = F.scaled_dot_product_attention(*precise, is_causal=True)
    expected.backward(gradient.float())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    for tensor, exact in zip(inputs, precise, strict=True):
        assert tensor.grad is not None
        assert exact.grad is not None
        assert torch.equal(tensor.grad, exact.grad.bfloat16())
