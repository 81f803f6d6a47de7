"""Checks where an export goes, and writes it there whole or not at all."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from groundup.checkpoints.adapter_folder import is_adapter
from groundup.checkpoints.model_folder import LoadedModel
from groundup.errors import ExportError, MachineError
from groundup.files import is_replaced

TEMPORARY = ".exporting-"


def refuse_existing(target: Path, force: bool) -> None:
    """Check that an export may go to a path, where something may exist already.

    Args:
        target: The path that the export would go to.
        force: Whether a file of that path may be replaced; a folder never may.

    Raises:
        ExportError: The path is a folder, a device, a pipe or a link, or a file that mustn't be
            replaced.
    """
    if target.is_dir():
        raise ExportError(f"{target} is a folder that exists already. Choose another --out")
    if not is_replaced(target):
        raise ExportError(f"{target} is no file, but a link or a device. Choose another --out")
    if target.exists() and not force:
        raise ExportError(
            f"{target} exists already. Choose another --out, or replace it with --force"
        )


@contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """Give a path to write to, so that `target` appears only when it is complete.

    The path lies in a temporary folder beside `target`. When the body of the `with` block ends,
    whatever else lies in that folder is moved beside `target`, and last the path itself is moved to
    `target`.

    Raises:
        ExportError: `target` can't be written. After this and any other error the temporary
            folder is gone.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = TemporaryDirectory(prefix=TEMPORARY, dir=target.parent, ignore_cleanup_errors=True)
        with beside as name:
            yield Path(name) / target.name
            for made in sorted(Path(name).iterdir(), key=lambda path: path.name == target.name):
                made.replace(target.with_name(made.name))
    except OSError as error:
        raise ExportError(f"can't write {target}: {error.strerror or error}") from error


def require(kind: str, *packages: str) -> None:
    """Check that the packages that `--to kind` needs are installed.

    Raises:
        MachineError: A package isn't installed; the message names all that are missing.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        needs = " and ".join(missing)
        raise MachineError(f"--to {kind} needs {needs}: pip install 'groundup[export]'")


def export_folder(loaded: LoadedModel, out: Path) -> str:
    """Write a whole model as a folder for transformers, and return a line that describes it.

    Raises:
        ExportError: A file can't be written. Then nothing is written.
    """
    with appearing_whole(out) as path:
        loaded.save(path)
    merged = ", its adapters merged" if is_adapter(loaded.folder) else ""
    lacks = "" if loaded.tokenizer else ", without a tokenizer: it has none that groundup writes"
    return f"{loaded.description}{merged}{lacks}"
