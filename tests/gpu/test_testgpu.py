"""The device for tests refuses and counts what CUDA refuses and waits for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from testgpu import NAME, counted, register
from torch import Tensor, nn

from commands import forked

There = Callable[[Tensor], Tensor]

REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a sum": lambda there, here: there + here,
    "a product": lambda there, here: here @ there,
    "a choice": lambda there, here: torch.where(there > 0, here, there),
    "an embedding": lambda there, here: nn.functional.embedding(here[0].long().abs(), there),
    "a mask": lambda there, here: there.masked_fill(here > 0, 0.0),
    "what is joined": lambda there, here: torch.cat([there, here]),
    "an index of the device": lambda there, here: here[there[0].long().abs()],
    "a number of a list": lambda there, here: torch.stack([there[0, 0], here[0, 0]]),
    "a number as the target": lambda there, here: here[0, 0].add_(there[0, 0]),
    "a generator": lambda there, _here: there.uniform_(generator=torch.Generator()),
    "numpy": lambda there, _here: there.numpy(),
}
WAITS: dict[str, tuple[Callable[[Tensor, Tensor], Any], dict[str, int]]] = {
    "a number": (lambda there, _: there.sum().item(), {"aten::_local_scalar_dense": 1}),
    "a truth": (lambda there, _: bool((there > 0).all()), {"aten::_local_scalar_dense": 1}),
    "numbers": (lambda there, _: there.tolist(), {"copy to the CPU": 1}),
    "a copy": (lambda there, _: there.cpu(), {"copy to the CPU": 1}),
    "places": (lambda there, _: there.nonzero(), {"aten::nonzero": 1}),
    "a mask": (lambda there, _: there[there > 0], {"aten::index.Tensor with a mask": 1}),
    "indices": (
        lambda there, _: there[torch.tensor([0])],
        {"aten::index.Tensor with indices of the CPU": 1},
    ),
    "a copy to it": (lambda _, here: here.to(NAME), {"copy to the device": 1}),
    "not pinned": (lambda _, here: here.to(NAME, non_blocking=True), {"copy to the device": 1}),
    "a new tensor": (lambda *_: torch.tensor([1.0], device=NAME), {"copy to the device": 1}),
    "pinned": (lambda _, here: here.pin_memory().to(NAME, non_blocking=True), {}),
    "arithmetic": (lambda there, _: (there * 2 + torch.tensor(3.0)).sum(), {}),
    "memory": (lambda *_: torch.zeros(3, device=NAME).fill_(2.0), {}),
}


def what_happens(table: str, name: str, answer: Path) -> None:
    """Do one of the above in a process that has the device."""
    register()
    there, here = torch.randn(3, 3).to(NAME), torch.randn(3, 3)
    try:
        with counted() as waits:
            (REFUSED[name] if table == "refused" else WAITS[name][0])(there, here)
        found = repr(dict(waits))
    except (RuntimeError, TypeError) as error:
        found = str(error)
    answer.write_text(found, "utf-8")


def happened(table: str, name: str, folder: Path) -> str:
    """What such a process says."""
    process = forked(what_happens, table, name, folder / "answer")
    process.start()
    process.join()
    return (folder / "answer").read_text("utf-8")


@pytest.mark.parametrize("name", REFUSED)
def test_a_mix_of_devices_is_refused(name: str, tmp_path: Path) -> None:
    assert "device" in happened("refused", name, tmp_path)


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_counted(name: str, tmp_path: Path) -> None:
    assert happened("waits", name, tmp_path) == repr(WAITS[name][1])
