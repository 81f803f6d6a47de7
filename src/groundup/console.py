"""What commands print: answers on stdout, as tables or JSON, and messages beside them.

Messages go through `logging`: a module says `logger.info(...)`, and `messages_to` decides where the
lines go. The command line writes them on stderr, so that a pipe gets the answer alone.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


def plain_console(kind: type[Console] = Console, **options: Any) -> Console:
    """Return a console that shows texts as they are: names from outside may look like markup."""
    return kind(highlight=False, markup=False, emoji=False, **options)


def wide_console(width: int = 400) -> Console:
    """Return a console for the terminal; for a pipe it breaks lines after `width` columns."""
    console = plain_console()
    return console if console.is_terminal else plain_console(width=width)


def plain_table(*left: str, right: tuple[str, ...] = ()) -> Table:
    """Return a table with columns of words, and after them columns of numbers."""
    table = Table(*left, box=SIMPLE, pad_edge=False)
    for column in right:
        table.add_column(column, justify="right")
    return table


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object, for a program to read."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def short_count(number: int) -> str:
    """Write a count as people say it: 803 thousand is 803K, 10.7 million is 10.7M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def duration(seconds: float) -> str:
    """Write a time as people say it: 12.3 s, 4 min 10 s, 3 h 20 min, 2 d 5 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for size, unit, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // small)} {smaller}"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def mebibytes(size: int) -> str:
    """Write a number of bytes as people say it: 1,234 MiB."""
    return f"{size / 2**20:,.0f} MiB"


def show_at_once(text: str) -> None:
    """Write a piece of a text on stdout, without a line's end, so that it is seen at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def report(text: str) -> None:
    """Write a line on stderr for the user, which isn't part of the result."""
    sys.stderr.write(f"{text}\n")


def show(result: Any, table: Table, as_json: bool) -> None:
    """Print a result: the dataclass as one line of JSON if `as_json` is set, else its table."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
    else:
        plain_console().print(table)


class _Lines(logging.Handler):
    """Hands each message on as a plain line of text."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))


@contextmanager
def messages_to(write: Callable[[str], None]) -> Iterator[None]:
    """Give the messages of groundup's loggers to `write` alone, as long as a `with` block runs.

    Args:
        write: Takes one message, without a line's end.
    """
    logger = logging.getLogger("groundup")
    before, level = logger.handlers, logger.level
    logger.handlers = [_Lines(write)]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers = before
        logger.setLevel(level)
