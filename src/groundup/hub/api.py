"""Hugging Face's hub over plain HTTP: which files a repository has at one commit, where they are,
and why it says no.

huggingface_hub finds the user's token here and does nothing else, because it can't promise an end:
its listing of a tree has no time limit, and its downloader checks no SHA-256, fixes its limits when
it is imported, and gives up on a reset connection or a 500 in the middle of a file. Files that the
hub keeps in Xet come over plain HTTP too.
"""

import http.client
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit

from groundup.errors import CorpusError
from groundup.files import parse_json
from groundup.hub.download import RemoteFile, complete
from groundup.hub.http import Patience, is_of_network, open_url, persist, read_all, reason

HUB = "https://huggingface.co"
MOST_PAGES = 10_000  # of a thousand files each


@dataclass(frozen=True)
class Repository:
    """A repository at a revision: a branch, a tag or, once resolved, a commit."""

    kind: Literal["datasets", "models"]
    name: str
    revision: str = "main"

    def __str__(self) -> str:
        revision = (
            self.revision[:12] if re.fullmatch(r"[0-9a-f]{40}", self.revision) else self.revision
        )
        return f"{self.kind.removesuffix('s')} {self.name}" + (
            "" if revision == "main" else f"@{revision}"
        )


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its path there, its size in bytes, and its SHA-256 or else what git
    calls its content.
    """

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None = None


def endpoint() -> str:
    """`HF_ENDPOINT`, else https://huggingface.co, as it is now. Raises CorpusError."""
    url = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not re.match(r"https?://[^/]", url):
        raise CorpusError(
            f"HF_ENDPOINT={url} is no address. It begins with https:// (or http://), as {HUB} does."
        )
    return url


def token() -> str | None:
    """The token of HF_TOKEN or of `hf auth login`."""
    from huggingface_hub import get_token  # takes 0.1 s

    return get_token()


def refuse_offline(what: object) -> None:
    """Raise CorpusError in offline mode, where `what` can't be had."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if (os.environ.get(name) or "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise CorpusError(
                f"{what} has to be downloaded, and {name}={os.environ[name]} forbids it. Unset "
                f"{name}."
            )


def commit_of(repository: Repository, patience: Patience) -> str:
    """The commit that the revision is now. Raises CorpusError."""
    url = f"{_api(repository)}/revision/{quote(repository.revision, safe='')}"
    answer, _ = _json(url, repository, patience)
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise _not_a_hub(url)
    return commit


def files_below(repository: Repository, folder: str, patience: Patience) -> Iterator[HubFile]:
    """Every file below a folder of the repository, page by page. Raises CorpusError."""
    place = f"/{quote(folder, safe='')}" if folder else ""
    url = f"{_api(repository)}/tree/{quote(repository.revision, safe='')}{place}?recursive=true"
    for _ in range(MOST_PAGES):
        entries, following = _json(url, repository, patience, folder)
        try:
            yield from [_file(entry) for entry in entries if entry["type"] == "file"]
        except (KeyError, TypeError, ValueError) as error:
            raise _not_a_hub(url) from error
        if following is None:
            return
        url = urljoin(url, following)
    raise _not_a_hub(url)


def file_url(repository: Repository, path: str) -> str:
    """Where a file is; a server of files may be behind it."""
    kind = "" if repository.kind == "models" else f"{repository.kind}/"
    revision = quote(repository.revision, safe="")
    return f"{endpoint()}/{kind}{repository.name}/resolve/{revision}/{quote(path)}"


def download(
    repository: Repository,
    file: HubFile,
    path: Path,
    patience: Patience,
    report: Callable[[int], None] | None = None,
) -> Path:
    """Bring a file of a repository to `path`, which exists only when it is whole and verified.

    `report` is told how many bytes are there. Raises CorpusError.
    """
    if not path.is_file():
        refuse_offline(f"{repository}, {file.path},")
    remote = RemoteFile(
        file_url(repository, file.path), file.path, file.size, file.sha256, "", file.git_sha1
    )
    try:
        return complete(remote, path, patience, token=token(), report=report)
    except (OSError, http.client.HTTPException) as error:
        if is_of_network(error):
            raise complaint(error, repository, file.path) from error
        raise CorpusError(
            f"{path} can't be written: {error}. Make room, and run again to go on."
        ) from error


def complaint(error: Exception, repository: Repository, path: str = "") -> CorpusError:
    """One line for what the network raised, with what can be done."""
    hub = endpoint()
    what = f"{repository}, {path}" if path else str(repository)
    if not isinstance(error, HTTPError):
        return CorpusError(
            f"{what} can't be had from {hub}: {reason(error)}. Check the network and run again to "
            "go on."
        )
    code = error.headers.get("X-Error-Code")
    if urlsplit(error.url)[:2] != urlsplit(hub)[:2]:
        # the rest of the address may be a secret
        server = "{0.scheme}://{0.netloc}".format(urlsplit(error.url))
        return CorpusError(f"{what}: {server} answers {reason(error)}. Run again later to go on.")
    if error.code == 403 or code == "GatedRepo":
        kind = "" if repository.kind == "models" else f"{repository.kind}/"
        remedy = (
            f"Accept its terms on {hub}/{kind}{repository.name}, then `hf auth login` or set "
            "HF_TOKEN."
        )
    elif error.code == 401 or code == "RepoNotFound":
        remedy = (
            "Either there is none of that name, or it asks for an account: `hf auth login` or set "
            "HF_TOKEN."
        )
    elif error.code == 404 and code == "RevisionNotFound":
        remedy = f"There is no branch, tag or commit {repository.revision}: check it on {hub}."
    elif error.code == 404:
        remedy = (
            f"There is no such {'file or folder' if path else 'name or revision'}: check it on "
            f"{hub}."
        )
    else:
        remedy = "Run again later to go on."
    return CorpusError(f"{what}: {hub} answers {reason(error)}. {remedy}")


def _api(repository: Repository) -> str:
    return f"{endpoint()}/api/{repository.kind}/{repository.name}"


def _json(
    url: str, repository: Repository, patience: Patience, path: str = ""
) -> tuple[Any, str | None]:
    """What the hub answers, and the address of the next page."""
    refuse_offline(repository)
    own = urlsplit(url)[:2] == urlsplit(endpoint())[:2]

    def attempt() -> tuple[bytes, str | None]:
        with open_url(url, patience.silence, token=token() if own else None) as response:
            return read_all(response, patience.silence), response.headers.get("Link")

    try:
        content, link = persist(attempt, patience)
    except (OSError, http.client.HTTPException) as error:
        raise complaint(error, repository, path) from error
    try:
        answer = parse_json(content)
    except ValueError as error:
        raise _not_a_hub(url) from error
    following = re.search(r'<([^>]*)>\s*;[^,]*\brel="?next\b', link or "")
    return answer, following[1] if following else None


def _file(entry: dict[str, Any]) -> HubFile:
    """A file of the tree as the hub lists it; large ones carry their SHA-256 as LFS's object id."""
    lfs = entry.get("lfs")
    path, size, digest = str(entry["path"]), int(entry["size"]), (lfs or entry)["oid"]
    if (
        ".." in path.split("/")
        or path.startswith("/")
        or not re.fullmatch(r"[0-9a-f]{64}" if lfs else r"[0-9a-f]{40}", digest)
    ):
        raise ValueError(path)
    return HubFile(path, size, digest) if lfs else HubFile(path, size, None, digest)


def _not_a_hub(url: str) -> CorpusError:
    return CorpusError(
        f"{url} doesn't answer as Hugging Face's hub does. Check HF_ENDPOINT and the network's "
        "log-in page."
    )
