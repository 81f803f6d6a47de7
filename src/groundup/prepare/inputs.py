"""Divides the source of a preparation into parts that can be read independently of each other."""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from groundup.data.corpora import load_corpus
from groundup.data.documents import Document, cut_of, documents_in, passages_of
from groundup.data.encodings import Reading
from groundup.data.formats import LONGEST_LINE, NAMED, Kind, Source, recognise
from groundup.errors import CorpusError
from groundup.prepare.hub_datasets import RemoteParquet, download, list_files, named_dataset

logger = logging.getLogger(__name__)

PART = 2**25  # bytes of a file that a part has, about
TEXT_PER_BYTE = 2  # of a parquet file
TEXT_OF_COMPRESSED = 4
CHANGED = "{} has changed since this preparation began: what is prepared already was another text."


@dataclass(frozen=True)
class Part:
    """A part of a source: a file, several small files, or a range of bytes or row groups of a file.

    Args:
        kind: One of `formats.READABLE`, remote (parquet on the hub) or named.
        files: One file, or several small files of the same kind.
        size: The approximate number of bytes of text.
        first: Where the part begins in its one file, in bytes or row groups.
        last: Where the part ends in that file; None reads to the end.
        facts: The size and the time of change of each file when the parts were planned.
        remote: The file on the hub, if the part is one.
    """

    kind: str
    files: tuple[str, ...]
    size: int
    first: int = 0
    last: int | None = None
    facts: tuple[tuple[int, int], ...] = ()
    remote: RemoteParquet | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Part":
        """Make a part from its fields as JSON has them."""
        remote = RemoteParquet(**values["remote"]) if values["remote"] else None
        facts = tuple(map(tuple, values["facts"]))
        return cls(**values | {"files": tuple(values["files"]), "facts": facts, "remote": remote})

    def check_unchanged(self) -> None:
        """Check that the files are what they were when the preparation began.

        Raises:
            CorpusError: A file has changed.
        """
        for name, fact in zip(self.files, self.facts, strict=False):
            if _fact(Path(name)) != fact:
                raise CorpusError(
                    f"{CHANGED.format(name)} Delete the output folder and prepare again"
                )


def read_documents(part: Part, reading: Reading, downloads: Path = Path()) -> Iterator[Document]:
    """Read the documents of a part in order, without empty ones.

    Args:
        part: The part.
        reading: How documents are read.
        downloads: The folder for files that are downloaded from the hub.

    Raises:
        CorpusError: A file has changed, is damaged, or isn't what its name says.
    """
    part.check_unchanged()
    for name in part.files:
        if part.kind == "named":
            text = io.BytesIO(load_corpus(name).text.encode())
            yield from passages_of(text.read, name, 0, reading)
            continue
        path, kind = name, part.kind
        if part.remote:
            path, kind = str(download(part.remote, downloads)), "parquet"
        yield from documents_in(path, cast(Kind, kind), reading, part.first, part.last)


def find_parts(source: str, column: str, sample: str = "", *, announce: bool = False) -> list[Part]:
    """Find the parts of a file, a folder, a named corpus or a dataset on the hub, in a fixed order.

    Args:
        source: A path or a name.
        column: The column of parquet files that holds the text.
        sample: The sample of FineWeb-Edu; empty takes the smallest.
        announce: Whether to warn of files in a folder that are left out.

    Raises:
        CorpusError: There is nothing to read, or the source has shards already.
    """
    dataset = named_dataset(source, sample or None)
    if dataset is not None:
        remote = list_files(dataset)
        return [Part("remote", (f.path,), TEXT_PER_BYTE * f.size, remote=f) for f in remote]
    found = recognise(source)
    if found.kind == "named":
        return [Part("named", (source,), size=2**20)]
    found = replace(found, path=found.path.absolute())  # a cluster's machines are in other folders
    if not found.exists:
        known = f"{', '.join(NAMED)}, fineweb-edu, openwebtext, hf://datasets/OWNER/NAME"
        what = f"source {source} is neither a file or folder nor a known corpus"
        raise CorpusError(f"{what}. Known: {known}")
    if found.has_shards:
        remedy = "train on it with --corpus, look at it with data check"
        raise CorpusError(f"source {source} has shards already: {remedy}")
    listing = found.listing()
    if announce and (left_out := listing.describe()):
        logger.warning("left out of %s: %s", source, left_out)
    files = listing.files
    parts = list(_parts_of(files, column))
    if sum(part.size for part in parts) == 0:
        raise CorpusError(f"source {source} is empty: {len(files)} files, 0 bytes")
    return parts


def _parts_of(files: list[Source], column: str) -> Iterator[Part]:
    """Large files in ranges, small ones of a kind together."""
    together: list[Path] = []
    kind_together, size = "", 0
    for file in files:
        kind = file.kind
        text = _fact(file.path)[0] * (TEXT_OF_COMPRESSED if file.is_compressed else 1)
        is_small = kind != "parquet" and text < PART
        if together and (not is_small or kind != kind_together or size + text > PART):
            yield _whole(kind_together, together, size)
            together, size = [], 0
        if is_small:
            together, kind_together, size = [*together, file.path], kind, size + text
        elif kind == "parquet":
            yield from _row_groups(file.path, column)
        elif file.is_compressed or kind not in ("text", "rows"):
            yield _whole(kind, [file.path], text)
        else:
            yield from _ranges(file.path, kind, text)
    if together:
        yield _whole(kind_together, together, size)


def _whole(kind: str, files: list[Path], size: int) -> Part:
    return Part(kind, tuple(map(str, files)), size, facts=tuple(map(_fact, files)))


def _ranges(path: Path, kind: str, size: int) -> Iterator[Part]:
    """A file cut about every PART bytes: between lines, or where paragraphs end."""
    facts, first = (_fact(path),), 0
    try:
        with path.open("rb") as file:
            while first < size:
                last = size
                if first + 2 * PART < size:
                    file.seek(first + PART)
                    last = first + PART + _distance_to_cut(file, kind)
                yield Part(kind, (str(path),), last - first, first, last, facts)
                first = last
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}") from error


def _distance_to_cut(file: BinaryIO, kind: str) -> int:
    """Bytes from where the file is to the next place where it can be cut."""
    if kind == "rows":
        return len(file.readline(LONGEST_LINE))  # a longer one is refused when it is read
    return cut_of(file.read(2**20), 0)


def _row_groups(path: Path, column: str) -> Iterator[Part]:
    """The row groups of a parquet file, as many together as make a part."""
    from groundup.data.columns import sizes_of_row_groups

    facts, first, size = (_fact(path),), 0, 0
    sizes = sizes_of_row_groups(path, Reading(column))
    for number, more in enumerate(sizes):
        size += more
        if size >= PART or number + 1 == len(sizes):
            yield Part("parquet", (str(path),), size, first, number + 1, facts)
            first, size = number + 1, 0


def _fact(path: Path) -> tuple[int, int]:
    """A file's size and the time of its last change."""
    try:
        stat = path.stat()
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}") from error
    return stat.st_size, stat.st_mtime_ns
