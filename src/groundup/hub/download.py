"""Fetch a file once: with a time limit, resumable, and verified before it gets its name."""

import http.client
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import platformdirs
from filelock import FileLock

from groundup.errors import CorpusError
from groundup.files import file_digest
from groundup.hub.http import Patience, TransferError, open_url, persist, reason, silence_limit

SLOWEST = 20_000  # bytes a second over a whole try: a server that dribbles is given up


@dataclass(frozen=True)
class RemoteFile:
    """A file somewhere else, known by its content. `path` is its place in the cache, `size` is in
    bytes.
    """

    url: str
    path: str
    size: int
    sha256: str | None  # None where nobody says it
    instead: str  # what to do without it
    # of a small file in a repository, instead of SHA-256: of its size and content
    git_sha1: str | None = None


def cache_folder() -> Path:
    """`GROUNDUP_CACHE`, else the platform's cache folder."""
    return Path(
        os.environ.get("GROUNDUP_CACHE") or platformdirs.user_cache_dir("groundup", appauthor=False)
    )


def fetch(remote: RemoteFile, timeout: float | None = None, deadline: float = 600.0) -> Path:
    """The file's path in the cache, downloaded if it isn't there.

    timeout: seconds without a byte (or GROUNDUP_NETWORK_TIMEOUT, or 20), deadline: seconds in all,
    before giving up; what has come is kept, and the next call goes on from there. Raises
    CorpusError when the file can't be had or isn't what it should be.
    """
    path = cache_folder() / remote.path
    patience = Patience(silence_limit() if timeout is None else timeout)
    try:
        if path.is_file():
            return complete(remote, path, patience)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # of several processes, one writes
            return complete(remote, path, patience, deadline=deadline)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise CorpusError(
            f"can't download {remote.url} to {path}: {reason(error)}. Put the file there "
            f"yourself, or {remote.instead}"
        ) from error


def complete(
    remote: RemoteFile,
    path: Path,
    patience: Patience,
    *,
    token: str | None = None,
    deadline: float | None = None,
    report: Callable[[int], None] | None = None,
) -> Path:
    """Bring a file to `path`, or what is missing of it; `path` exists only when it is whole and
    verified.

    What has come lies beside it, in `NAME.part`. deadline: seconds for one try, else what the size
    takes at 20 kB/s and ten minutes at least. `report` is told how many bytes are there, now and
    then. Raises CorpusError for a file that isn't what it should be, else what the network or the
    disk raises: an OSError or an HTTPException.
    """
    if path.is_file():
        _verify(path, remote, "Delete it to download it again.")
        return path
    partial = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = max(600.0, remote.size / SLOWEST) if deadline is None else deadline

    def attempt() -> None:
        tell = report or (lambda _: None)
        _append(
            remote, partial, patience.silence, time.monotonic() + seconds, token=token, report=tell
        )

    persist(attempt, patience, lambda: _size(partial))
    try:
        _verify(
            partial,
            remote,
            f"It came from {remote.url} and is removed: run again to download it afresh.",
        )
    except CorpusError:
        partial.unlink()  # a wrong file can't be completed: the next try starts afresh
        raise
    partial.replace(path)
    return path


def _append(
    remote: RemoteFile,
    partial: Path,
    silence: float,
    deadline: float,
    *,
    token: str | None,
    report: Callable[[int], None],
) -> None:
    """Append what is missing to `partial`; a server that ignores the range sends it all again."""
    have = _size(partial)
    if have >= remote.size and partial.is_file():
        return
    try:
        response = open_url(remote.url, silence, {"Range": f"bytes={have}-"} if have else {}, token)
    except HTTPError as error:
        if error.code == 416:  # the server's file ends before ours: not ours, then
            partial.unlink(missing_ok=True)
            raise TransferError(f"the server has nothing from byte {have:,} on") from error
        raise
    with response:
        resumed = _goes_on(response, have)
        received = have if resumed else 0
        _check_announced(response, remote, received)
        with partial.open("ab" if resumed else "wb") as file:
            while chunk := response.read1(1 << 16):
                file.write(chunk)
                received += len(chunk)
                report(received)
                if received > remote.size:
                    return  # more than announced: the verification names both sizes
                if time.monotonic() > deadline:
                    raise TransferError(
                        f"only {received:,} of {remote.size:,} bytes came before the deadline"
                    )
    if received < remote.size:
        raise TransferError(
            f"the connection ended after {received:,} of {remote.size:,} bytes; run again to go on"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _goes_on(response: Any, have: int) -> bool:
    """Whether the answer is the rest that was asked for, or all again."""
    if response.status != 206:
        return False
    stated = response.headers.get("Content-Range") or ""
    if not re.match(rf"bytes {have}-", stated):
        raise TransferError(
            f"asked for the bytes from {have:,} on, the server sent: {stated or 'no range'}"
        )
    return True


def _check_announced(response: Any, remote: RemoteFile, have: int) -> None:
    """Refuse a file of another size (the page of a log-in, say) before a byte of it is kept."""
    announced = response.headers.get("Content-Length") or ""
    if announced.isdigit() and have + int(announced) != remote.size:
        raise CorpusError(
            f"{remote.url} has {have + int(announced):,} bytes instead of {remote.size:,}: "
            "another file answers there"
        )


def _verify(path: Path, remote: RemoteFile, remedy: str) -> None:
    if (size := path.stat().st_size) != remote.size:
        raise CorpusError(f"{path} has {size:,} bytes instead of {remote.size:,}. {remedy}")
    kind, expected, start = "SHA-256", remote.sha256, b""
    if expected is None:
        kind, expected, start = "git's SHA-1", remote.git_sha1, b"blob %d\0" % size
    if expected is None:
        return
    digest = file_digest(path, "sha256" if remote.sha256 else "sha1", start)
    if digest != expected:
        raise CorpusError(
            f"{path} has {kind} {digest[:8]}... instead of {expected[:8]}.... {remedy}"
        )
