"""What a user is told of GPUs that can't be used, on machines that tests only pretend to have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import flags, trained, write_text
from groundup.cli.main import run
from groundup.errors import OutOfMemoryError
from groundup.machine import choice, device
from groundup.recipes.files import load_recipe
from groundup.training.failures import explain_out_of_memory

GIB = 2**30
OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com/"
)


@pytest.mark.parametrize(
    ("maker", "units", "precision"),
    [
        ("AuthenticAMD", "avx2", "float32"),
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", "bfloat16"),
        ("GenuineIntel", "avx2 avx512f avx512_bf16", "bfloat16"),
        ("GenuineIntel", "avx512_bf16 avx512_fp16 amx_bf16", "bfloat16"),
        ("GenuineIntel", "avx512_bf16 avx512_fp16", "float32"),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(
    maker: str, units: str, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text(f"vendor_id\t: {maker}\nflags\t\t: fpu {units} sse\n")
    monkeypatch.setattr(device, "CPU_INFO", information)
    assert device.choose_precision("auto", torch.device("cpu")) == precision


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the GPUs that torch finds; a tensor that is moved to one stays on the CPU."""
    names: list[str] = []
    moved = torch.Tensor.to

    def to(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        is_there = args and str(args[0]).startswith("cuda")
        return tensor if is_there else moved(tensor, *args, **options)

    for name, instead in {
        "is_available": lambda: bool(names),
        "device_count": lambda: len(names),
        "set_device": lambda _device: None,
        "get_device_name": lambda number: names[number],
    }.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(choice.shutil, "which", lambda _name: None)
    monkeypatch.chdir(tmp_path)
    choice._warn_once.cache_clear()
    write_text(tmp_path)
    return names


def refuse(message: str) -> Callable[..., None]:
    """What raises torch's error with this message."""

    def refused(*_: object) -> None:
        raise RuntimeError(message)

    return refused


def train(capsys: pytest.CaptureFixture[str], device: str, status: int) -> str:
    """What `groundup train` says on stderr."""
    assert run(["train", *flags({"--steps": 1, "--train.device": device})]) == status
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.usefixtures("gpus")
def test_a_build_for_cpus_alone_says_where_another_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    said = train(capsys, "cuda", 2)
    assert "built for CPUs alone" in said
    assert "docs/gpu.md" in said


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("message", ["Found no NVIDIA driver on your system.", OLD])
def test_a_driver_that_is_missing_or_too_old_is_named(
    message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", refuse(message))
    assert message[:50] in train(capsys, "cuda", 2)


@pytest.mark.usefixtures("gpus")
def test_auto_says_once_why_the_cpu_computes_beside_an_nvidia_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(choice.shutil, "which", lambda name: f"/usr/bin/{name}")
    said = train(capsys, "auto", 0)
    assert "the CPU computes, because this machine has no cuda" in said


def test_a_card_that_others_have_filled(
    gpus: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus.append("NVIDIA RTX 4060")
    monkeypatch.setattr(torch.Tensor, "to", refuse("CUDA error: out of memory\nmore"))
    assert "other processes fill its memory (nvidia-smi" in train(capsys, "cuda", 2)


def test_a_number_that_no_card_has(gpus: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    gpus.extend(("NVIDIA RTX 4060", "NVIDIA RTX 4060"))
    assert "cuda:2 can't be used: this machine has 2 of its kind" in train(capsys, "cuda:2", 2)


def test_one_of_two_different_cards_is_named(
    gpus: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    gpus.extend(("NVIDIA RTX 4090", "NVIDIA RTX 4060"))
    assert choice.choose_device("auto") == choice.choose_device("auto") == torch.device("cuda", 0)
    (said,) = caplog.messages
    assert "cuda:0 computes (cuda:0 is NVIDIA RTX 4090, cuda:1 is NVIDIA RTX 4060)" in said


def test_memory_that_others_hold_is_said_when_there_is_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, instead in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "mem_get_info": lambda: (GIB, 8 * GIB),
        "memory_reserved": lambda: 4 * GIB,
    }.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    said = "micro_batch_size first.*. Other processes hold 3.0 of its 8.0 GiB"
    with (
        pytest.raises(OutOfMemoryError, match=said),
        explain_out_of_memory(load_recipe("gpt2-124m")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    "words", [["generate", "run"], ["evaluate", "run", "--task", "loss", "--corpus", "text.txt"]]
)
def test_too_little_memory_for_a_model_is_a_line(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_text(tmp_path)
    trained(*flags({"--steps": 1}), "--name", "run", folder=tmp_path)
    monkeypatch.chdir(tmp_path)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    assert run(words) == 2
    assert "groundup: out of memory" in capsys.readouterr().err
