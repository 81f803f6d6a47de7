"""JSON from anywhere: read without ever overflowing a stack, here or where it is shown, compared or written again."""

import json
from typing import Any

DEEPEST = 64  # the files of models and tokenizers nest less than ten levels


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, for values within more than 64 others too."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        if not (level := [inner for outer in level for inner in _inside(outer) if isinstance(inner, list | dict)]):
            return value
    raise ValueError(f"its values are nested more than {DEEPEST} levels deep")


def _inside(value: Any) -> Any:
    """What a list or an object holds; nothing else holds anything."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
