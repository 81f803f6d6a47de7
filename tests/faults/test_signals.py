"""SIGTERM and Ctrl-C: training stops where it can go on, or at once if asked twice (faults.md, 2 to
4).
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import (
    Running,
    checkpoint,
    flags,
    groundup,
    metrics,
    started,
    trained,
    wait_for_step,
    write_text,
)
from groundup.checkpoints.lifecycle import steps, verify


def long_run(folder: Path, changes: dict[str, object] | None = None) -> list[str]:
    """Arguments of a run named `run` that doesn't end by itself."""
    write_text(folder)
    return ["train", *flags({"--name": "run", "--steps": 100_000} | (changes or {}))]


def wait_for_output(running: Running, text: str, name: str = "stdout", timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while text not in running.output(name):
        assert running.process.is_alive(), running.output("stderr")
        assert time.monotonic() < deadline, running.output(name)
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_signal_finishes_the_step_and_saves(
    tmp_path: Path, number: int, status: int, name: str
) -> None:
    """faults.md, 2 and 4: in the middle of a step, since a step follows a step."""
    run = tmp_path / "runs" / "run"
    with started(*long_run(tmp_path), folder=tmp_path) as running:
        wait_for_step(running, run, 3)
        running.send(number)
        finished = running.wait()
    assert finished.returncode == status, finished.stderr
    last = metrics(run)[-1]["step"]
    folder = checkpoint(run, last)
    verify(folder)
    assert f"{name}: finishing this step, then saving" in finished.stderr
    assert (
        f"saved {folder.relative_to(tmp_path)}\ngo on with: groundup train --resume run\n"
        in finished.stdout
    )
    resumed = groundup("train", "--resume", "run", "--steps", last, folder=tmp_path)
    assert "fewer than the 100000 steps" in resumed.stderr  # the run knows its whole length


def test_sigterm_stops_the_real_command(tmp_path: Path) -> None:
    """faults.md, 2, once without the shortcuts of commands.py: a new interpreter and its exit
    status.
    """
    run = tmp_path / "runs" / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "groundup", *long_run(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    verify(checkpoint(run, metrics(run)[-1]["step"]))
    assert "saved runs/run/checkpoints/step-" in out


def test_a_second_ctrl_c_ends_a_slow_step_at_once(tmp_path: Path) -> None:
    """faults.md, 4: many micro-steps, none of which the second one waits for."""
    slow = {"--train.batch-size": 65536, "--train.micro-batch-size": 1}
    with started(*long_run(tmp_path, slow), folder=tmp_path) as running:
        wait_for_output(running, "machine: ")
        running.send(signal.SIGINT)
        wait_for_output(running, "Ctrl-C again stops at once", "stderr")
        running.send(signal.SIGINT)
        finished = running.wait()
    assert finished.returncode == 130
    assert not (tmp_path / "runs" / "run" / "metrics.jsonl").exists()  # the step wasn't finished
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()


LONG_CALL = """
import hashlib
from groundup.training.stopping import stop_on_signals
with stop_on_signals():
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)  # a minute in C, as in torch
print("ended", flush=True)
"""


def test_a_second_ctrl_c_ends_a_long_call_into_c(tmp_path: Path) -> None:
    """faults.md, 4: Python's own signal handlers wait until a backward pass is over, and then take
    two for one.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(2):
        time.sleep(0.3)  # well inside the call, and one after the other
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "Ctrl-C: finishing this step, then saving. Ctrl-C again stops at once." in err
    assert out == ""


def test_ctrl_c_twice_during_a_save_publishes_nothing_half(tmp_path: Path) -> None:
    """faults.md, 4: whatever is there under a step's name is whole, and the run goes on."""
    run = tmp_path / "runs" / "run"
    with started(
        *long_run(tmp_path, {"--eval.every": 1, "--eval.sample-length": 1}), folder=tmp_path
    ) as running:
        wait_for_step(running, run, 5)
        while not list((run / "checkpoints").glob(".writing-step-*")):
            assert running.process.is_alive()
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        assert running.wait().returncode == 130
    published = steps(run / "checkpoints")
    assert published
    for folder in published:
        verify(folder)
    with started("train", "--resume", "run", folder=tmp_path) as running:
        wait_for_output(running, "resuming run at step ")
        running.send(signal.SIGTERM)
        assert running.wait().returncode == 143
    assert not list((run / "checkpoints").glob(".writing-*"))


def test_a_signal_while_minutes_are_measured_stops_after_a_step(tmp_path: Path) -> None:
    """faults.md, 2: the measurement leaves no trace, so there is a step to do before there is
    something to save.
    """
    write_text(tmp_path)
    slow = {
        "--train.minutes": 5,
        "--train.batch-size": 64,
        "--train.micro-batch-size": 8,
        "--name": "run",
    }
    with started("train", *flags(slow), folder=tmp_path) as running:
        wait_for_output(running, "reading ")
        running.send(signal.SIGTERM)
        finished = running.wait()
    assert finished.returncode == 143, finished.stderr
    saved = finished.stdout.partition("saved ")[2].splitlines()[0]
    verify(tmp_path / saved)


def test_a_signal_in_the_last_step_leaves_what_is_due_to_the_resumed_run(tmp_path: Path) -> None:
    write_text(tmp_path)
    slow = {"--train.batch-size": 128, "--train.micro-batch-size": 1, "--name": "run", "--steps": 1}
    with started("train", *flags(slow), folder=tmp_path) as running:
        wait_for_output(running, "machine: ")
        running.send(signal.SIGTERM)
        finished = running.wait()
    assert finished.returncode == 143, finished.stderr
    assert "saved runs/run/checkpoints/step-000001\n" in finished.stdout
    assert not metrics(tmp_path / "runs" / "run", "evaluation")
    resumed = trained("--resume", "run", folder=tmp_path)
    assert "done: 1 steps" in resumed.stdout
    assert [line["step"] for line in metrics(tmp_path / "runs" / "run", "evaluation")] == [1]
