"""Divides the source of a preparation into parts that can be read independently of each other."""

import io
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
        split: `train` or `validation` where the source says it; empty where digests decide.
    """

    kind: str
    files: tuple[str, ...]
    size: int
    first: int = 0
    last: int | None = None
    facts: tuple[tuple[int, int], ...] = ()
    remote: RemoteParquet | None = None
    split: str = ""

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


def find_parts(
    source: str,
    reading: Reading,
    sample: str = "",
    without: Path | None = None,
    *,
    announce: bool = False,
) -> list[Part]:
    """Find the parts of a file, a folder, a named corpus or a dataset on the hub, in a fixed order.

    Args:
        source: A path or a name.
        reading: How the documents are read.
        sample: The sample of FineWeb-Edu; empty takes the smallest.
        without: A file or folder that is left out of the source, if it is below it.
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
    listing = found.listing(without)
    if announce:
        listing.announce(source)
    files = listing.files
    parts = list(_parts_of(files, reading))
    if sum(part.size for part in parts) == 0:
        raise CorpusError(f"source {source} is empty: {len(files)} files, 0 bytes")
    return parts


def _parts_of(files: list[Source], reading: Reading) -> Iterator[Part]:
    """Large files in ranges, small ones of a kind together."""
    together: list[Source] = []
    size = 0
    for file in files:
        kind = file.kind
        text = _fact(file.path)[0] * (TEXT_OF_COMPRESSED if file.is_compressed else 1)
        is_small = kind != "parquet" and text < PART
        is_alike = together and (kind, file.split) == (together[0].kind, together[0].split)
        if together and (not is_small or not is_alike or size + text > PART):
            yield _whole(together, size)
            together, size = [], 0
        if is_small:
            together, size = [*together, file], size + text
        elif kind == "parquet":
            yield from _row_groups(file, reading)
        elif file.is_compressed or kind not in ("text", "rows") or reading.separator:
            yield _whole([file], text)
        else:
            yield from _ranges(file, text)
    if together:
        yield _whole(together, size)


def _whole(files: list[Source], size: int) -> Part:
    facts = tuple(_fact(file.path) for file in files)
    paths = tuple(str(file.path) for file in files)
    return Part(files[0].kind, paths, size, facts=facts, split=files[0].split)


def _ranges(source: Source, size: int) -> Iterator[Part]:
    """A file cut about every PART bytes: between lines, or where paragraphs end."""
    path, kind, first = source.path, source.kind, 0
    facts = (_fact(path),)
    try:
        with path.open("rb") as file:
            while first < size:
                last = size
                if first + 2 * PART < size:
                    file.seek(first + PART)
                    last = first + PART + _distance_to_cut(file, kind)
                place = (str(path),), last - first, first, last, facts
                yield Part(kind, *place, split=source.split)
                first = last
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}") from error


def _distance_to_cut(file: BinaryIO, kind: str) -> int:
    """Bytes from where the file is to the next place where it can be cut."""
    if kind == "rows":
        return len(file.readline(LONGEST_LINE))  # a longer one is refused when it is read
    return cut_of(file.read(2**20), 0)


def _row_groups(source: Source, reading: Reading) -> Iterator[Part]:
    """The row groups of a parquet file, as many together as make a part."""
    from groundup.data.columns import sizes_of_row_groups

    path, first, size = source.path, 0, 0
    facts = (_fact(path),)
    sizes = sizes_of_row_groups(path, reading)
    for number, more in enumerate(sizes):
        size += more
        if size >= PART or number + 1 == len(sizes):
            place = (str(path),), size, first, number + 1, facts
            yield Part("parquet", *place, split=source.split)
            first, size = number + 1, 0


def _fact(path: Path) -> tuple[int, int]:
    """A file's size and the time of its last change."""
    try:
        stat = path.stat()
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}") from error
    return stat.st_size, stat.st_mtime_ns
