"""Hugging Face's hub over plain HTTP: lists and downloads files, and explains refusals.

The package huggingface_hub is used here only to find the user's token, because its requests may
never end: its listing of files has no time limit. Its downloader checks no SHA-256, reads its time
limits only on import, and gives up when a connection is reset or when the server answers 500 in the
middle of a file. Files in the hub's storage Xet are also downloaded over plain HTTP.
"""

import http.client
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit

from groundup.errors import CorpusError
from groundup.files import parse_json
from groundup.hub.download import Progress, RemoteFile, complete
from groundup.hub.http import RetryPolicy, is_of_network, open_url, read_all, reason, with_retries

HUB = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
MOST_PAGES = 10_000  # of a thousand files each


@dataclass(frozen=True)
class Repository:
    """A repository of Hugging Face's hub at a revision: a branch, a tag or a commit."""

    kind: Literal["datasets", "models"]
    name: str
    revision: str = "main"

    def __str__(self) -> str:
        revision = self.revision[:12] if COMMIT.fullmatch(self.revision) else self.revision
        at = "" if revision == "main" else f"@{revision}"
        return f"{self.kind.removesuffix('s')} {self.name}{at}"

    @property
    def page(self) -> str:
        """The path of the repository's page: OWNER/NAME, below `datasets/` for a dataset."""
        return self.name if self.kind == "models" else f"{self.kind}/{self.name}"

    def file(self, path: str, size: int, **digest: Any) -> RemoteFile:
        """Describe a file of the repository, so that it can be downloaded and verified.

        The digest of its content is given as `sha256` or as `git_sha1`. The hub may redirect the
        file's address to another server.
        """
        revision = quote(self.revision, safe="")
        url = f"{endpoint()}/{self.page}/resolve/{revision}/{quote(path)}"
        return RemoteFile(url, path, size, **digest)


def endpoint() -> str:
    """Return the hub's address: the variable `HF_ENDPOINT`, or else https://huggingface.co.

    Raises:
        CorpusError: `HF_ENDPOINT` isn't an address.
    """
    url = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if "@" in url:  # secrets are never shown
        remedy = "Leave them out; a token is given with HF_TOKEN."
        raise CorpusError(f"HF_ENDPOINT holds a user's name or password. {remedy}")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not re.fullmatch(r"[!-~]+", url):
        raise CorpusError(
            f"HF_ENDPOINT={url} is no address. It begins with https:// (or http://), as {HUB} does."
        )
    return url


def token() -> str | None:
    """Return the token of the user's account on the hub, or None without one.

    It is what HF_TOKEN holds or `hf auth login` stored.

    Raises:
        CorpusError: The token holds a character that no token has.
    """
    endpoint()  # a broken one keeps the package from being imported
    from huggingface_hub import get_token  # takes 0.1 s

    found = get_token()
    if found and (wrong := re.search("[^!-~]", found)):
        what = f"character {wrong.start() + 1} is {wrong[0]!a}, a quotation mark perhaps"
        raise CorpusError(f"HF_TOKEN, or what `hf auth login` kept, is no token: its {what}.")
    return found


def refuse_offline(what: object) -> None:
    """Raise an error in offline mode, where `what` can't be downloaded.

    Raises:
        CorpusError: A variable of the environment forbids downloads.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if (os.environ.get(name) or "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise CorpusError(
                f"{what} has to be downloaded, and {name}={os.environ[name]} forbids it. Unset "
                f"{name}."
            )


def commit_of(repository: Repository) -> str:
    """Return the commit that a repository's revision stands for now.

    Raises:
        CorpusError: The hub can't be reached, or doesn't have the revision.
    """
    url = f"{_api(repository)}/revision/{quote(repository.revision, safe='')}"
    answer, _ = _json(url, repository)
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise _not_a_hub(url)
    return commit


def files_below(repository: Repository, folder: str = "") -> Iterator[RemoteFile]:
    """List every file below a folder of a repository, page by page.

    Raises:
        CorpusError: The hub can't be reached, or doesn't have the folder.
    """
    place = f"/{quote(folder, safe='')}" if folder else ""
    url = f"{_api(repository)}/tree/{quote(repository.revision, safe='')}{place}?recursive=true"
    for _ in range(MOST_PAGES):
        entries, following = _json(url, repository, folder)
        try:
            yield from [_file(repository, entry) for entry in entries if entry["type"] == "file"]
        except (KeyError, TypeError, ValueError) as error:
            raise _not_a_hub(url) from error
        if following is None:
            return
        url = urljoin(url, following)
    raise _not_a_hub(url)


def download(
    repository: Repository, file: RemoteFile, path: Path, progress: Progress = None
) -> Path:
    """Download a file of a repository to `path`, which exists only when it is whole and verified.

    After a failure the download is resumed from where it ended, up to four times in a row.

    Args:
        repository: The file's repository, for messages.
        file: One of the repository's files, as `files_below` lists them.
        path: Where the file goes.
        progress: Called now and then with the number of bytes that have come.

    Returns:
        `path`.

    Raises:
        CorpusError: The file can't be had, or isn't what it should be.
    """
    if not path.is_file():
        refuse_offline(f"{repository}, {file.path},")
    try:
        return complete(file, path, RetryPolicy(), token=token(), progress=progress)
    except (OSError, http.client.HTTPException) as error:
        if is_of_network(error):
            raise _complaint(error, repository, file.path) from error
        raise CorpusError(
            f"{path} can't be written: {error}. Make room, and run again to go on."
        ) from error


def _complaint(error: Exception, repository: Repository, path: str = "") -> CorpusError:
    """One line for what the network raised, with what can be done."""
    hub = endpoint()
    what = f"{repository}, {path}" if path else str(repository)
    if not isinstance(error, HTTPError):
        return CorpusError(
            f"{what} can't be had from {hub}: {reason(error)}. Check the network and run again to "
            "go on."
        )
    code = error.headers.get("X-Error-Code")
    server, login = urlsplit(error.url), "`hf auth login` or set HF_TOKEN."
    remedy = "Run again later to go on."
    if server[:2] != urlsplit(hub)[:2]:
        hub = f"{server.scheme}://{server.netloc}"  # the rest of the address may be a secret
    elif error.code == 403 or code == "GatedRepo":
        remedy = f"Accept its terms on {hub}/{repository.page}, then {login}"
    elif error.code == 401 or code == "RepoNotFound":
        remedy = f"Either there is none of that name, or it asks for an account: {login}"
    elif error.code == 404 and code == "RevisionNotFound":
        remedy = f"There is no branch, tag or commit {repository.revision}: check it on {hub}."
    elif error.code == 404:
        kind = "file or folder" if path else "name or revision"
        remedy = f"There is no such {kind}: check it on {hub}."
    return CorpusError(f"{what}: {hub} answers {reason(error)}. {remedy}")


def _api(repository: Repository) -> str:
    return f"{endpoint()}/api/{repository.kind}/{repository.name}"


def _json(url: str, repository: Repository, path: str = "") -> tuple[Any, str | None]:
    """What the hub answers, and the address of the next page."""
    refuse_offline(repository)
    own = urlsplit(url)[:2] == urlsplit(endpoint())[:2]
    policy = RetryPolicy()

    def attempt() -> tuple[bytes, str | None]:
        with open_url(url, policy.timeout, token=token() if own else None) as response:
            return read_all(response, policy.timeout), response.headers.get("Link")

    try:
        content, link = with_retries(attempt, policy)
    except (OSError, http.client.HTTPException) as error:
        raise _complaint(error, repository, path) from error
    try:
        answer = parse_json(content)
    except ValueError as error:
        raise _not_a_hub(url) from error
    following = re.search(r'<([^>]*)>\s*;[^,]*\brel="?next\b', link or "")
    return answer, following[1] if following else None


def _file(repository: Repository, entry: dict[str, Any]) -> RemoteFile:
    """A file as the hub lists it; large ones carry their SHA-256 as LFS's object id."""
    lfs = entry.get("lfs")
    path, size, digest = str(entry["path"]), int(entry["size"]), (lfs or entry)["oid"]
    form = r"[0-9a-f]{64}" if lfs else r"[0-9a-f]{40}"
    if ".." in path.split("/") or path.startswith("/") or not re.fullmatch(form, digest):
        raise ValueError(path)
    return repository.file(path, size, **{"sha256" if lfs else "git_sha1": digest})


def _not_a_hub(url: str) -> CorpusError:
    return CorpusError(
        f"{url} doesn't answer as Hugging Face's hub does. Check HF_ENDPOINT and the network's "
        "log-in page."
    )
