"""The loss of a large vocabulary on a CPU, or without torch's kernel: the same value and gradients,
in chunks.
"""

import pytest
import torch
from torch.nn import functional as F

from groundup.training import objective
from groundup.training.objective import chunked_cross_entropy, linear_cross_entropy


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
