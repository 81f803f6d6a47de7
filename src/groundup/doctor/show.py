"""How every answer of this room is printed."""

import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: Any, table: Table, as_json: bool) -> None:
    """A dataclass as one JSON object on a line, or its table."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
    else:
        Console(highlight=False).print(table)
