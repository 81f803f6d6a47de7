"""Attention on the CPU, whichever way it is computed: by the kernel, or by products inside a
bfloat16 model.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.models import attention
from groundup.models.attention import attention_by_products, causal_attention


def heads(seed: int, time: int = 10, n_kv_head: int = 6) -> list[Tensor]:
    """Query, key, value and the gradient of what is found, in float64: each [batch, heads, time,
    head_dim].
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, number, time, 8, generator=generator, dtype=torch.float64)
        for number in (6, n_kv_head, n_kv_head, 6)
    ]


@pytest.mark.parametrize("n_kv_head", [6, 3, 1])
@pytest.mark.parametrize("time", [1, 17, 128, 300])
def test_products_compute_what_the_kernel_computes(
    n_kv_head: int, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # its softmax in float64, for this test
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    *inputs, gradient = heads(1, time, n_kv_head)
    for tensor in inputs:
        tensor.requires_grad_()
    expected = F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
    found = attention_by_products(*inputs, dropout=0.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(expected, inputs, gradient)
    for one, other in zip(torch.autograd.grad(found, inputs, gradient), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("time", [10, 300], ids=["by the kernel", "by products"])
def test_inside_a_bfloat16_model_it_is_float32_attention_rounded(time: int) -> None:
    """Neither way is further from float32 than what rounding its scores and weights to bfloat16
    explains.
    """
    *inputs, gradient = (tensor.bfloat16() for tensor in heads(1, time))
    for tensor in inputs:
        tensor.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = causal_attention(*inputs, 0.0)
    found.backward(gradient)
    precise = [tensor.detach().float().requires_grad_() for tensor in inputs]
    expected = F.scaled_dot_product_attention(*precise, is_causal=True)
    expected.backward(gradient.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.03)
    for tensor, exact in zip(inputs, precise, strict=True):
        assert tensor.grad is not None
        assert exact.grad is not None
        torch.testing.assert_close(tensor.grad.float(), exact.grad, rtol=0, atol=0.06)


def test_the_way_is_chosen_by_length_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def by_products(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        taken.append(query.size(-2))
        return query

    monkeypatch.setattr(attention, "attention_by_products", by_products)
    for time in (1, 127, 128, 512, 513):
        *inputs, _ = heads(1, time)
        causal_attention(*inputs, 0.0)
        causal_attention(*(tensor.float() for tensor in inputs), 0.0)
        causal_attention(*(tensor.bfloat16() for tensor in inputs), 0.0)
    assert taken == [128, 512]  # of the bfloat16 ones: float32 and float64 have the kernel


def test_dropout_drops_weights_and_keeps_their_mean() -> None:
    *inputs, _ = heads(2, time=300)
    query, key, value = (tensor.float() for tensor in inputs)
    torch.manual_seed(0)
    kept = attention_by_products(query, key, torch.ones_like(value), dropout=0.25)
    assert (kept - 1.0).abs().max() > 0.1
    assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(
        attention_by_products(query, key, torch.ones_like(value), 0.0).round(decimals=5),
        kept * 0 + 1,
    )
