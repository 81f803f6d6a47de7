"""HellaSwag's validation items (Zellers et al. 2019), to score models and not to learn from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.data.choice_items import Item, ItemsFile, open_file, read_json_lines
from groundup.hub.download import RemoteFile, cache_folder, fetch

TITLE = "HellaSwag"
OFFICIAL = RemoteFile(
    url="https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
    path="hellaswag/hellaswag_val.jsonl",
    size=12_246_618,
    sha256="0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
    instead="give another file of items, whose result isn't official: {} ITEMS.jsonl",
)


def open_items(file: Path | None, flag: str) -> ItemsFile:
    """Read a file's items, or the official ones, which are downloaded if the cache lacks them.

    Args:
        file: A file of items; None means the official one.
        flag: The flag by which a user names another file, for the error of a failed download.

    Raises:
        CorpusError: The file can't be had, or has a line that is no item.
    """
    path = fetch(replace(OFFICIAL, instead=OFFICIAL.instead.format(flag))) if file is None else file
    return open_file(path, read_items)


def is_official(file: ItemsFile) -> bool:
    """Whether a file is the one of the published figures, by its bytes."""
    return file.sha256 == OFFICIAL.sha256


def cached_items() -> Path:
    """Where the official file lies, if it is in the cache."""
    return cache_folder() / OFFICIAL.path


def read_items(path: Path) -> list[Item]:
    """Read a file of JSON lines with `ind`, `ctx`, `endings` and `label`.

    Raises:
        CorpusError: A line is no item; the error names file and line.
    """
    return read_json_lines(
        path,
        _item,
        task=TITLE,
        fields="ind, ctx, endings and label",
        remedy="Give the file hellaswag_val.jsonl",
    )


def _item(value: Any, _line: int) -> Item:
    return Item(
        number=value["ind"],
        context=value["ctx"],
        endings=tuple(value["endings"]),
        label=int(value["label"]),
        task=TITLE,
        activity=value.get("activity_label"),
        parts=(value["ctx_a"], value["ctx_b"]) if "ctx_a" in value and "ctx_b" in value else None,
    )
