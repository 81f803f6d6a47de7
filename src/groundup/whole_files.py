"""A small file that appears whole or not at all, in the place of what was there."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write beside the place, make it durable, then give it its name. Raises OSError; then nothing is left behind."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
