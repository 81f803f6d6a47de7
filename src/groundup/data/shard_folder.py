"""A folder of shards from `groundup prepare`, or of .bin files from nanoGPT or llm.c."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.data.formats import FORMAT, INDEX, kind_of, split_files, split_of
from groundup.data.shard_file import Shard, open_shard
from groundup.data.splits import SPLITS, Tokens, check_range
from groundup.errors import CorpusError
from groundup.files import read_json

VERSION = 1
TOKENIZER_FOLDER = "tokenizer"
# tokens: a corpus up to this size is verified at opening, a larger one as it is read
READ_WHOLE = 2**27


@dataclass(frozen=True)
class ShardFolder:
    """The open shards of a folder.

    Args:
        path: The folder.
        shards: The shards of `train` and those of `validation`.
        index: What `index.json` says; empty for shards of other programs.
    """

    path: Path
    shards: dict[str, list[Shard]]
    index: dict[str, Any] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Path | None:
        """The folder with the tokenizer that made the shards; None where that isn't known."""
        return self.path / TOKENIZER_FOLDER if self.index else None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 in the index, or else one of the files' names, sizes and sampled tokens."""
        return self.index["fingerprint"] if self.index else _fingerprint_of_parts(self.all_shards())

    def all_shards(self) -> list[Shard]:
        """Give the shards of both splits."""
        return [shard for split in SPLITS for shard in self.shards[split]]

    def tokens(self, split: str, vocab_size: int) -> Tokens:
        """Give the tokens of a split, checked for a model of `vocab_size` tokens.

        A corpus of up to 2^27 tokens is read whole and verified. Of a larger one only the headers
        are checked; each window is checked when it is read.

        Raises:
            CorpusError: A shard is damaged, or has a token that the vocabulary lacks.
        """
        shards = self.shards[split]
        is_small = sum(len(shard.tokens) for shard in self.all_shards()) <= READ_WHOLE
        for shard in shards:
            if (shard.largest or 0) >= vocab_size:
                check_range(shard.tokens, str(shard.path), vocab_size)
            if is_small:
                shard.verify()
                check_range(shard.tokens, str(shard.path), vocab_size)
        names = tuple(str(shard.path) for shard in shards)
        limit = None if is_small else vocab_size
        return Tokens(tuple(shard.tokens for shard in shards), names, limit)


def open_folder(path: Path) -> ShardFolder:
    """Open the shards in a folder, without reading their tokens.

    Raises:
        CorpusError: There are no shards, or the index and the headers contradict each other.
    """
    if kind_of(path) != "shards":
        return _open_foreign(path)
    index = read_index(path / INDEX)
    maker = index["tokenizer"]["sha256"]
    listed = {split: index["splits"][split]["shards"] for split in SPLITS}
    shards = {s: [_open_listed(path, entry, maker) for entry in listed[s]] for s in SPLITS}
    return ShardFolder(path, shards, index)


def read_index(path: Path) -> dict[str, Any]:
    """Read an `index.json`, and check that it has the fields that training needs.

    Raises:
        CorpusError: The file is damaged, or of another version.
    """
    try:
        index = read_json(path)
        found = index["format"], index["version"]
        listed = [index["splits"][split] for split in SPLITS]
        assert all(type(split[key]) is int for split in listed for key in ("tokens", "bytes"))
        shards = [entry for split in listed for entry in split["shards"]]
        assert all({"file", "tokens", "sha256"} <= entry.keys() for entry in shards)
        assert isinstance(index["fingerprint"], str)
        assert {"name", "sha256"} <= index["tokenizer"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise damaged(path, error) from error
    if found != (FORMAT, VERSION):
        reads = f"this groundup reads {FORMAT}, version {VERSION}"
        raise CorpusError(f"{path} says {found[0]}, version {found[1]}; {reads}")
    return index


def damaged(what: Path | str, error: Exception) -> CorpusError:
    """Make the error for a part of an index that is missing or damaged."""
    return CorpusError(f"{what} is damaged: {type(error).__name__} {error}. Prepare it again")


def _open_listed(folder: Path, entry: dict[str, Any], maker: str) -> Shard:
    """A shard that the index lists, made by the tokenizer that the index states."""
    shard = open_shard(folder / entry["file"])
    what, listed = f"shard {shard.path}", f"but {INDEX} lists {entry['tokens']:,}"
    if shard.sha256 is None:
        has = f"{shard.path.stat().st_size:,} bytes and no header of a shard"
        remedy = "it is cut off or damaged. Prepare it again"
        raise CorpusError(f"{what} has {has}, {listed} tokens: {remedy}")
    other = "it belongs to another corpus"
    if (len(shard.tokens), shard.sha256) != (entry["tokens"], entry["sha256"]):
        has = f"{len(shard.tokens):,} tokens with SHA-256 {shard.sha256[:12]}..."
        raise CorpusError(f"{what} has {has}, {listed} with {entry['sha256'][:12]}...: {other}")
    if shard.tokenizer != maker:
        made_by = f"the tokenizer {str(shard.tokenizer)[:12]}..."
        stated = f"{INDEX} states {maker[:12]}..."
        raise CorpusError(f"{what} was made by {made_by}, but {stated}: {other}")
    return shard


def _open_foreign(path: Path) -> ShardFolder:
    """Any number of files named for a split, such as `train.bin` and `val.bin`."""
    if not path.exists():
        remedy = "Make shards with: groundup prepare SOURCE --out FOLDER"
        raise CorpusError(f"{path} isn't there. {remedy}")
    files = split_files(path) if path.is_dir() else [path]
    validation = [file for file in files if split_of(Path(file.name)) == "validation"]
    training = [file for file in files if file not in validation]
    if not training or not validation:
        has = f"{len(training)} shards for training and {len(validation)} for validation"
        remedy = "both are needed: give the folder that has them"
        raise CorpusError(f"{path} has {has} (those with `val` in their name), but {remedy}")
    splits = zip(SPLITS, (training, validation), strict=True)
    return ShardFolder(path, {split: list(map(open_shard, files)) for split, files in splits})


def _fingerprint_of_parts(shards: list[Shard], parts: int = 64, part: int = 2**14) -> str:
    """Of files that state no SHA-256: each whole up to parts * part tokens, else spread parts."""
    digest = hashlib.sha256()
    for shard in shards:
        size = len(shard.tokens)
        digest.update(f"{shard.path.name} {size} {shard.tokens.dtype.itemsize}\n".encode())
        if size <= parts * part:
            digest.update(shard.tokens.tobytes())
        else:
            for number in range(parts):
                first = number * (size - part) // (parts - 1)
                digest.update(shard.tokens[first : first + part].tobytes())
    return digest.hexdigest()
