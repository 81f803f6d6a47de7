"""The cache: files from elsewhere, and whole repositories of Hugging Face's hub.

A repository lies in a folder named after its commit, which appears only when all wanted files are
there and verified. From then on the revision means that commit, and the hub isn't asked again. What
other programs have put into Hugging Face's own cache is used from there.
"""

import http.client
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import platformdirs
from filelock import FileLock

from groundup.errors import CheckpointError, CorpusError
from groundup.files import write_whole
from groundup.hub.api import COMMIT, Repository, commit_of, endpoint, refuse_offline
from groundup.hub.download import RemoteFile, complete
from groundup.hub.http import RetryPolicy, reason

UNFINISHED = ".fetching-"


def cache_folder() -> Path:
    """Return the folder that the variable GROUNDUP_CACHE names, else the platform's for caches."""
    named = os.environ.get("GROUNDUP_CACHE")
    return Path(named or platformdirs.user_cache_dir("groundup", appauthor=False))


def fetch(remote: RemoteFile, timeout: float | None = None, deadline: float = 600.0) -> Path:
    """Return a file's path in the cache, and download the file if it isn't there.

    Args:
        remote: The file.
        timeout: Seconds without a byte before giving up, `network_timeout()` if left out.
        deadline: Seconds in all before giving up. The bytes that came are kept, and the next call
            downloads only the missing ones.

    Raises:
        CorpusError: The file can't be had, or isn't what it should be.
    """
    path = cache_folder() / remote.path
    silence = {} if timeout is None else {"timeout": timeout}
    policy = RetryPolicy(**silence, tries=1, deadline=deadline)
    try:
        if path.is_file():
            return complete(remote, path, policy, token=None, progress=None)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # of several processes, one writes
            return complete(remote, path, policy, token=None, progress=None)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise CorpusError(
            f"can't download {remote.url} to {path}: {reason(error)}. Put the file there "
            f"yourself, or {remote.instead}"
        ) from error


def place_of(repository: Repository) -> Path:
    """Return the folder in the cache for a repository whose revision is a commit."""
    return _home(repository) / repository.revision


def cached(repository: Repository) -> Path | None:
    """Return the folder of a repository that was fetched at its revision, or None otherwise."""
    known, commit = _known(repository), repository.revision  # of a revision that is a commit itself
    if known.is_file():
        commit = known.read_text("ascii", errors="replace").strip()
    folder = _home(repository) / commit
    return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None


def kept_by_hugging_face(repository: Repository, path: str) -> Path | bool:
    """Look for a file of a repository in the cache of Hugging Face's own programs.

    Returns:
        The file's path; if the file isn't there, whether the cache knows that the repository lacks
        the file.
    """
    endpoint()  # a broken one keeps the package from being imported
    from huggingface_hub import try_to_load_from_cache  # takes 0.1 s

    try:
        found = try_to_load_from_cache(repository.name, path, revision=repository.revision)
    except ValueError:  # a name that the hub has none of
        return False
    return Path(found) if isinstance(found, str) else found is not None


def fetch_repository(repository: Repository, bring: Callable[[Repository, Path], None]) -> Path:
    """Return the folder of a repository in the cache, and download what isn't there.

    Of several processes one downloads. The bytes that came before a failure of the network are kept
    for the next call.

    Args:
        repository: The repository, at any revision.
        bring: Takes the repository at a commit and a folder, and downloads the wanted files into
            the folder.

    Raises:
        CheckpointError: `bring` refused the repository.
        CorpusError: The hub can't be reached, or doesn't have what was asked for.
        OSError: The cache can't be written.
    """
    refuse_offline(repository)
    home = _home(repository)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock"):
        if (folder := cached(repository)) is not None:
            return folder
        pinned = Repository(repository.kind, repository.name, commit_of(repository))
        folder, unfinished = place_of(pinned), home / f"{UNFINISHED}{pinned.revision}"
        if not folder.is_dir():  # it is there where another name meant the same commit
            try:
                bring(pinned, unfinished)
            except CheckpointError:  # no model for us: what came of it is of no use
                _forget_unfinished(home)
                raise
            unfinished.replace(folder)
        known = _known(repository)
        known.parent.mkdir(exist_ok=True)
        write_whole(known, folder.name)
        _forget_unfinished(home)
        return folder


def repository_of(folder: Path) -> str | None:
    """Return OWNER/NAME of a model folder in groundup's cache or Hugging Face's, else None."""
    folder, home = folder.resolve(), cache_folder().resolve() / "hub"
    theirs = re.fullmatch(r"models--(.+?)--(.+)", folder.parent.parent.name)
    if theirs and folder.parent.name == "snapshots":
        return f"{theirs[1]}/{theirs[2]}"
    parts = folder.relative_to(home).parts if folder.is_relative_to(home) else ()
    return "/".join(parts[:2]) if len(parts) == 3 else None


def _home(repository: Repository) -> Path:
    return cache_folder() / "hub" / repository.name


def _known(repository: Repository) -> Path:
    """The file that says which commit a revision was when it was fetched."""
    return _home(repository) / "revisions" / quote(repository.revision, safe="")


def _forget_unfinished(home: Path) -> None:
    """Remove what has come of commits that are no longer, or never were, of use."""
    for unfinished in home.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
