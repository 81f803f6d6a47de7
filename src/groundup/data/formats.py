"""Decides for all of groundup what a file or folder is, and which files of a folder are read."""

import codecs
import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from groundup.data.compressed import COMPRESSED, opened
from groundup.errors import CorpusError, GroundupError
from groundup.files import HERE, is_there, located

NAMED = ("python-docs", "shakespeare")
INDEX = "index.json"  # of the shards that `groundup prepare` makes
FORMAT = "groundup shards"  # what such an index says

logger = logging.getLogger(__name__)

Kind = Literal[
    "named",  # a corpus that groundup knows by its name
    "shards",  # a folder with the index of `groundup prepare`
    "foreign shards",  # .bin files as nanoGPT and llm.c leave them
    "folder",  # any other folder
    "text",
    "rows",  # JSON lines
    "records",  # a JSON array of objects
    "table",  # CSV
    "parquet",
    "arrow",
    "json",  # a JSON file that is neither rows nor records
    "notebook",
    "other",  # a file whose name says none of these
    "missing",
]
READABLE = ("text", "rows", "records", "table", "parquet", "arrow")
COLUMNAR = READABLE[1:]
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "text": (".txt", ".md", ".rst", ".tex", ".py", ".html", ".xml", ".toml", ".yaml", ".log"),
    "rows": (".jsonl", ".ndjson"),
    "json": (".json",),  # or rows, or records
    "table": (".csv", ".tsv"),
    "parquet": (".parquet",),
    "arrow": (".arrow",),
    "notebook": (".ipynb",),
}
LONGEST_LINE = 2**27  # bytes of JSON
HEAD = 2**10  # bytes of a line that tell JSON lines from arrays
OF_MODELS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
OF_MODELS += ("adapter_config.json", "tokenizer.json")
SPLIT_WORDS = {"train": "train", "training": "train", "test": "test"}
SPLIT_WORDS |= dict.fromkeys(("val", "valid", "validation", "dev"), "validation")


@dataclass
class Listing:
    """The files below a folder that are read, and what is left out and why.

    Args:
        files: The files in the order of their paths.
        left_out: The paths that are left out, by the reason; those of a folder stand for all in it.
        hints: What the names of the files say of their splits, in words.
    """

    files: list["Source"] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)

    def leave(self, path: Path, why: str) -> None:
        """Leave a path out for a reason, as in `3 files that aren't text`."""
        self.left_out.setdefault(why, []).append(path)

    def split_by_names(self, top: Path) -> None:
        """Keep validation files apart where names say train, and valid, val, dev or test.

        Test files are for validation where no others are, and left out otherwise. A name's words
        count, and the names of folders, the nearest first.
        """
        splits = {file.path: split_of(file.path.relative_to(top)) for file in self.files}
        found = set(splits.values())
        held_out = next((split for split in ("validation", "test") if split in found), "")
        if not held_out:
            return
        named = [path for path, split in splits.items() if split == held_out]
        listed = shown([str(path.relative_to(top)) for path in named])
        if "train" not in found:
            said = f"{listed} sounds like {held_out}, but nothing else says train: all is pooled"
            self.hints.append(
                f"{said}. To hold it out: --data.validation-corpus, in prepare --validation-corpus"
            )
            return
        self.hints.append(f"for validation, by its name: {listed}")
        for file in self.files:
            if splits[file.path] == "test" != held_out:
                self.leave(file.path.relative_to(top), "test files, by their names")
        kept = [file for file in self.files if splits[file.path] in ("", "train", held_out)]
        roles = {held_out: "validation"}
        self.files = [replace(file, split=roles.get(splits[file.path], "train")) for file in kept]

    def announce(self, name: str) -> None:
        """Warn of what is left out of a source, and say what the names of its files decide."""
        if left_out := self.describe():
            logger.warning("left out of %s: %s", name, left_out)
        for hint in self.hints:
            logger.warning("%s: %s", name, hint)

    def describe(self) -> str:
        """Say what is left out, in a line; empty if that is nothing."""
        said = []
        for why, paths in self.left_out.items():
            endings = Counter(path.suffix or path.name for path in paths)
            names = [f"{count:,} {suffix}" for suffix, count in endings.most_common()]
            names = names if why == NOT_TEXT else list(map(str, paths))
            said.append(f"{len(paths):,} {why} ({shown(names)})")
        return "; ".join(said)


NOT_TEXT = "files that aren't text"


def shown(names: list[str], most: int = 5) -> str:
    """Join the first few of some names."""
    return ", ".join(names[:most] + ["..."] * (len(names) > most))


@dataclass(frozen=True)
class Source:
    """What a name stands for: a corpus of that name, or the file or folder at `path`."""

    name: str
    path: Path
    kind: Kind
    split: str = ""  # train or validation, where names say it

    @property
    def exists(self) -> bool:
        """Whether the corpus, file or folder that the name stands for exists."""
        return self.kind not in ("missing", "foreign shards") or is_there(self.path)

    @property
    def has_shards(self) -> bool:
        """Whether the source is shards, of groundup or of other programs."""
        return self.kind in ("shards", "foreign shards")

    @property
    def is_compressed(self) -> bool:
        """Whether the file's name says that its content is compressed."""
        return self.path.suffix.lower() in COMPRESSED

    def listing(self, without: Path | None = None) -> Listing:
        """List the files below the folder, or the file itself, whose kind is then readable.

        Hidden files and folders, links to folders, shards, runs and models are left out, and files
        that hold no text.

        Args:
            without: A file or folder that is left out.

        Raises:
            CorpusError: Nothing can be read.
        """
        if self.kind != "folder":
            # a single file of any name is read as text
            kind: Kind = self.kind if self.kind in READABLE else "text"
            if self.kind in CONVERTED:
                raise CorpusError(f"{self.path} is {CONVERTED[self.kind]}")
            return Listing([Source(self.name, self.path, kind)])
        found = Listing()
        _list(self.path, self.path, found)
        found.files.sort(key=lambda file: file.path.relative_to(self.path).parts)
        if without is not None:
            apart = without.expanduser().resolve()
            below = [file for file in found.files if file.path.resolve().is_relative_to(apart)]
            for file in below:
                found.leave(file.path.relative_to(self.path), "files of the validation corpus")
            found.files = [file for file in found.files if file not in below]
        found.split_by_names(self.path)
        if not found.files:
            endings = [ending for kind in SUFFIXES for ending in SUFFIXES[kind]]
            looked = " ".join((*endings[:-1], "and", *COMPRESSED))
            others = f". Left out: {found.describe()}" if found.left_out else ""
            what = f"folder {self.path} holds no text file"
            raise CorpusError(f"{what}. Looked for: {looked}{others}")
        return found


CONVERTED = {
    "notebook": "a notebook. Convert it, for example with: jupyter nbconvert --to markdown FILE",
    "json": (
        "one JSON value, and neither an array of objects nor JSON lines. Convert its records to "
        "lines, for example with: jq -c '.PLACE[]', or name it .txt to learn it as it is"
    ),
}


def _list(top: Path, folder: Path, found: Listing) -> None:
    """Add what is in a folder, folder after folder."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        if folder == top:
            raise CorpusError(f"folder {top} can't be read: {error.strerror}") from error
        found.leave(folder.relative_to(top), f"unreadable folders, {error.strerror}")
        return
    for path in entries:
        name = path.relative_to(top)
        try:
            mode = path.stat().st_mode
        except OSError:
            found.leave(name, "links to nothing" if path.is_symlink() else "unreadable files")
            continue
        if path.name.startswith("."):
            found.leave(name, "hidden ones")
        elif stat.S_ISDIR(mode):
            if why := _why_not_descended(path):
                found.leave(name, why)
            else:
                _list(top, path, found)
        elif not stat.S_ISREG(mode):
            found.leave(name, NOT_TEXT)
        elif not os.access(path, os.R_OK):
            found.leave(name, "unreadable files")
        elif (kind := _kind_of_file(path)) in READABLE:
            found.files.append(Source(str(path), path, kind))
        else:
            without = {"json": "JSON files without records", "notebook": "notebooks"}
            found.leave(name, without.get(kind, NOT_TEXT))


def _why_not_descended(folder: Path) -> str:
    """What a folder is that holds no corpus; empty for any other folder."""
    if folder.is_symlink():
        return "links to folders"
    if kind_of(folder) != "folder" or (folder / ".work" / "plan.json").exists():
        return "folders of shards"
    if (folder / "run.json").exists() and (folder / "recipe.toml").exists():
        return "runs"
    return "model folders" if any((folder / name).exists() for name in OF_MODELS) else ""


def recognise(name: str, folders: Sequence[Path] = HERE) -> Source:
    """Decide what a name stands for.

    Args:
        name: One of `NAMED`, or a path.
        folders: The folders that a relative path may be relative to; the first that has it counts.
    """
    path = located(name, folders)
    return Source(name, path, "named" if name in NAMED else kind_of(path))


def kind_of(path: Path) -> Kind:
    """Decide what lies at a path; files are told apart by their names, JSON by its beginning."""
    if path.suffix == ".bin":
        return "foreign shards"
    if not is_there(path):
        return "missing"
    if not path.is_dir():
        return _kind_of_file(path)
    if _has_index(path):
        return "shards"
    return "foreign shards" if split_files(path) else "folder"


def _has_index(folder: Path) -> bool:
    """Whether a folder's index.json is that of shards, if only by the shards beside it."""
    try:
        with (folder / INDEX).open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(2**10) or bool(split_files(folder))
    except OSError:
        return False


def _kind_of_file(path: Path) -> Kind:
    """Judge by the last ending that isn't one of compression."""
    endings = [suffix for suffix in map(str.lower, path.suffixes) if suffix not in COMPRESSED]
    ending = endings[-1] if endings else ""
    found: list[Kind] = [kind for kind, endings in SUFFIXES.items() if ending in endings]
    if not found:
        return "other"
    return _kind_of_json(path) if found == ["json"] else found[0]


def _kind_of_json(path: Path) -> Kind:
    """Tell JSON lines and arrays of objects from other JSON by the file's first two lines."""
    try:
        with opened(path) as file:
            lines = (line.strip() for line in iter(lambda: file.readline(LONGEST_LINE), b""))
            filled = (line[:HEAD].removeprefix(codecs.BOM_UTF8) for line in lines if line)
            first, second = next(filled, b""), next(filled, b"")
    except GroundupError:  # what is wrong with it is said when it is read
        return "rows"
    if (first + second).replace(b" ", b"").startswith(b"[{"):
        return "records"
    return "rows" if first[:1] == second[:1] == b"{" else "json"


def split_files(folder: Path) -> list[Path]:
    """List the .bin files in a folder whose names have the word `train` or `val`, as nanoGPT's."""
    files = sorted(folder.glob("*.bin"))
    return [file for file in files if split_of(Path(file.name)) in ("train", "validation")]


def split_of(path: Path) -> str:
    """Give the split that a name says: train, validation or test; empty if none does.

    The words of the file's name count, and the names of its folders, the nearest first.
    """
    words = [*re.split("[^a-z]+", path.stem.lower()), *map(str.lower, path.parts[-2::-1])]
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")
