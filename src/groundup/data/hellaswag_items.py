"""HellaSwag's validation items (Zellers et al. 2019): to score models, and to keep out of what they
learn from.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from groundup.errors import CorpusError
from groundup.hub.download import RemoteFile, cache_folder, fetch

Entry = TypeVar("Entry")

OFFICIAL = RemoteFile(
    url="https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
    path="hellaswag/hellaswag_val.jsonl",
    size=12_246_618,
    sha256="0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
    instead="give another file of items, whose result isn't official: {} ITEMS.jsonl",
)


@dataclass(frozen=True)
class Item:
    """A context, the endings to choose from, and which of them is right: `label`.

    number: the file's `ind`. activity: what the context is about, its `activity_label`. parts: the
    context's whole sentences and the beginning of the one to end, `ctx_a` and `ctx_b`. None where
    the file has none.
    """

    number: int
    context: str
    endings: tuple[str, ...]
    label: int
    activity: str | None = None
    parts: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        """The context with its right ending, as a text would have it."""
        return f"{self.context} {self.endings[self.label]}"


@dataclass(frozen=True)
class ItemsFile:
    """A file of items, as it was read. sha256: of the whole file."""

    path: Path
    sha256: str
    items: list[Item]

    @property
    def is_official(self) -> bool:
        """Whether it is the file of the published figures."""
        return self.sha256 == OFFICIAL.sha256


def spread(entries: Sequence[Entry], count: int | None) -> list[Entry]:
    """The middle entry of each of `count` equal parts, or all: the file has its sources one after
    the other.
    """
    if not count or count >= len(entries):
        return list(entries)
    return [entries[(2 * place + 1) * len(entries) // (2 * count)] for place in range(count)]


def open_items(file: Path | None, flag: str) -> ItemsFile:
    """A file's items; None means the official ones, downloaded if they aren't in the cache. Raises
    CorpusError.

    flag: by which a user names another file, for the error.
    """
    path = fetch(replace(OFFICIAL, instead=OFFICIAL.instead.format(flag))) if file is None else file
    items = read_items(path)
    return ItemsFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), items)


def cached_items() -> Path:
    """Where the official file lies, if it is in the cache."""
    return cache_folder() / OFFICIAL.path


def read_items(path: Path) -> list[Item]:
    """The items of a JSONL file with `ind`, `ctx`, `endings` and `label`. Raises CorpusError,
    naming file and line.
    """
    items = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    items.append(_item(line, f"{path}, line {number:,}"))
    except OSError as error:
        raise CorpusError(f"HellaSwag's items in {path} can't be read: {error.strerror}") from error
    if not items:
        raise CorpusError(
            f"{path} has no items of HellaSwag: it is empty. Give the file hellaswag_val.jsonl"
        )
    return items


def _item(line: bytes, where: str) -> Item:
    try:
        value = json.loads(line)
        parts = (value["ctx_a"], value["ctx_b"]) if "ctx_a" in value and "ctx_b" in value else None
        activity = value.get("activity_label")
        item = Item(
            value["ind"],
            value["ctx"],
            tuple(value["endings"]),
            int(value["label"]),
            activity,
            parts,
        )
        texts = [item.context, activity or "", *(parts or ()), *item.endings]
        sound = isinstance(item.number, int) and 0 <= item.label < len(item.endings)
        if not sound or not all(isinstance(text, str) for text in texts):
            raise TypeError("a field of another type")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(
            f"{where} is no item of HellaSwag ({type(error).__name__}: {error}): it should be "
            "JSON with ind, ctx, endings and label"
        ) from error
    return item
