"""What is exported appears whole or not at all, and never in the place of something else unasked."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.errors import ExportError

TEMPORARY = ".exporting-"


def refuse_existing(target: Path, force: bool) -> None:
    """Raise ExportError where there is something already; `force` allows to replace a file, never a folder."""
    if target.is_dir():
        raise ExportError(f"{target} is a folder that exists already. Choose another --out")
    if os.path.lexists(target) and not force:
        raise ExportError(f"{target} exists already. Choose another --out, or replace it with --force")


@contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """A path to write to in place of `target`; all that lies beside it afterwards moves beside `target`, it last.

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
