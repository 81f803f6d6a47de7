"""From what a user points at to the parts that one call each reads: ranges of files, row groups, remote files."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.data.corpora import NAMED, TEXT_SUFFIXES
from groundup.data.remote import RemoteParquet, list_files, named_dataset
from groundup.errors import CorpusError

PART = 2**25  # bytes of a file that a part has, about
PASSAGE = 2**13  # bytes of a text file that make a document, at least; a passage ends where a paragraph does
TEXT_PER_BYTE = 2  # of a parquet file
COMPRESSED = (".gz", ".zst")
ROW_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Part:
    """What one call reads. kind: text, rows (JSON lines), parquet, remote (parquet on the hub) or named.

    files: one, or several small texts. first, last: the range of bytes or of row groups of one file.
    size: in bytes of text, about. facts: what the files were when the parts were planned.
    """

    kind: str
    files: tuple[str, ...]
    size: int
    first: int = 0
    last: int | None = None
    facts: tuple[tuple[int, int], ...] = ()
    remote: RemoteParquet | None = None

    def to_json(self) -> dict[str, Any]:
        """As a dictionary of what JSON knows."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Part":
        """What `to_json` wrote."""
        remote = RemoteParquet(**values["remote"]) if values["remote"] else None
        facts = tuple(map(tuple, values["facts"]))
        return cls(**values | {"files": tuple(values["files"]), "facts": facts, "remote": remote})

    def check_unchanged(self) -> None:
        """Raises CorpusError if a file isn't what it was when the preparation began."""
        for name, fact in zip(self.files, self.facts, strict=False):
            if _fact(Path(name)) != fact:
                raise CorpusError(
                    f"{name} has changed since this preparation began: what is prepared already was another text. "
                    "Delete the output folder and prepare again"
                )


def find_parts(source: str, column: str, sample: str = "", notice: Callable[[str], None] | None = None) -> list[Part]:
    """The parts of a file, a folder or a named corpus, in a fixed order. Raises CorpusError.

    column: of parquet files. sample: of FineWeb-Edu. notice: is told when the hub has to be asked again.
    """
    dataset = named_dataset(source, sample or None)
    if dataset is not None:
        found = list_files(dataset, notice)
        return [Part("remote", (file.path,), TEXT_PER_BYTE * file.size, remote=file) for file in found]
    if source in NAMED:
        return [Part("named", (source,), size=2**20)]
    path = Path(source).expanduser().absolute()  # machines of a cluster are in other folders
    if not path.exists():
        raise CorpusError(
            f"source {source} is neither a file or folder nor a known corpus. Known: {', '.join(NAMED)}, fineweb-edu, "
            "openwebtext, hf://datasets/OWNER/NAME"
        )
    files = [path] if path.is_file() else _files_in(path)
    parts = list(_parts_of(files, column))
    if sum(part.size for part in parts) == 0:
        raise CorpusError(f"source {source} is empty: {len(files)} files, 0 bytes")
    return parts


def kind_of(path: Path) -> str | None:
    """How a file is read, by its name; None for one that isn't."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")
    if suffix == ".parquet":
        return "parquet"
    if suffix in ROW_SUFFIXES:
        return "rows"
    return "text" if suffix in TEXT_SUFFIXES else None


def _files_in(folder: Path) -> list[Path]:
    """The files below a folder that can be read, in the order of their paths; hidden ones are left out."""
    found = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
    files = [
        path
        for path in found
        if kind_of(path) and path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        looked = " ".join((*TEXT_SUFFIXES, *ROW_SUFFIXES, ".parquet"))
        raise CorpusError(f"folder {folder} holds nothing to read. Looked for: {looked}, and {' '.join(COMPRESSED)}")
    return files


def _parts_of(files: list[Path], column: str) -> Iterator[Part]:
    """Large files in ranges, small texts together."""
    together: list[Path] = []
    size = 0
    for path in files:
        small = kind_of(path) in {"text", None} and not _is_compressed(path) and _fact(path)[0] < PART
        if small:
            together.append(path)
            size += _fact(path)[0]
        if together and (not small or size >= PART or len(together) == 1000):
            yield _texts(together)
            together, size = [], 0
        if not small:
            yield from _parts_of_file(path, column)
    if together:
        yield _texts(together)


def _parts_of_file(path: Path, column: str) -> Iterator[Part]:
    """A file's own parts; one of an unknown name is read as text, a compressed one from beginning to end."""
    kind, fact = kind_of(path) or "text", _fact(path)
    if kind == "parquet":
        yield from _row_groups(path, column)
    elif _is_compressed(path):
        yield Part(kind, (str(path),), 4 * fact[0], facts=(fact,))
    else:
        yield from _ranges(path, kind, fact[0])


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSED


def _texts(files: list[Path]) -> Part:
    facts = tuple(map(_fact, files))
    return Part("text", tuple(map(str, files)), sum(size for size, _ in facts), facts=facts)


def _ranges(path: Path, kind: str, size: int) -> Iterator[Part]:
    """A file cut about every PART bytes: between lines, or where paragraphs end."""
    facts = (_fact(path),)
    first = 0
    with path.open("rb") as file:
        while first < size:
            last = size
            if first + 2 * PART < size:
                file.seek(first + PART)
                last = first + PART + _distance_to_cut(file, kind)
            yield Part(kind, (str(path),), last - first, first, last, facts)
            first = last


def _distance_to_cut(file: Any, kind: str) -> int:
    """Bytes from where the file is to the next place where it can be cut."""
    if kind == "rows":
        return len(file.readline())
    start = file.read(2**20)
    return cut_of(start, 0)


def cut_of(text: bytes, least: int) -> int:
    """Where a text can be cut, from `least` bytes on: after a paragraph, a line, a word, or just between characters."""
    for sign in (b"\n\n", b"\n", b" "):
        if (place := text.find(sign, least)) >= 0:
            return place + len(sign)
    end = min(least, len(text))
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    return end


def _row_groups(path: Path, column: str) -> Iterator[Part]:
    """The row groups of a parquet file, as many together as make a part. Raises CorpusError."""
    from groundup.data.parquet import sizes_of_row_groups

    facts, first, size = (_fact(path),), 0, 0
    sizes = sizes_of_row_groups(path, column)
    for number, more in enumerate(sizes):
        size += more
        if size >= PART or number + 1 == len(sizes):
            yield Part("parquet", (str(path),), size, first, number + 1, facts)
            first, size = number + 1, 0


def _fact(path: Path) -> tuple[int, int]:
    """A file's size and the time of its last change. Raises CorpusError."""
    try:
        stat = path.stat()
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}") from error
    return stat.st_size, stat.st_mtime_ns
