"""Runs the command line many times over: each run in a process of its own, forked from one that
knows torch already.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from conftest import TINY, some_text

FORKED = multiprocessing.get_context("forkserver")


def forked(target: Callable[..., None], *args: object) -> BaseProcess:
    """A process that calls `target(*args)` once it is started, forked from one that is ready.

    That one is begun here by the first call, finds preloaded.py beside this file, and ends with us.
    """
    FORKED.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    return FORKED.Process(target=target, args=args)


def flags(changes: dict[str, object] | None = None) -> list[str]:
    """The tiny recipe of conftest.py on `text.txt`, with some of its flags changed; no evaluation
    but the last.
    """
    chosen = dict(zip(TINY[::2], TINY[1::2], strict=True)) | {
        "--corpus": "text.txt",
        "--eval.every": "0",
    }
    chosen |= {flag: str(value) for flag, value in (changes or {}).items()}
    return [word for pair in chosen.items() for word in pair]


def write_text(folder: Path) -> Path:
    """`text.txt` in `folder`."""
    path = folder / "text.txt"
    path.write_text(some_text(), "utf-8")
    return path


def _command_line(
    args: list[str], folder: Path, output: Path, environment: dict[str, str], limits: dict[str, Any]
) -> None:
    """What `python -m groundup ARGS...` does, in `folder`, its output in files, under limits."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if typed := limits.get("input"):
        answers, keyboard = os.pipe()
        os.write(keyboard, typed.encode())  # a pipe holds 64 KB
        os.close(keyboard)
        os.dup2(answers, 0)
        sys.stdin = os.fdopen(0, "r", closefd=False)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(output / f".{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
        setattr(sys, name, os.fdopen(descriptor, "w", buffering=1, closefd=False))
    if memory := limits.get("memory"):
        taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, resource.RLIM_INFINITY))
    if file_size := limits.get("file_size"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    sys.argv = ["groundup", *args]
    if before := limits.get("before"):
        before()
    from groundup.cli.main import main

    main()


class Running:
    """A command that was started; its end as a CompletedProcess."""

    def __init__(self, args: list[str], files: Path, process: BaseProcess) -> None:
        self.args, self.files, self.process = args, files, process

    def wait(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for the end. A signal that killed it is a negative status."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s: {self.args}"
        out, err = (self.output(name) for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(self.args, self.process.exitcode, out, err)

    def send(self, signal_number: int) -> None:
        """A signal, to this process alone, if it still lives."""
        if self.process.is_alive():
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(self.process.pid or 0, signal_number)

    def output(self, name: str) -> str:
        """What it has written so far."""
        path = self.files / f".{self.process.pid}.{name}"
        return path.read_text("utf-8") if path.exists() else ""


@contextmanager
def started(
    *args: object,
    folder: Path,
    output: Path | None = None,
    env: dict[str, str] | None = None,
    **limits: Any,
) -> Iterator[Running]:
    """`groundup ARGS...` in `folder`, while the body runs; killed after it if it still lives.

    Args:
        args: The words of the command.
        folder: Where it runs.
        output: Where hidden files take what it prints, `folder` unless given.
        env: What its environment has besides the test's own.
        limits: `memory` and `file_size` in bytes, `input`, a text for its standard input, and
            `before`, a function that is called first.

    Yields:
        The command at work.
    """
    words, files, environment = (
        list(map(str, args)),
        output or folder,
        {**os.environ, **(env or {})},
    )
    given = (words, folder.absolute(), files.absolute(), environment, limits)
    process = forked(_command_line, *given)
    process.start()
    try:
        yield Running(words, files, process)
    finally:
        process.kill()
        process.join()


def groundup(
    *args: object, folder: Path, timeout: float = 120, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`groundup ARGS...` in `folder`, from beginning to end, with the options of `started`."""
    with started(*args, folder=folder, **options) as running:
        return running.wait(timeout)


def trained(*args: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """`groundup train ARGS...` in `folder`, which must succeed."""
    finished = groundup("train", *args, folder=folder)
    assert finished.returncode == 0, finished.stderr
    return finished


def metrics(run: Path, kind: str = "step") -> list[dict[str, Any]]:
    """The lines of one kind in metrics.jsonl, each of which must be whole."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [line for line in lines if line["kind"] == kind]


def steps_so_far(run: Path) -> int:
    """The lines that a run at work has begun in metrics.jsonl."""
    file = run / "metrics.jsonl"
    return file.read_text("utf-8").count('"kind": "step"') if file.exists() else 0


def wait_for_step(running: Running, run: Path, step: int, timeout: float = 60) -> None:
    """Until the run has logged `step` steps, or has ended."""
    deadline = time.monotonic() + timeout
    while steps_so_far(run) < step and running.process.is_alive():
        assert time.monotonic() < deadline, f"{run} logged {steps_so_far(run)} steps in {timeout} s"
        time.sleep(0.002)


def checkpoint(run: Path, step: int) -> Path:
    """The folder of a run's checkpoint."""
    return run / "checkpoints" / f"step-{step:06d}"


def steps_once(run: Path, steps: int) -> list[tuple[float, int]]:
    """The loss and the hash of the batch of each step, of which metrics.jsonl must hold each
    exactly once, in order.
    """
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    return [(line["loss"], line["batch_hash"]) for line in lines]


def final_files(run: Path, steps: int) -> dict[str, bytes]:
    """What a run learned: the bytes of its last weights and optimizer state."""
    folder = checkpoint(run, steps)
    weights = (
        "model.safetensors"
        if (folder / "model.safetensors").exists()
        else "adapter_model.safetensors"
    )
    return {
        name: (folder / name).read_bytes() for name in (weights, "training/optimizer.safetensors")
    }


def assert_same_training(run: Path, other: Path, steps: int) -> None:
    """Both runs took the same steps on the same batches, and ended with the same bits."""
    assert steps_once(run, steps) == steps_once(other, steps)
    assert final_files(run, steps) == final_files(other, steps)


def tensors(file: Path) -> dict[str, Any]:
    """A safetensors file as a dictionary."""
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def flip_bit(file: Path, position: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)
