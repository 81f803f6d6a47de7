"""The task `choices`: multiple-choice items of the user's own, one JSON object per line."""

from pathlib import Path
from typing import Any, ClassVar

from groundup.data.choice_items import Item, ItemsFile, open_file, read_json_lines
from groundup.errors import EvaluationError
from groundup.evaluation.multiple_choice import MultipleChoice
from groundup.evaluation.requests import COMPLETION
from groundup.evaluation.task import Settings


class Choices(MultipleChoice):
    """The task of choosing the right ending of each context, on items of the user's own.

    An item has a `context`, two or more `endings`, and as `label` the index of the right ending,
    from 0. A space joins the context and an ending. An item's number is the number of its line.
    """

    name: ClassVar = "choices"
    flags: ClassVar = ("file", "per-item")
    conventions: ClassVar = {"completion": COMPLETION}

    @classmethod
    def read(cls, settings: Settings) -> ItemsFile:
        """Read the file of items that the settings name.

        Raises:
            CorpusError: The file can't be read, or a line is no item.
            EvaluationError: The settings name no file.
        """
        if settings.file is None:
            raise EvaluationError(f"the task choices needs items: {settings.flag} ITEMS.jsonl")
        return open_file(settings.file, read_items)


def read_items(path: Path) -> list[Item]:
    """Read items from a file of JSON lines with `context`, `endings` and `label`.

    Raises:
        CorpusError: A line is no item; the error names file and line.
    """
    fields = "context, endings (2 or more) and label"
    remedy = 'Give lines like {"context": "1 + 1 is", "endings": ["2", "3"], "label": 0}'
    return read_json_lines(path, _item, task="choices", fields=fields, remedy=remedy)


def _item(value: Any, line: int) -> Item:
    endings = value["endings"]
    if not isinstance(endings, list) or len(endings) < 2:
        raise ValueError("endings must be a list of 2 or more texts")
    label = value["label"]
    if not isinstance(label, int) or isinstance(label, bool):
        raise TypeError("label must be a whole number")
    return Item(line, value["context"], tuple(endings), label, task="choices")
