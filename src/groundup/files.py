"""A small file that appears whole or not at all, in the place of what was there."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import ExportError


def write_whole(path: Path, text: str) -> None:
    """Write beside the place, make it durable, then give it its name. Raises OSError; then nothing
    is left behind.
    """
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


DEEPEST = 64  # the files of models and tokenizers nest less than ten levels


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, for values within more than 64 others too."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        if not (
            level := [
                inner
                for outer in level
                for inner in _inside(outer)
                if isinstance(inner, list | dict)
            ]
        ):
            return value
    raise ValueError(f"its values are nested more than {DEEPEST} levels deep")


def _inside(value: Any) -> Any:
    """What a list or an object holds; nothing else holds anything."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


TEMPORARY = ".exporting-"


def refuse_existing(target: Path, force: bool) -> None:
    """Raise ExportError where there is something already; `force` allows to replace a file, never a
    folder.
    """
    if target.is_dir():
        raise ExportError(f"{target} is a folder that exists already. Choose another --out")
    if os.path.lexists(target) and not force:
        raise ExportError(
            f"{target} exists already. Choose another --out, or replace it with --force"
        )


@contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """A path to write to in place of `target`; all that lies beside it afterwards moves beside
    `target`, it last.

    Raises ExportError where the system refuses; then nothing is left behind.
    """
    folder = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
        yield folder / target.name
        for made in sorted(folder.iterdir(), key=lambda path: path.name == target.name):
            made.replace(target.with_name(made.name))
    except OSError as error:
        raise ExportError(f"can't write {target}: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
