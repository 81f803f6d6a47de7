"""Items of multiple-choice tasks: a context and endings to choose from, read from JSON lines."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from groundup.errors import CorpusError
from groundup.files import file_digest

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Item:
    """A context, the endings to choose from, and the index of the right ending.

    Args:
        number: The number that identifies the item in its file.
        context: The text that every ending continues.
        endings: The texts to choose from.
        label: The index of the right ending, from 0.
        task: The title of the task that the item belongs to, for error messages.
        activity: What the context is about, where the file says it (HellaSwag's `activity_label`).
        parts: The context's complete sentences and the beginning of its unfinished last sentence,
            where the file separates the two (HellaSwag's `ctx_a` and `ctx_b`).
    """

    number: int
    context: str
    endings: tuple[str, ...]
    label: int
    task: str
    activity: str | None = None
    parts: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        """The context and the right ending, joined by a space."""
        return f"{self.context} {self.endings[self.label]}"

    @property
    def name(self) -> str:
        """What error messages call the item."""
        return f"item {self.number} of {self.task}"


@dataclass(frozen=True)
class ItemsFile:
    """A file of items that was read.

    Args:
        path: Where the file lies.
        sha256: The SHA-256 of the whole file.
        items: The items, in the order of the file.
    """

    path: Path
    sha256: str
    items: list[Item]


def open_file(path: Path, read: Callable[[Path], list[Item]]) -> ItemsFile:
    """Read a file of items with `read`, and take its fingerprint.

    Raises:
        CorpusError: The file can't be read, or has a line that is no item.
    """
    items = read(path)
    return ItemsFile(path, file_digest(path), items)


def read_json_lines(
    path: Path, parse: Callable[[Any, int], Item], *, task: str, fields: str, remedy: str
) -> list[Item]:
    """Read the items of a file of JSON lines; empty lines are left out.

    Args:
        path: The file.
        parse: Takes the JSON value of a line and the line's number, from 1, and returns the item.
            ValueError, KeyError and TypeError mean that the line is no item.
        task: The title of the task, for error messages.
        fields: What each line should have, in words.
        remedy: What to do about a file without items.

    Raises:
        CorpusError: The file can't be read or has no items, or a line is no item; the error names
            the line.
    """
    items = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    items += [_checked(parse(json.loads(line), number))] if line.strip() else []
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    where, why = f"{path}, line {number:,}", f"{type(error).__name__}: {error}"
                    what = f"is no item of {task} ({why}): it should be JSON with {fields}"
                    raise CorpusError(f"{where} {what}") from error
    except OSError as error:
        what = f"{possessive(task)} items in {path}"
        raise CorpusError(f"{what} can't be read: {error.strerror}") from error
    if not items:
        raise CorpusError(f"{path} has no items of {task}: it is empty. {remedy}")
    return items


def _checked(item: Item) -> Item:
    texts = [item.context, item.activity or "", *(item.parts or ()), *item.endings]
    sound = isinstance(item.number, int) and 0 <= item.label < len(item.endings)
    if not sound or not all(isinstance(text, str) for text in texts):
        raise TypeError("a field of another type")
    return item


def possessive(title: str) -> str:
    """Return the possessive form of a title, such as HellaSwag's or choices'."""
    return title + ("'" if title.endswith("s") else "'s")


def spread(entries: Sequence[Entry], count: int | None) -> list[Entry]:
    """Choose the middle entry of each of `count` equal parts, or all entries for 0 and None.

    A file may hold one source after the other; then the first entries would all be of one source.
    """
    if not count or count >= len(entries):
        return list(entries)
    return [entries[(2 * place + 1) * len(entries) // (2 * count)] for place in range(count)]
