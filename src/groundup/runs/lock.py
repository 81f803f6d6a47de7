"""Keeps two processes from training one run at once."""

import itertools
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from groundup.errors import RunError

logger = logging.getLogger(__name__)

LOCK_FILE = "train.lock"
BEAT = 5.0  # seconds between two heartbeats, where a file system has no locks


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep every other process from training a run while the body trains it.

    The system's lock on a file in the run decides. It ends with its owner however that ends, and a
    copy of the file isn't locked; the text of the file only names the owner. Where the file system
    has no locks, a heartbeat in the file decides.

    Args:
        run: The folder of the run.

    Raises:
        RunError: Another process trains the run.
        OSError: The file can't be written.
    """
    file, owner = run / LOCK_FILE, f"process {os.getpid()} on {platform.node()}"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with nullcontext() if _take(descriptor, file) else _heartbeat(file, owner):
            _write(file, owner, 0)
            try:
                yield
            finally:
                with suppress(OSError):  # the folder of the run is gone
                    os.truncate(file, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, file: Path) -> bool:
    """Take the system's lock, or return False where the file system has none."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(file) from None
    except (ImportError, OSError) as error:
        logger.warning(
            f"{file.parent} lies where files can't be locked ({error}): {file} is renewed every "
            f"{BEAT:g} seconds instead, to keep other processes from training this run"
        )
        return False
    return True


@contextmanager
def _heartbeat(file: Path, owner: str) -> Iterator[None]:
    """Take a run whose owner, if there is one, renews the file no more; then renew it."""
    if before := _read(file):
        logger.info(f"waiting {2.5 * BEAT:g} seconds to see whether {before[0]} trains this run")
        time.sleep(2.5 * BEAT)
        if _read(file) != before:
            raise _refusal(file)
    _write(file, owner, 0)
    time.sleep(0.2 * BEAT)  # another process may have come to this line at the same moment
    if _read(file)[:1] != [owner]:
        raise _refusal(file)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(file, owner, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()


def _renew(file: Path, owner: str, ended: threading.Event) -> None:
    """Write the owner and a new number into the file, time and again."""
    for beat in itertools.count(1):
        if ended.wait(BEAT):
            return
        with suppress(OSError):  # training itself says what is wrong with the folder
            _write(file, owner, beat)


def _write(file: Path, owner: str, beat: int) -> None:
    file.write_text(f"{owner}\n{beat}\n", "utf-8")


def _read(file: Path) -> list[str]:
    return file.read_text("utf-8", errors="replace").splitlines()


def _refusal(file: Path) -> RunError:
    owner = (_read(file) or ["another process"])[0]
    return RunError(f"{file.parent.name} is being trained by {owner}: wait for it, or end it")
