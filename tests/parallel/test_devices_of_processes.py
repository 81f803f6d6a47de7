"""Which device each of several processes takes, on machines that tests only pretend to have."""

from pathlib import Path
from typing import Any

import pytest
import torch

from commands import flags, write_text
from groundup.cli.main import run
from groundup.errors import MachineError


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done with devices until the processes would meet, where the command ends."""
    events: list[str] = []
    copied = torch.Tensor.to

    def to(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if args and isinstance(args[0], torch.device) and args[0].type in ("cuda", "mps"):
            events.append(f"use {args[0]}")
            return tensor
        return copied(tensor, *args, **options)

    def meet(backend: str) -> None:
        events.append(f"meet by {backend}")
        raise MachineError("the test ends here")

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: events.append(f"set {device}"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _number: "a card")
    monkeypatch.setattr(torch.distributed, "init_process_group", meet)
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    return events


def train_as(
    monkeypatch: pytest.MonkeyPatch,
    *,
    rank: int,
    size: int,
    gpus: int = 0,
    mps: bool = False,
    device: str = "auto",
) -> int:
    """`groundup train`, as one of `size` processes of a machine with such devices."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    for name, value in (place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    return run(["train", *flags({"--steps": 1, "--train.device": device})])


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_process_takes_its_gpu_before_it_uses_one(
    device: str, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_as(monkeypatch, rank=1, size=2, gpus=2, device=device)
    assert opened == ["set cuda:1", "use cuda:1", "meet by nccl"]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused_by_each_of_them(
    rank: int,
    device: str,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train_as(monkeypatch, rank=rank, size=3, gpus=2, device=device) == 2
    said = capsys.readouterr().err
    assert "3 processes on a machine with 2 of the GPUs" in said
    assert "--nproc-per-node 2" in said
    assert "--train.device cpu" in said
    assert opened == []


def test_processes_of_a_mac_take_the_cpu(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_as(monkeypatch, rank=0, size=2, mps=True)
    assert opened == ["meet by gloo"]


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_a_single_device_is_not_shared(
    device: str,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train_as(monkeypatch, rank=0, size=2, gpus=2, mps=True, device=device) == 2
    said = capsys.readouterr().err
    assert f"device {device} can't be shared by 2 processes" in said
    assert "Choose auto, cuda or cpu" in said
    assert opened == []


def test_a_gpu_that_fails_is_no_reason_for_one_process_to_take_the_cpu(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others would wait for it on their GPUs."""

    def fails(_tensor: torch.Tensor, *_: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: all devices are busy")

    monkeypatch.setattr(torch.Tensor, "to", fails)
    assert train_as(monkeypatch, rank=1, size=2, gpus=2) == 2
    assert "CUDA error: all devices are busy" in capsys.readouterr().err
    assert opened == ["set cuda:1"]


def test_processes_without_gpus_and_those_that_want_the_cpu_take_it(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_as(monkeypatch, rank=2, size=3)
    train_as(monkeypatch, rank=2, size=3, gpus=2, device="cpu")
    assert opened == ["meet by gloo"] * 2
