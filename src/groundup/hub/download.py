"""Downloads one file: with a time limit, resumable, and verified before it gets its name."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from groundup.errors import CorpusError
from groundup.files import file_digest
from groundup.hub.http import RetryPolicy, TransferError, open_url, with_retries

SLOWEST = 20_000  # bytes a second over a whole try: a server that dribbles is given up

Progress = Callable[[int], None] | None  # takes the number of bytes that have come


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, described so that its content can be verified.

    Args:
        url: The file's address.
        path: Its path in the cache or in its repository.
        size: Its size in bytes.
        sha256: Its SHA-256 in hexadecimal digits, or None where it isn't known.
        instead: What a user can do without the file, for messages.
        git_sha1: git's hash of its content, SHA-1 over its size and its bytes; used where there is
            no SHA-256.
    """

    url: str
    path: str
    size: int
    sha256: str | None = None
    instead: str = ""
    git_sha1: str | None = None


def complete(
    remote: RemoteFile, path: Path, policy: RetryPolicy, token: str | None, progress: Progress
) -> Path:
    """Download a file to `path`, or the part of it that is missing.

    The file gets its name only when it is whole and verified. Until then it lies beside `path`, as
    `NAME.part`.

    Args:
        remote: The file.
        path: Where the file goes.
        policy: How long to wait and how often to try.
        token: An account's token, for the server of the file's address.
        progress: Called now and then with the number of bytes that have come.

    Returns:
        `path`.

    Raises:
        CorpusError: The file has another size or hash than it should.
        OSError: The network or the disk failed.
        HTTPException: The server doesn't speak HTTP.
    """
    if path.is_file():
        _verify(path, remote, "Delete it to download it again.")
        return path
    partial = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with_retries(
        lambda: _append(remote, partial, policy, token, progress), policy, lambda: _size(partial)
    )
    remedy = f"It came from {remote.url} and is removed: run again to download it afresh."
    try:
        _verify(partial, remote, remedy)
    except CorpusError:
        partial.unlink()  # a wrong file can't be completed: the next try starts afresh
        raise
    partial.replace(path)
    return path


def _append(
    remote: RemoteFile, partial: Path, policy: RetryPolicy, token: str | None, progress: Progress
) -> None:
    """Append what is missing to `partial`; a server that ignores the range sends it all again."""
    have = _size(partial)
    if have >= remote.size and partial.is_file():
        return
    seconds = max(600.0, remote.size / SLOWEST) if policy.deadline is None else policy.deadline
    deadline = time.monotonic() + seconds
    try:
        response = open_url(remote.url, policy.timeout, token, start=have)
    except HTTPError as error:
        if error.code == 416:  # the server's file ends before ours: not ours, then
            partial.unlink(missing_ok=True)
            raise TransferError(f"the server has nothing from byte {have:,} on") from error
        raise
    with response:
        received = _goes_on_from(response, remote, have)
        with partial.open("ab" if received else "wb") as file:
            while chunk := response.read1(1 << 16):
                file.write(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(received)
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


def _goes_on_from(response: Any, remote: RemoteFile, have: int) -> int:
    """The byte that the answer begins with: `have`, or 0 where all is sent again.

    Raises TransferError for another part than the one that was asked for or one of unknown length,
    and CorpusError for a web page or a file of another size, before a byte of it is kept.
    """
    if response.headers.get_content_type() == "text/html" and not remote.path.endswith(".html"):
        raise CorpusError(
            f"{remote.url} answers with a web page (a log-in, perhaps) instead of {remote.path}"
        )
    announced = response.headers.get("Content-Length") or ""
    if have and response.status != 206 and not announced.isdigit():
        raise TransferError(
            f"asked for the bytes from {have:,} on, the server sent something of unknown length"
        )
    have = have if response.status == 206 else 0
    stated = response.headers.get("Content-Range") or ""
    if response.status == 206 and not re.match(rf"bytes {have}-", stated):
        raise TransferError(
            f"asked for the bytes from {have:,} on, the server sent: {stated or 'no range'}"
        )
    if announced.isdigit() and have + int(announced) != remote.size:
        raise CorpusError(
            f"{remote.url} has {have + int(announced):,} bytes instead of {remote.size:,}: "
            "another file answers there"
        )
    return have


def _verify(path: Path, remote: RemoteFile, remedy: str) -> None:
    """Raise CorpusError for a file of another size or content."""
    if (size := path.stat().st_size) != remote.size:
        raise CorpusError(f"{path} has {size:,} bytes instead of {remote.size:,}. {remedy}")
    if (expected := remote.sha256) is not None:
        kind, digest = "SHA-256", file_digest(path)
    elif (expected := remote.git_sha1) is not None:
        kind, digest = "git's SHA-1", file_digest(path, "sha1", b"blob %d\0" % size)
    else:
        return
    if digest != expected:
        raise CorpusError(
            f"{path} has {kind} {digest[:8]}... instead of {expected[:8]}.... {remedy}"
        )
