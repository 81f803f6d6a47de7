"""What the tests share: the command line as a user runs it, small texts and small recipes."""

import multiprocessing.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from groundup.verification.random_models import model_of, perturb

__all__ = ["model_of", "perturb"]  # the models that `groundup verify` makes are those of the tests

# Two test processes share two cores: oversubscribed OpenMP threads would make everything ten times
# slower.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# No test fails for being slow on a busy machine. `pytest --hypothesis-profile thorough` searches
# fifty times longer.
settings.register_profile("quick", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=5000)
settings.load_profile("quick")

TEMPORARY = pytest.StashKey[Path]()
# What pytest, torch's compiler, onnxruntime and Ray keep for a next run of theirs.
KEPT_BY_OTHERS = ("pytest-of-", "torchinductor_", ".ses", "ray")


def is_first(config: pytest.Config) -> bool:
    """Whether this is the process that was started, and none of xdist's workers."""
    return not hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """All that the tests leave in the system's temporary folder goes into one that we remove."""
    if is_first(config):
        config.stash[TEMPORARY] = Path(tempfile.mkdtemp(prefix="tests-"))
        os.environ["TMPDIR"] = tempfile.tempdir = str(config.stash[TEMPORARY])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Nothing may be left there by what was tested; what failed is kept to be looked at."""
    yield
    if not is_first(session.config):
        return
    folder = session.config.stash[TEMPORARY]
    ours = multiprocessing.util.get_temp_dir()  # removed when this process ends
    left = [
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(KEPT_BY_OTHERS) and str(path) != ours
    ]
    if left:
        sys.stderr.write(f"\nleft behind in {folder}: {', '.join(sorted(left))}\n")
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    if session.exitstatus == pytest.ExitCode.OK:
        # after multiprocessing's own, which has the priority -100
        multiprocessing.util.Finalize(None, shutil.rmtree, [folder, True], exitpriority=-200)


Finished = subprocess.CompletedProcess[str]
Cli = Callable[..., Finished]

# The smallest GPT that still has several of everything, as flags of `groundup train`.
TINY = [
    *("--model.architecture", "gpt2", "--optim.optimizer", "adamw", "--optim.clip-norm", "1.0"),
    *("--model.block-size", "16", "--model.n-layer", "2", "--model.n-head", "2"),
    *("--model.n-embd", "16", "--train.batch-size", "4", "--train.precision", "float32"),
    *("--train.compile", "off", "--train.threads", "1", "--optim.warmup-steps", "2"),
    *("--eval.every", "5", "--eval.train-tokens", "64", "--eval.sample-length", "20"),
]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `groundup ARGS...` in the test's own folder; the finished process, its output as text."""
    from commands import groundup

    def run(*args: object, env: dict[str, str] | None = None, **options: Any) -> Finished:
        folder = Path(options.pop("cwd", tmp_path))
        return groundup(*args, folder=folder, env={"COLUMNS": "120", **(env or {})}, **options)

    return run


@pytest.fixture
def new_python(tmp_path: Path) -> Cli:
    """The same by an interpreter of its own, for what happens before the command begins."""

    def run(*args: object, env: dict[str, str] | None = None) -> Finished:
        return subprocess.run(
            [sys.executable, "-m", "groundup", *map(str, args)],
            cwd=tmp_path,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def some_text() -> str:
    """A text of 6,000 characters with some structure to learn, and some that aren't ASCII."""
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog;"]
    words += ["čtyři", "žluté", "kytky", "—", "中文字", "!\n"]
    generator = random.Random(1)
    return " ".join(generator.choice(words) for _ in range(1500))[:6000]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """`some_text` as a file in the test's own folder."""
    path = tmp_path / "text.txt"
    path.write_text(some_text(), "utf-8")
    return path


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own of that size, in `folder`, while the body runs; skips where nobody
    may mount one.
    """
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def error_line(finished: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line that a refused command prints; asserts that it is one, without a traceback, and
    the status.
    """
    assert finished.returncode == status, (finished.returncode, finished.stdout, finished.stderr)
    assert "Traceback" not in finished.stderr
    lines = finished.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("groundup: ")
    return lines[0]
