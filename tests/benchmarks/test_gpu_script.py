"""The script for GPUs: every stage has its line, whatever becomes of the others. What it finds on
the device for tests is what is there.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from commands import forked

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KEYS = ["claim", "ratio", "ours", "peer", "unit", "machine"]
PARTS = {"loss", "logits", "gradients", "step"}
COMPARED = {
    f"{model} {optimizer} {precision}"
    for model in ("gpt2", "modern")
    for optimizer in ("adamw", "muon")
    for precision in ("float32", "bfloat16")
}
# What each stage prints besides its name, its seconds and its device.
FIELDS = {
    "environment": {"card", "cards", "capability", "driver", "memory_total", "memory_free", "torch"}
    | {"cuda", "c_compiler", "peaks_gflops", "memory_gb_a_second"},
    "equality": {"bounds", "float32_products"} | COMPARED,
    "waits": {"gpt2 adamw", "modern muon"},
    "resume": {"steps", "killed_after", "compiled", "unbroken_twice", "resumed"},
    "throughput": {"gpt2-124m-classic", "gpt2-124m", "peer"},
    "decoding": {"prompt", "written", "float32", "bfloat16"},
    "save": {"blocks_seconds", "all_seconds", "bytes", "gb_a_second", "folder"},
    "kernels": {"micro_batch", "compiled", "step_seconds", "kernel_seconds", "kernels_a_step"}
    | {"longest"},
    "recipe": {"minutes", "steps", "tokens_per_second", "best_loss", "seconds_and_losses"},
}
COMMANDS = {"resume", "recipe"}  # the stages that start other processes
# A function that each stage calls, for tests to break.
CALLED = {
    "environment": "gpu_speed.matmul_peak",
    "equality": "gpu_checks.compare",
    "waits": "gpu_checks.waits_of",
    "resume": "gpu_runs.kill_after",
    "throughput": "gpu_speed.peer",
    "decoding": "gpu_speed.stream_tokens",
    "save": "gpu_speed.step_folder",
    "kernels": "gpu_speed.profile",
    "recipe": "gpu_runs.metrics",
}
CRASH = "CUDA error: an illegal memory access was encountered"
BROKEN = f"""
import importlib, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu_stages
def crash(*_, **_how):
    raise RuntimeError({CRASH!r} + chr(10) + "Compile with TORCH_USE_CUDA_DSA")
module, _, name = sys.argv.pop(1).partition(".")
setattr(importlib.import_module(module), name, crash)
gpu_stages.main()
"""
# What is wrong with a device, for the stages that look for it.
WRONG_LOSS = """
from groundup.training import objective
plain = objective.fused_cross_entropy
objective.fused_cross_entropy = lambda *given: 1.001 * plain(*given)
"""
OTHER_DROPOUT = """
import gpu_runs
gpu_runs.WITH_TESTS_DEVICE = "import os; from groundup.training import trainer; " + (
    "trainer.dropout_seed = lambda *_: os.getpid(); " + gpu_runs.WITH_TESTS_DEVICE
)
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, on a machine that has a GPU as far as it asks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    monkeypatch.setattr(gpu, "HAS_GPU", "")
    return gpu


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "PyTorch finds no GPU of CUDA here"),
        (["--minutes", "nan"], "--minutes nan must be from 0.1"),
        (["--toy", "--minutes", "-1"], "--minutes -1 must be from 0.1"),
    ],
)
def test_what_it_can_not_begin_with_is_a_line(
    words: list[str],
    said: str,
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gpu, "HAS_GPU", "raise SystemExit(1)")
    with pytest.raises(SystemExit) as ended:
        gpu.main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def python(code: str, *words: str) -> list[str]:
    """The command of some code."""
    return [sys.executable, "-c", code, *words]


def lines_of(
    gpu: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[list[dict[str, Any]], int]:
    """The lines that the script prints, all of them JSON, and its exit status."""
    with pytest.raises(SystemExit) as ended:
        gpu.main(words)
    printed = capsys.readouterr().out.splitlines()
    return [json.loads(line) for line in printed], int(ended.value.code or 0)


def places_of_null(value: Any, name: str = "") -> set[str]:
    """The fields of a JSON value that are null."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [places_of_null(each, f"{name}.{key}".strip(".")) for key, each in items]
        return set().union(*parts)
    return {name} if value is None else set()


def check_line(gpu: ModuleType, line: dict[str, Any], stage: str) -> None:
    """A stage's line has its fields, and none is null but what only a card has."""
    assert line.keys() == {"stage", "seconds", "device"} | FIELDS[stage], line
    assert line["stage"] == stage
    assert places_of_null(line) <= set(gpu.OF_CARDS_ALONE)
    if stage == "equality":
        for name in COMPARED:
            assert line[name].keys() == PARTS
            bounds = line["bounds"][name.split()[-1]]
            assert all(0 <= line[name][part] <= bounds[part] for part in PARTS)
            assert line[name]["step"] > 0  # otherwise nothing was compared
    if stage == "waits":
        expected = {"waits_elsewhere": 0, "waits_a_step": 1, "compiled": False}
        assert all(line[name] == expected for name in FIELDS[stage])
    if stage == "kernels":
        assert len(line["longest"]) == 15
    if stage == "resume":
        assert 0 < line["killed_after"] < line["steps"]
        same = {"bit_equal": True, "tensors_that_differ": 0, "of": 28, "apart": 0.0}
        assert line["unbroken_twice"] == line["resumed"] == same


def test_the_stages_of_the_tests_are_those_of_the_script(gpu: ModuleType) -> None:
    import gpu_stages

    assert list(FIELDS) == list(gpu.SHARES) == list(gpu_stages.STAGES)
    assert sum(gpu.SHARES.values()) == 9 * 60
    assert all(stage in (gpu.__doc__ or "") for stage in FIELDS)


def test_a_stage_that_fails_leaves_the_others(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sleeper = "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '60'])\n"
    codes = {
        "environment": "print('{\"card\": \"a card\"}'); print('noise'); raise SystemExit(3)",
        "equality": 'print(\'{"error": "ValueError: wrong"}\'); raise SystemExit(1)',
        "waits": "import os; os.abort()",
        "resume": f"{sleeper}print(f'{{{{\"child\": {{child.pid}}}}}}', flush=True)\n"
        "time.sleep(60)",
        "throughput": 'print(\'{"gpt2-124m-classic": {"tokens_per_second": 3.0}}\')\n'
        'print(\'{"peer": {"tokens_per_second": 2.0}}\')',
        "recipe": "print('{\"steps\": 7}')",
    }
    monkeypatch.setattr(gpu, "command", lambda stage, *_: python(codes[stage]))
    lines, status = lines_of(gpu, ["--only", *codes, "--minutes", "0.15"], capsys)
    assert status == 1
    assert [line.get("stage") for line in lines] == [*codes, None]
    errors = {line["stage"]: line["error"] for line in lines if "error" in line}
    assert errors["environment"] == "ended with status 3"
    assert errors["equality"] == "ValueError: wrong"
    assert errors["waits"].startswith("ended with status -6")
    assert errors["resume"].startswith("killed after")
    assert len(errors) == 4
    assert lines[0]["card"] == "a card"  # what was found before it failed
    assert lines[-2]["steps"] == 7
    with contextlib.suppress(FileNotFoundError):  # what it has started is dead, too
        stat = Path(f"/proc/{lines[3]['child']}/stat").read_text("ascii")
        assert stat.rpartition(")")[2].split()[0] == "Z"
    assert list(lines[-1]) == KEYS
    assert (lines[-1]["ours"], lines[-1]["peer"], lines[-1]["ratio"]) == (3.0, 2.0, 1.5)
    assert lines[-1]["machine"].startswith("a card, torch unknown")


def test_time_that_is_left_goes_to_the_stages_after_it(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, float] = {}

    def command(stage: str, _folder: Path, ends: float, _toy: bool) -> list[str]:
        given[stage] = ends - time.monotonic()
        return ["true"]

    monkeypatch.setattr(gpu, "command", command)
    lines, status = lines_of(gpu, ["--minutes", "9"], capsys)
    assert (len(lines), status) == (10, 0)
    assert given["environment"] == pytest.approx(gpu.SHARES["environment"], rel=0.05)
    assert given["recipe"] == pytest.approx(9 * 60, rel=0.05)
    assert all(given[stage] >= share - 1 for stage, share in gpu.SHARES.items())
    assert lines[-1]["ratio"] is lines[-1]["peer"] is None


def test_only_the_stages_that_are_named_run(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "command", lambda *_: ["true"])
    lines, status = lines_of(gpu, ["--only", "save", "waits"], capsys)
    assert [line.get("stage") for line in lines] == ["waits", "save", None]
    assert status == 0


def test_an_unknown_stage_is_one_line(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    lines, status = 0, 0
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--only", "save", "speed"])
    lines, status = capsys.readouterr().err.splitlines(), ended.value.code
    assert status == 2
    assert lines == [f"gpu.py: there is no stage speed. Choose from {', '.join(gpu.SHARES)}"]


def test_without_a_gpu_a_stage_says_why(gpu: ModuleType, tmp_path: Path) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is one here")
    words = gpu.command("environment", tmp_path, time.monotonic() + 60, False)
    finished = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 1
    (line,) = finished.stdout.splitlines()
    assert "device cuda can't be used: this machine has no cuda" in json.loads(line)["error"]


def test_sequences_are_halved_until_they_fit(gpu: ModuleType) -> None:
    import gpu_speed
    from gpu_place import FULL, Place

    place = Place(torch.device("cpu"), Path(), 0.0, FULL)

    def attempt(error: Exception, most: int) -> Callable[[int], str]:
        def call(rows: int) -> str:
            if rows > most:
                raise error
            return f"{rows} fit"

        return call

    full = torch.OutOfMemoryError("CUDA out of memory")
    assert gpu_speed.fitting(place, 32, attempt(full, 8)) == (8, "8 fit")
    with pytest.raises(torch.OutOfMemoryError):
        gpu_speed.fitting(place, 32, attempt(full, 0))
    with pytest.raises(ValueError, match="another"):
        gpu_speed.fitting(place, 32, attempt(ValueError("another"), 8))


def test_waits_of_cuda_are_counted_by_its_warnings(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    import gpu_checks

    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work() -> None:
        for message in (gpu_checks.READ, "another", gpu_checks.READ):
            warnings.warn(f"{message} (Triggered internally)", stacklevel=1)

    assert gpu_checks.Watch().count(work) == 2
    assert modes == ["warn", "default"]
    with gpu_checks.one_read(gpu_checks.Watch()) as reads:
        torch.zeros(2).tolist()  # of the CPU
    assert (modes[2:], reads) == (["error", "default"], [])


def run_in_one_process(folder: Path) -> None:
    """Run the stages that start no other process in this one, and write what each prints."""
    sys.path.insert(0, str(BENCHMARKS))
    os.chdir(folder)
    sys.stderr = (folder / "stderr").open("w")
    import gpu_stages
    from groundup.training.trainer import Trainer

    def run(stage: str, name: str) -> None:
        words = [stage, "--folder", str(folder), "--ends", str(time.monotonic() + 600), "--toy"]
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
            gpu_stages.main(words)
        (folder / f"{name}.jsonl").write_text(said.getvalue(), "utf-8")

    for stage in sorted(gpu_stages.STAGES.keys() - COMMANDS):
        torch.use_deterministic_algorithms(False)
        run(stage, stage)
    torch.use_deterministic_algorithms(False)
    clip = Trainer.clip_gradients

    def clip_and_look(trainer: Trainer) -> torch.Tensor:
        norm = clip(trainer)
        assert norm.item() > 0
        return norm

    Trainer.clip_gradients = clip_and_look
    run("waits", "waiting")


def found_in(file: Path) -> dict[str, Any]:
    """What the lines of a stage's process say together."""
    parts = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {key: value for part in parts for key, value in part.items()}


def test_every_stage_finds_what_is_there(gpu: ModuleType, tmp_path: Path) -> None:
    process = forked(run_in_one_process, tmp_path)
    process.start()
    process.join(200)
    assert process.exitcode == 0, (tmp_path / "stderr").read_text("utf-8")
    for stage in FIELDS.keys() - COMMANDS:
        found = found_in(tmp_path / f"{stage}.jsonl")
        check_line(gpu, {"stage": stage, "seconds": 0.0, **found}, stage)
    extra = found_in(tmp_path / "waiting.jsonl")
    assert extra["error"] == "RuntimeError: the processor waited 1 times"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_whole_toy(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    lines, status = lines_of(gpu, ["--toy"], capsys)
    for line, stage in zip(lines, [*FIELDS], strict=False):
        check_line(gpu, line, stage)
    assert {line["device"] for line in lines[:-1]} == {"cpu", "testgpu:0"}
    assert list(lines[-1]) == [*KEYS, "toy"]
    assert not places_of_null(lines[-1])
    assert (len(lines), status) == (10, 0)


@pytest.mark.long
@pytest.mark.parametrize("stage", FIELDS)
def test_each_stage_may_fail(
    stage: str,
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = gpu.command

    def command(name: str, folder: Path, ends: float, toy: bool) -> list[str]:
        words = plain(name, folder, ends, toy)[2:]
        return python(BROKEN, CALLED[stage], *words) if name == stage else ["true"]

    monkeypatch.setattr(gpu, "command", command)
    lines, status = lines_of(gpu, ["--toy"], capsys)
    errors = {line["stage"]: line["error"] for line in lines if "error" in line}
    assert errors == {stage: f"RuntimeError: {CRASH}"}
    assert (len(lines), status) == (10, 1)


@pytest.mark.long
@pytest.mark.parametrize(("stage", "change"), [("equality", WRONG_LOSS), ("resume", OTHER_DROPOUT)])
def test_a_stage_sees_what_is_wrong(
    stage: str,
    change: str,
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = gpu.command

    def command(*given: Any) -> list[str]:
        path = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})"
        return python(f"{path}{change}import gpu_stages\ngpu_stages.main()", *plain(*given)[2:])

    monkeypatch.setattr(gpu, "command", command)
    (line, _), status = lines_of(gpu, ["--toy", "--only", stage], capsys)
    if stage == "equality":
        assert line["error"].startswith("Failed: above the bounds: gpt2 adamw float32: loss 0.001")
        assert line.keys() == {"stage", "seconds", "device", "error"} | FIELDS[stage]
        assert status == 1
        return
    for pair in ("unbroken_twice", "resumed"):  # a GPU isn't deterministic: that's no failure
        assert (line[pair]["bit_equal"], status) == (False, 0)
        assert line[pair]["tensors_that_differ"] > 20
        assert 0 < line[pair]["apart"] < 0.5
