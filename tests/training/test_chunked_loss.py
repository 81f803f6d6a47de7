"""The loss of a large vocabulary on a CPU, or without torch's kernel: the same value and gradients,
in chunks.
"""

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.training import objective
from groundup.training.objective import (
    chunked_cross_entropy,
    fused_cross_entropy,
    linear_cross_entropy,
)


@pytest.mark.parametrize("tokens", [1, 7, 8, 30])
def test_chunks_compute_what_whole_logits_compute(
    tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "LOGITS_AT_ONCE", 8 * 40)
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(40, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 40, (tokens,), generator=generator)
    if tokens > 8:
        targets[3:12] = -100  # one chunk without a target
    expected = F.cross_entropy(hidden @ weight.T, targets)
    found = chunked_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    for one, other in zip(torch.autograd.grad(found, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_it_is_taken_on_a_cpu_where_the_vocabulary_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objective, "chunked_cross_entropy", lambda *_: torch.tensor(7.0))
    hidden, targets = torch.randn(3, 4), torch.zeros(3, dtype=torch.long)
    assert linear_cross_entropy(hidden, torch.randn(9, 4), targets) == 7.0
    # a small vocabulary's logits are held whole
    assert linear_cross_entropy(hidden, torch.randn(4, 4), targets) != 7.0


class Kernel(TorchDispatchMode):
    """Records the arguments of torch's chunked kernel, as the dispatcher gets them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if "cross_entropy" in func.overloadpacket.__name__:
            self.seen.append((*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch has it since 2.13")
def test_the_branch_of_a_gpu_multiplies_in_bfloat16() -> None:
    """What the kernel is given decides its products on a GPU; those that it does on a CPU prove
    nothing. Its `balanced` policy would multiply float32 for the weight's gradient.
    """
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(256, 32, generator=generator, requires_grad=True)
    weight = torch.randn(500, 32, generator=generator, requires_grad=True)
    targets = torch.randint(0, 500, (256,), generator=generator)
    expected = F.cross_entropy(hidden.detach() @ weight.detach().T, targets)
    with Kernel() as kernel, torch.autocast("cpu", torch.bfloat16):
        loss = fused_cross_entropy(hidden, weight, targets)
    [given] = kernel.seen
    floats = [arg for arg in given if isinstance(arg, torch.Tensor) and arg.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.bfloat16}
    assert {"compact", torch.float32} <= {
        arg for arg in given if isinstance(arg, str | torch.dtype)
    }
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=2e-3, atol=0)
    for gradient in torch.autograd.grad(loss, (hidden, weight)):
        assert gradient.dtype == torch.float32


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch has it since 2.13")
def test_the_branch_of_a_gpu_equals_whole_logits() -> None:
    """Without autocast, in float64."""
    hidden = torch.randn(64, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(90, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 90, (64,))
    targets[3:9] = -100
    expected = F.cross_entropy(hidden @ weight.T, targets)
    found = fused_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    for one, other in zip(torch.autograd.grad(found, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
