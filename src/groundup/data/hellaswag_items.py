"""HellaSwag's validation items (Zellers et al. 2019) and their preprocessing.

The items are for scoring models, not for training them.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.data.choice_items import Item, ItemsFile, open_file, read_json_lines
from groundup.hub.cache import cache_folder, fetch
from groundup.hub.download import RemoteFile

TITLE = "HellaSwag"
URL = "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl"
SHA256 = "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588"
INSTEAD = "give another file of items, whose result isn't official: {} ITEMS.jsonl"
OFFICIAL = RemoteFile(URL, "hellaswag/hellaswag_val.jsonl", 12_246_618, SHA256, INSTEAD)


def open_items(file: Path | None, flag: str) -> ItemsFile:
    """Read a file's items, or the official ones, which are downloaded if the cache lacks them.

    Args:
        file: A file of items; None means the official one.
        flag: The flag by which a user names another file, for the error of a failed download.

    Raises:
        CorpusError: The file can't be had, or has a line that is no item.
    """
    path = fetch(replace(OFFICIAL, instead=INSTEAD.format(flag))) if file is None else file
    return open_file(path, read_items)


def is_official(file: ItemsFile) -> bool:
    """Tell by the SHA-256 whether a file is the one that published accuracies are measured on."""
    return file.sha256 == OFFICIAL.sha256


def cached_items() -> Path:
    """Return the path that the official file has in the cache, even if the cache lacks the file."""
    return cache_folder() / OFFICIAL.path


def read_items(path: Path) -> list[Item]:
    """Read a file of JSON lines with `ind`, `ctx`, `endings` and `label`.

    Raises:
        CorpusError: A line is no item; the error names file and line.
    """
    fields, remedy = "ind, ctx, endings and label", "Give the file hellaswag_val.jsonl"
    return read_json_lines(path, _item, task=TITLE, fields=fields, remedy=remedy)


def _item(value: Any, _line: int) -> Item:
    number, context, endings = value["ind"], value["ctx"], tuple(value["endings"])
    label, activity = int(value["label"]), value.get("activity_label")
    has_parts = "ctx_a" in value and "ctx_b" in value
    parts = (value["ctx_a"], value["ctx_b"]) if has_parts else None
    return Item(number, context, endings, label, TITLE, activity=activity, parts=parts)


def preprocessed(item: Item) -> tuple[str, list[str]]:
    """Prepare the texts of an item's context and endings as lm-evaluation-harness 0.4 does.

    The context begins with the activity, and its unfinished sentence with a capital letter. Marks
    in brackets, which come from WikiHow, are removed. Where the file has no `ctx_a` and `ctx_b`,
    `ctx` is used instead.
    """
    context = item.context
    if item.parts is not None:
        context = f"{item.parts[0]} {item.parts[1].capitalize()}"
    return cleaned(f"{item.activity}: {context}"), [cleaned(ending) for ending in item.endings]


def cleaned(text: str) -> str:
    """Replace the mark [title] by a full stop, and remove all other marks in brackets."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")
