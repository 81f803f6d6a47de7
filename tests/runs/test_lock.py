"""One process trains a run at a time, wherever the run lies."""

import errno
import fcntl
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from commands import flags, groundup, started, trained, wait_for_step, write_text
from conftest import error_line
from groundup.errors import RunError
from groundup.runs import lock
from groundup.runs.lock import LOCK_FILE, locked


def test_a_run_that_is_training_is_refused_by_name_and_free_when_it_was_killed(
    tmp_path: Path,
) -> None:
    """The kernel's lock dies with its owner; a copy of the file, text and all, refuses nobody."""
    write_text(tmp_path)
    run = tmp_path / "runs" / "run"
    endless = flags({"--name": "run", "--steps": 100_000})
    with started("train", *endless, folder=tmp_path) as running:
        wait_for_step(running, run, 3)
        before = (run / "recipe.toml").read_bytes()
        line = error_line(groundup("train", "--resume", "run", folder=tmp_path))
        assert f"run is being trained by process {running.process.pid} on " in line
        assert (run / "recipe.toml").read_bytes() == before
        running.send(signal.SIGSTOP)
        shutil.copytree(run, tmp_path / "runs" / "copy", symlinks=True)
        running.send(signal.SIGKILL)
        running.wait()
    assert (run / LOCK_FILE).read_text("utf-8")  # the dead owner's
    for name in ("run", "copy"):
        with started("train", "--resume", name, folder=tmp_path) as running:
            while "machine: " not in running.output("stdout"):
                assert running.process.is_alive(), running.output("stderr")
            running.send(signal.SIGTERM)
            assert running.wait().returncode == 143


def test_a_run_is_free_after_its_end(tmp_path: Path) -> None:
    write_text(tmp_path)
    trained(*flags({"--name": "run", "--steps": 1}), folder=tmp_path)
    assert (tmp_path / "runs" / "run" / LOCK_FILE).read_text("utf-8") == ""
    trained("--resume", "run", "--steps", 2, folder=tmp_path)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, on which a heartbeat takes 0.1 seconds."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "BEAT", 0.1)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_heartbeat_decides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with locked(tmp_path):
        assert "can't be locked ([Errno 37] No locks available)" in caplog.text
        first = (tmp_path / LOCK_FILE).read_text("utf-8")
        shutil.copy(tmp_path / LOCK_FILE, tmp_path / "copied")
        with pytest.raises(RunError, match=r"is being trained by process \d+ on"), locked(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).read_text("utf-8") != first
    assert (tmp_path / LOCK_FILE).read_text("utf-8") == ""
    began = time.monotonic()
    (tmp_path / "copied").rename(tmp_path / LOCK_FILE)
    with locked(tmp_path):  # nobody renews it
        assert time.monotonic() - began < 5


@pytest.mark.usefixtures("no_locks")
def test_without_locks_one_of_two_that_come_at_once_gets_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own name, as processes have."""
    monkeypatch.setattr(lock.platform, "node", lambda: threading.current_thread().name)
    together, done, got = threading.Barrier(2), threading.Event(), list[str]()

    def take() -> None:
        together.wait()
        try:
            with locked(tmp_path):
                got.append("got it")
                done.wait(1)
        except RunError:
            got.append("refused")
            done.set()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["got it", "refused"]
