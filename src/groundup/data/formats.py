"""Decides for all of groundup what a file or folder is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.errors import CorpusError

NAMED = ("python-docs", "shakespeare")
INDEX = "index.json"  # of the shards that `groundup prepare` makes
COMPRESSED = (".gz", ".zst")
ROW_SUFFIXES = (".jsonl", ".ndjson")
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".tex", ".py", ".html")
TEXT_SUFFIXES += (".csv", ".json", ".xml", ".toml", ".yaml", ".log")

Kind = Literal[
    "named",  # a corpus that groundup knows by its name
    "shards",  # a folder with the index of `groundup prepare`
    "foreign shards",  # .bin files as nanoGPT and llm.c leave them
    "folder",  # any other folder
    "text",
    "rows",  # JSON lines
    "parquet",
    "other",  # a file whose name says none of these
    "missing",
]


@dataclass(frozen=True)
class Source:
    """What a name stands for: a corpus of that name, or the file or folder at `path`."""

    name: str
    path: Path
    kind: Kind

    @property
    def exists(self) -> bool:
        """Whether the corpus, file or folder that the name stands for exists."""
        return self.kind == "named" or self.path.exists()

    @property
    def has_shards(self) -> bool:
        """Whether the source is shards, of groundup or of other programs."""
        return self.kind in ("shards", "foreign shards")

    @property
    def is_compressed(self) -> bool:
        """Whether the file's name says that its content is compressed."""
        return self.path.suffix.lower() in COMPRESSED

    def files(self) -> list["Source"]:
        """List the files below the folder in the order of their paths, without hidden ones."""
        relative = {path: path.relative_to(self.path).parts for path in self.path.rglob("*")}
        return [
            Source(str(path), path, _kind_of_file(path))
            for path in sorted(relative, key=lambda path: relative[path])
            if path.is_file() and not any(part.startswith(".") for part in relative[path])
        ]


def recognise(name: str, folder: Path = Path()) -> Source:
    """Decide what a name stands for.

    Args:
        name: One of `NAMED`, or a path relative to the current folder or else to `folder`.
        folder: The folder to look in for paths that the current folder doesn't have.
    """
    path = Path(name).expanduser()
    path = path if path.exists() else folder / path
    return Source(name, path, "named" if name in NAMED else kind_of(path))


def kind_of(path: Path) -> Kind:
    """Decide what lies at a path; files are told apart by their names alone."""
    if (path / INDEX).is_file():
        return "shards"
    if path.suffix == ".bin" or split_files(path):
        return "foreign shards"
    if path.is_dir():
        return "folder"
    return _kind_of_file(path) if path.exists() else "missing"


def _kind_of_file(path: Path) -> Kind:
    """Judge by the last ending that isn't one of compression."""
    endings = [suffix for suffix in map(str.lower, path.suffixes) if suffix not in COMPRESSED]
    ending = endings[-1] if endings else ""
    if ending == ".parquet":
        return "parquet"
    if ending in ROW_SUFFIXES:
        return "rows"
    return "text" if ending in TEXT_SUFFIXES else "other"


def not_utf8(what: str, error: UnicodeDecodeError, remedy: str, offset: int = 0) -> CorpusError:
    """Make the error for bytes that aren't UTF-8; the decoded bytes began at `offset`."""
    byte, place = error.object[error.start], offset + error.start
    return CorpusError(f"{what} is not UTF-8: byte 0x{byte:02x} at offset {place:,}. {remedy}")


def split_files(folder: Path) -> list[Path]:
    """List the .bin files in a folder with `train` or `val` in their names, as nanoGPT has them."""
    files = sorted(folder.glob("*.bin"))
    return [file for file in files if "train" in file.name or "val" in file.name]
