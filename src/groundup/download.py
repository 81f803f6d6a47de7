"""Fetch a file once, into the cache: with a time limit, resumable, and verified before it gets its name."""

import hashlib
import http.client
import os
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from groundup.errors import CorpusError


@dataclass(frozen=True)
class RemoteFile:
    """A file somewhere else, known by its content. `path` is its place in the cache, `size` is in bytes."""

    url: str
    path: str
    size: int
    sha256: str
    instead: str  # what to do without it


def cache_folder() -> Path:
    """`GROUNDUP_CACHE`, else the platform's cache folder."""
    return Path(os.environ.get("GROUNDUP_CACHE") or platformdirs.user_cache_dir("groundup", appauthor=False))


def fetch(remote: RemoteFile, timeout: float = 20.0, deadline: float = 600.0) -> Path:
    """The file's path in the cache, downloaded if it isn't there.

    timeout: seconds without a byte, deadline: seconds in all, before giving up; what has come is kept, and the next
    call goes on from there. Raises CorpusError when the file can't be had or isn't what it should be.
    """
    path = cache_folder() / remote.path
    if path.is_file():
        _verify(path, remote)
        return path
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(remote, partial, timeout, time.monotonic() + deadline)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise CorpusError(
            f"can't download {remote.url} to {path}: {reason}. Put the file there yourself, or {remote.instead}"
        ) from error
    try:
        _verify(partial, remote)
    except CorpusError:
        partial.unlink()  # a wrong file can't be completed: the next try starts afresh
        raise
    partial.replace(path)
    return path


def _download(remote: RemoteFile, partial: Path, timeout: float, deadline: float) -> None:
    """Append what is missing to `partial`; a server that ignores the range sends it all again."""
    have = partial.stat().st_size if partial.is_file() else 0
    if have >= remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        resumed = response.status == 206
        with partial.open("ab" if resumed else "wb") as file:
            received = have if resumed else 0
            while chunk := response.read1(1 << 16):
                file.write(chunk)
                received += len(chunk)
                if received > remote.size:
                    return  # more than announced: the verification names both sizes
                if time.monotonic() > deadline:
                    raise TimeoutError(f"only {received:,} of {remote.size:,} bytes came before the deadline")
    if received < remote.size:
        raise OSError(f"the connection ended after {received:,} of {remote.size:,} bytes; run again to go on")


def _verify(path: Path, remote: RemoteFile) -> None:
    if (size := path.stat().st_size) != remote.size:
        raise CorpusError(f"{path} has {size:,} bytes instead of {remote.size:,}. Delete it to download it again.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != remote.sha256:
        raise CorpusError(
            f"{path} has SHA-256 {digest[:8]}... instead of {remote.sha256[:8]}.... Delete it to download it again."
        )
