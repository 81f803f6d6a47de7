"""Checkpoints: a folder of files, written whole or not at all, and read only if every byte is what
was written.

Knows nothing of what the files hold. The protocol: write into a temporary folder beside the final
one, fsync every file, write a manifest with the SHA-256 of each, fsync it, rename the folder, fsync
its parent.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from groundup.errors import CheckpointError, TrainingError
from groundup.files import parse_json

MANIFEST = "manifest.json"
STEP_NAME = re.compile(r"step-(\d{6,})")
TEMPORARY = ".writing-"


def step_folder(parent: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps."""
    return parent / f"step-{step:06d}"


def write(folder: Path, fill: Callable[[Path], None]) -> None:
    """Create `folder` atomically with what `fill` writes into the temporary folder that it is
    given.

    Raises TrainingError when the files can't be written; then `folder` and everything beside it is
    as it was.
    """
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder.parent)
        temporary.mkdir()
        fill(temporary)
        for path in _files(temporary):
            _fsync(path)
        (temporary / MANIFEST).write_text(_manifest(temporary), "utf-8")
        _fsync(temporary / MANIFEST)
        for path in [*(path for path in temporary.rglob("*") if path.is_dir()), temporary]:
            _fsync(path)
        if folder.exists():  # a damaged one, or the same step of a resumed run
            replaced = folder.with_name(f"{TEMPORARY}replaced-{folder.name}")
            folder.rename(replaced)
        temporary.rename(folder)
        _fsync(folder.parent)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # safetensors wraps the system's errors
        if isinstance(error, OSError) or "os error" in str(error):
            full = getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error)
            reason = "the disk is full" if full else str(error)
            raise TrainingError(
                f"can't write {folder}: {reason}. Earlier checkpoints are untouched."
            ) from error
        raise
    remove_unfinished(folder.parent)


def publish(
    parent: Path,
    step: int,
    fill: Callable[[Path], None],
    *,
    best: bool,
    keep: int,
    protected: Path | None,
    report: Callable[[str], None],
) -> Path:
    """Write the checkpoint of a step, point `latest` (and `best`) at it, then prune: the folder.
    Raises TrainingError.

    Pruning never removes the best checkpoint, nor `protected`, the one that the run was resumed
    from.
    """
    folder = step_folder(parent, step)
    write(folder, fill)
    point(parent / "latest", folder)
    if best:
        point(parent / "best", folder)
    kept = [path for path in (parent / "best", protected) if path is not None]
    prune(parent, keep, kept, report)
    return folder


def point(link: Path, folder: Path) -> None:
    """Make `link` a relative symbolic link to `folder` beside it, in one atomic step."""
    temporary = link.with_name(f"{TEMPORARY}{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    temporary.replace(link)
    _fsync(link.parent)


def verify(folder: Path) -> None:
    """Check every file against the manifest. Raises CheckpointError that names the first damaged
    file.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text("utf-8")
        expected: dict[str, dict] = parse_json(text)["files"]
        intact = text == _render(expected) and all(
            {"size", "sha256"} <= entry.keys() for entry in expected.values()
        )
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} has no {MANIFEST}: it isn't a complete checkpoint"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        intact, expected = False, {}
    if not intact:
        raise CheckpointError(f"{path} is damaged: it doesn't match its own SHA-256")
    for name, entry in expected.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if (size := file.stat().st_size) != entry["size"]:
            raise CheckpointError(
                f"{file} has {size:,} bytes instead of {entry['size']:,}: it was cut or changed"
            )
        if (digest := _sha256(file)) != entry["sha256"]:
            raise CheckpointError(
                f"{file} is damaged: its SHA-256 is {digest[:12]}... instead of "
                f"{entry['sha256'][:12]}..."
            )


def steps(parent: Path) -> list[Path]:
    """The published checkpoints, newest first, valid or not."""
    found = [
        path for path in parent.glob("step-*") if STEP_NAME.fullmatch(path.name) and path.is_dir()
    ]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def newest_valid(candidates: Iterable[Path], report: Callable[[str], None]) -> Path | None:
    """The first of `candidates` that verifies; each one passed over is reported."""
    for folder in candidates:
        try:
            verify(folder)
        except CheckpointError as error:
            report(f"{error}. Passing over {folder.name}.")
        else:
            return folder
    return None


def prune(
    parent: Path, keep: int, protected: Iterable[Path], report: Callable[[str], None]
) -> None:
    """Remove all but the `keep` newest valid checkpoints and the protected ones; damaged ones stay
    and don't count.
    """
    kept = {path.resolve() for path in protected}
    valid = 0
    for folder in steps(parent):
        try:
            verify(folder)
        except CheckpointError as error:
            report(f"{error}. Left where it is.")
            continue
        valid += 1
        if valid > keep and folder.resolve() not in kept:
            condemned = folder.with_name(f"{TEMPORARY}removed-{folder.name}")
            # so that a kill half-way leaves no checkpoint without its files
            folder.rename(condemned)
            shutil.rmtree(condemned, ignore_errors=True)


def remove_unfinished(parent: Path) -> None:
    """Clear away what a killed process was writing or removing."""
    for leftover in parent.glob(f"{TEMPORARY}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _manifest(folder: Path) -> str:
    """The manifest of what a folder holds."""
    return _render(
        {
            path.relative_to(folder).as_posix(): {
                "size": path.stat().st_size,
                "sha256": _sha256(path),
            }
            for path in _files(folder)
        }
    )


def _render(files: dict[str, dict]) -> str:
    """The one way to write a manifest, sealed with its own SHA-256: any other byte is damage."""
    seal = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": seal}, indent=2, sort_keys=True) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
