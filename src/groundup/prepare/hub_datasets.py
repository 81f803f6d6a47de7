"""Finds and downloads the parquet files of text datasets on Hugging Face's hub, by name.

Each file is pinned to a commit. A parquet file has its index at its end, so it is downloaded whole
and verified before it is read. Once its documents are encoded, the file can be deleted.
`groundup.hub.api` lists the files and says why huggingface_hub doesn't. `groundup.hub.download`
downloads them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from groundup.errors import CorpusError
from groundup.hub import api as hub
from groundup.hub.api import Repository, commit_of, files_below
from groundup.hub.download import Progress

FINEWEB_SAMPLES = ("10BT", "100BT", "350BT")
FORM = "hf://datasets/OWNER/NAME[@REVISION][/FOLDER]"


@dataclass(frozen=True)
class HubDataset:
    """Parquet files below a folder of a dataset's repository."""

    repository: str
    folder: str
    revision: str = "main"


@dataclass(frozen=True)
class RemoteParquet:
    """One of a dataset's files, as it was at one commit.

    Args:
        repository: OWNER/NAME.
        revision: The commit.
        path: The file's path in the repository.
        size: The size of the file in bytes.
        sha256: SHA-256 of the file's content, which is known for nearly all files.
    """

    repository: str
    revision: str
    path: str
    size: int
    sha256: str | None


def named_dataset(name: str, sample: str | None = None) -> HubDataset | None:
    """Find the dataset of a name or of an hf:// address, or return None for an unknown name.

    Raises:
        CorpusError: The address is bad, or there is no such sample.
    """
    if name == "fineweb-edu":
        if sample is not None and sample not in FINEWEB_SAMPLES:
            choices = " or ".join(FINEWEB_SAMPLES)
            raise CorpusError(f"fineweb-edu has no sample {sample}. Choose --sample {choices}.")
        return HubDataset("HuggingFaceFW/fineweb-edu", f"sample/{sample or FINEWEB_SAMPLES[0]}")
    if sample is not None:
        remedy = "Leave --sample out."
        raise CorpusError(f"--sample {sample} is for fineweb-edu; {name} has no samples. {remedy}")
    if name == "openwebtext":
        return HubDataset("Skylion007/openwebtext", "plain_text")
    return _from_address(name) if name.startswith("hf://") else None


def _from_address(address: str) -> HubDataset:
    """A dataset by its address; slashes in a revision are %2F, but for those of refs/... ."""
    name = r"[\w-][\w.-]*"
    revision, folder = r"(?:@(refs/(?:convert|pr)/[^/]+|[^/]+))?", "(?:/(.*))?"
    match = re.fullmatch(rf"hf://datasets/({name}/{name}){revision}{folder}", address, re.ASCII)
    folder = (match[3] or "").strip("/") if match else ""
    if not match or ".." in folder.split("/"):
        raise CorpusError(f"{address} is no address of a dataset. Its form is {FORM}.")
    return HubDataset(match[1], folder, revision=unquote(match[2] or "main"))


def list_files(dataset: HubDataset) -> list[RemoteParquet]:
    """List the parquet files of a dataset by path, pinned to a commit.

    The commit is the current one of the revision. A preparation that keeps the list reads the same
    files whenever it is resumed. Each wait before the hub is asked again is reported.

    Args:
        dataset: The dataset, whose folder may also name a single file.

    Raises:
        CorpusError: The hub has no such files, or doesn't answer.
    """
    latest = Repository("datasets", dataset.repository, dataset.revision)
    pinned = Repository("datasets", dataset.repository, commit_of(latest))
    only = dataset.folder if dataset.folder.endswith(".parquet") else None
    below = dataset.folder.rpartition("/")[0] if only else dataset.folder
    files = [
        RemoteParquet(dataset.repository, pinned.revision, file.path, file.size, file.sha256)
        for file in files_below(pinned, below)
        if file.path.endswith(".parquet") and only in (None, file.path)
    ]
    if not files:
        place = f"at {only}" if only else f"in folder {below}" if below else "at all"
        remedy = f"Name a folder that has some: {FORM}; for many datasets "
        remedy += f"hf://datasets/{dataset.repository}@refs/convert/parquet has"
        raise CorpusError(f"{latest} has no parquet file {place}. {remedy}")
    return sorted(files, key=lambda file: file.path)


def download(file: RemoteParquet, folder: Path, progress: Progress | None = None) -> Path:
    """Download a file into `folder`, under its path in the repository.

    The download resumes where an earlier try ended. A try ends after GROUNDUP_NETWORK_TIMEOUT
    seconds (20) without data, and the download fails after five tries in a row without progress.
    The file gets its name only when its size and SHA-256 are right. Each wait before another try is
    reported.

    Args:
        file: The file to download.
        folder: The folder that the file goes to.
        progress: Is called with the number of bytes that were downloaded so far.

    Returns:
        Where the file is.

    Raises:
        CorpusError: The file can't be had, or isn't what it should be.
    """
    repository = Repository("datasets", file.repository, file.revision)
    listed = repository.file(file.path, file.size, sha256=file.sha256)
    return hub.download(repository, listed, folder / file.path, progress)
