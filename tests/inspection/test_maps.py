"""Maps that are made band by band are those of whole matrices."""

from collections.abc import Generator
from typing import Any

import pytest
import torch

import groundup
from groundup.inspection import maps
from groundup.inspection.maps import small_map, triangle
from inspection.test_reading import TOKENS, made


def finished(parts: Generator[None, None, Any]) -> tuple[Any, int]:
    """The result, and the number of breaks in which others may be served."""
    breaks = 0
    while True:
        try:
            next(parts)
            breaks += 1
        except StopIteration as end:
            return end.value, breaks


@pytest.mark.parametrize(("at_once", "breaks"), [(10**6, 1), (200, 8), (1, 40)])
@pytest.mark.parametrize("size", [40, 13, 1])
def test_bands_make_the_same_maps(
    monkeypatch: pytest.MonkeyPatch, at_once: int, breaks: int, size: int
) -> None:
    monkeypatch.setattr(maps, "WEIGHTS_AT_ONCE", at_once)
    inspection = groundup.inspect(made("modern"), TOKENS)
    whole = inspection.attention(1, 3)
    found, seen = finished(triangle(inspection, 1, 3))
    assert seen == breaks
    expected = whole[*torch.tril_indices(40, 40)].half()
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=0)
    (small, habits), seen = finished(small_map(inspection, 1, 3, size))
    assert seen == breaks
    cells = torch.arange(40) * size // 40
    largest = torch.zeros(size, size)
    for query in range(40):
        for key in range(query + 1):
            place = cells[query], cells[key]
            largest[place] = max(largest[place], whole[query, key])
    torch.testing.assert_close(small.float(), largest * 255, atol=0.51, rtol=0)
    shares = [whole[at, at - 1].item() for at in range(1, 40)]
    assert habits.tolist() == pytest.approx(
        [sum(shares) / 39, whole.diagonal().mean().item(), whole[1:, 0].mean().item()], rel=1e-5
    )
