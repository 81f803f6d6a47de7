"""What every answer is printed with: a console as wide as its lines, tables without lines, or one
JSON object.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


def wide_console() -> Console:
    """The terminal as it is; a pipe gets lines as long as they need to be."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=400)


def plain_table(*left: str, right: tuple[str, ...] = ()) -> Table:
    """A table with columns of words, and after them columns of numbers."""
    table = Table(*left, box=SIMPLE, pad_edge=False)
    for column in right:
        table.add_column(column, justify="right")
    return table


def print_json(result: dict[str, Any]) -> None:
    """One object, for a program to read."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def report(text: str) -> None:
    """A line for the user that isn't part of the result."""
    sys.stderr.write(f"{text}\n")


def show(result: Any, table: Table, as_json: bool) -> None:
    """A dataclass as one JSON object on a line, or its table."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
    else:
        Console(highlight=False).print(table)
