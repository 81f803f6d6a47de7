"""HellaSwag's validation items (Zellers et al. 2019), as texts that shouldn't be among what a model learns from."""

import json
from dataclasses import dataclass
from pathlib import Path

from groundup.download import cache_folder
from groundup.errors import CorpusError


@dataclass(frozen=True)
class Item:
    """A context, the endings to choose from, and which of them is right: `label`."""

    number: int
    context: str
    endings: tuple[str, ...]
    label: int

    @property
    def text(self) -> str:
        """The context with its right ending, as a text would have it."""
        return f"{self.context} {self.endings[self.label]}"


def cached_items() -> Path:
    """Where the official file lies, if it is in the cache."""
    return cache_folder() / "hellaswag" / "hellaswag_val.jsonl"


def read_items(path: Path) -> list[Item]:
    """The items of a JSONL file with `ind`, `ctx`, `endings` and `label`. Raises CorpusError, naming file and line."""
    items = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    items.append(_item(line, f"{path}, line {number:,}"))
    except OSError as error:
        raise CorpusError(f"HellaSwag's items in {path} can't be read: {error.strerror}") from error
    if not items:
        raise CorpusError(f"{path} has no items of HellaSwag: it is empty. Give the file hellaswag_val.jsonl")
    return items


def _item(line: bytes, where: str) -> Item:
    try:
        value = json.loads(line)
        item = Item(value["ind"], value["ctx"], tuple(value["endings"]), int(value["label"]))
        sound = isinstance(item.number, int) and isinstance(item.context, str) and 0 <= item.label < len(item.endings)
        if not sound or not all(isinstance(ending, str) for ending in item.endings):
            raise TypeError("a field of another type")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(
            f"{where} is no item of HellaSwag ({type(error).__name__}: {error}): it should be JSON with ind, ctx, "
            "endings and label"
        ) from error
    return item
