"""A run of adapters is a pure function of its recipe too: stopped, killed or left alone, it ends
with the same bits.
"""

import shlex
import signal
from pathlib import Path

import pytest

from commands import (
    assert_same_training,
    checkpoint,
    flags,
    groundup,
    metrics,
    started,
    trained,
    wait_for_step,
    write_text,
)

STEPS = 40
CHANGES: dict[str, dict[str, object]] = {
    "gpt2": {"--model.dropout": 0.2, "--train.micro-batch-size": 2},
    "modern": {"--model.architecture": "modern", "--train.precision": "bfloat16"},
}


@pytest.fixture(scope="module", params=CHANGES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, a run, and `unbroken`, a run of adapters on it."""
    path = tmp_path_factory.mktemp(request.param)
    write_text(path)
    kind = CHANGES[request.param]
    trained(*flags(kind | {"--steps": 5, "--name": "base"}), folder=path)
    lora = flags(kind | {"--init": "base", "--lora.rank": 4, "--steps": STEPS, "--eval.every": 10})
    (path / "flags").write_text("\n".join(lora), "utf-8")
    trained(*lora, "--name", "unbroken", folder=path)
    return path


def again(folder: Path, *changes: str) -> list[str]:
    return ["train", *(folder / "flags").read_text("utf-8").split("\n"), *changes]


def test_two_runs_are_equal_and_another_seed_is_another_run(folder: Path) -> None:
    assert groundup(*again(folder, "--name", "second"), folder=folder).returncode == 0
    runs = folder / "runs"
    assert_same_training(runs / "second", runs / "unbroken", STEPS)
    assert groundup(*again(folder, "--name", "other", "--seed", "1"), folder=folder).returncode == 0
    files = [
        checkpoint(runs / name, STEPS) / "adapter_model.safetensors"
        for name in ("other", "unbroken")
    ]
    assert files[0].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_or_killed_and_resumed_equals_unbroken(folder: Path, number: int) -> None:
    name = signal.Signals(number).name
    run = folder / "runs" / name
    with started(*again(folder, "--name", name), folder=folder) as running:
        wait_for_step(running, run, STEPS // 3)
        running.send(number)
        running.wait()
    assert len(metrics(run)) < STEPS
    resumed = trained("--resume", name, folder=folder)
    assert f"resuming {name} at step " in resumed.stdout
    assert "parameters train" in resumed.stdout
    assert_same_training(run, folder / "runs" / "unbroken", STEPS)


def test_another_rank_is_another_run(folder: Path) -> None:
    refused = groundup(
        "train", "--resume", "unbroken", "--steps", STEPS + 9, "--lora.rank", 2, folder=folder
    )
    assert refused.returncode == 2
    assert "lora.rank was 4 when unbroken began and can't become 2" in refused.stderr
    advised = shlex.split(refused.stderr.rpartition("groundup ")[2])
    advised[advised.index(str(STEPS + 9))] = "1"
    assert groundup(*advised, folder=folder).returncode == 0
