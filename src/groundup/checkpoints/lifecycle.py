"""Checkpoints: folders that appear whole or not at all, and are read only if every byte is right.

This module knows nothing of what the files hold. A checkpoint is written in three calls. `begin`
makes a temporary folder beside the final one. `fill` has files written into that folder, flushes
each file to the disk and takes its SHA-256; of several processes, each can write files of its own.
`seal` writes the manifest of the hashes, flushes it, gives the folder its name, flushes the parent
folder, names the checkpoint in `steps.json` and by the links `latest` and `best`, and removes old
checkpoints. Each new file is hashed once, and no older one is hashed again.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from groundup.errors import CheckpointError, TrainingError
from groundup.files import file_digest, flush_folder, parse_json, read_json, write_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
NAMES_FILE = "steps.json"  # which steps are the latest and the best
STEP_NAME = re.compile(r"step-(\d{6,})")
TEMPORARY = ".writing-"

Files = dict[str, dict[str, Any]]  # a file's name below the folder -> its size and its SHA-256


def step_folder(parent: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` steps."""
    return parent / f"step-{step:06d}"


def publish(
    folder: Path, write: Callable[[Path], None], *, best: bool, keep: int, protected: Path | None
) -> None:
    """Write a checkpoint with one process.

    Args:
        folder: The checkpoint, as `step_folder` names it.
        write: Writes the files into the temporary folder that it is given.
        best, keep, protected: As `seal` takes them.

    Raises:
        TrainingError: The files can't be written. All checkpoints are then as they were.
    """
    begin(folder)
    seal(folder, fill(folder, write), best=best, keep=keep, protected=protected)


def begin(folder: Path) -> None:
    """Make the temporary folder that `fill` and `seal` turn into `folder`.

    Raises:
        TrainingError: The folder can't be made.
    """
    with _nothing_left_on_failure(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder.parent)
        _temporary(folder).mkdir()


def fill(folder: Path, write: Callable[[Path], None], pattern: str = "**/*") -> Files:
    """Have files written into the temporary folder of `folder`, and make them durable.

    Args:
        folder: The checkpoint that was begun.
        write: Writes the files into the temporary folder that it is given.
        pattern: The glob pattern of this process's own files, where several processes fill the
            folder at once.

    Returns:
        The size and the SHA-256 of each file that matches `pattern`, by the file's name.

    Raises:
        TrainingError: The files can't be written. All checkpoints are then as they were.
    """
    temporary = _temporary(folder)
    with _nothing_left_on_failure(folder):
        write(temporary)
        files: Files = {}
        for path in sorted(filter(Path.is_file, temporary.glob(pattern))):
            _flush(path)
            entry = {"size": path.stat().st_size, "sha256": file_digest(path)}
            files[path.relative_to(temporary).as_posix()] = entry
        return files


def seal(folder: Path, files: Files, *, best: bool, keep: int, protected: Path | None) -> None:
    """Turn the filled temporary folder into the checkpoint `folder`, and remove old checkpoints.

    Args:
        folder: The checkpoint that was begun.
        files: What `fill` returned, of all processes together.
        best: Whether the checkpoint is the best one too, and not only the latest.
        keep: The number of newest checkpoints that stay.
        protected: A checkpoint that stays besides the newest ones and the best one.

    Raises:
        TrainingError: The folder can't be written. All checkpoints are then as they were.
    """
    temporary = _temporary(folder)
    with _nothing_left_on_failure(folder):
        (temporary / MANIFEST).write_text(_render(files), "utf-8")
        _flush(temporary / MANIFEST)
        for path in [*filter(Path.is_dir, temporary.rglob("*")), temporary]:
            flush_folder(path)
        if folder.exists():  # a damaged one, or the same step of a resumed run
            folder.rename(folder.with_name(f"{TEMPORARY}replaced-{folder.name}"))
        temporary.rename(folder)
        flush_folder(folder.parent)
        remove_unfinished(folder.parent)
        name_step(folder, best=best)
    prune(folder.parent, keep, filter(None, [named_step(folder.parent, "best"), protected]))


@contextmanager
def _nothing_left_on_failure(folder: Path) -> Iterator[None]:
    """Remove the temporary folder if the body fails, and say why where the system refused."""
    try:
        yield
    except Exception as error:
        shutil.rmtree(_temporary(folder), ignore_errors=True)
        # safetensors wraps the system's errors
        if isinstance(error, OSError) or "os error" in str(error):
            full = getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error)
            reason = "the disk is full" if full else str(error)
            raise TrainingError(
                f"can't write {folder}: {reason}. Earlier checkpoints are untouched."
            ) from error
        raise


def name_step(folder: Path, *, best: bool) -> None:
    """Name a checkpoint as the latest one and, if it is, as the best one.

    `steps.json` beside the checkpoint counts. The symbolic links `latest` and `best` are there for
    people and other programs, where the file system has such links.

    Raises:
        OSError: The file can't be written.
    """
    parent = folder.parent
    names = {"latest": folder.name, "best": folder.name}
    if not best and (kept := named_step(parent, "best")):
        names["best"] = kept.name
    elif not best:
        del names["best"]
    write_json(parent / NAMES_FILE, names)
    flush_folder(parent)
    for name, step in names.items():
        _link(parent / name, step)


def named_step(parent: Path, name: str) -> Path | None:
    """Return the folder of the `latest` or the `best` checkpoint, or None where nothing names it.

    A run of an older version has links alone; copied, these can have become folders.
    """
    link = parent / name
    try:
        step = read_json(parent / NAMES_FILE).get(name, "")
        return parent / step if STEP_NAME.fullmatch(step) else None
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError, TypeError) as error:
        logger.warning("%s can't be read: %s.", parent / NAMES_FILE, error)
    return link.resolve() if link.is_symlink() else link if link.is_dir() else None


def _link(link: Path, step: str) -> None:
    """Make a relative symbolic link to a step beside it, in one atomic step, where there are links.

    A folder in the link's place is a copy of a step, made by a program that follows links. It goes
    if the step that it copies is here.
    """
    temporary = _temporary(link)
    try:
        if link.is_dir() and not link.is_symlink():
            copied = (link / MANIFEST).read_bytes()
            if all((each / MANIFEST).read_bytes() != copied for each in steps(link.parent)):
                logger.warning(f"{link} is a folder of its own and stays: it isn't {step}")
                return
            link.rename(temporary)
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(step)
        temporary.replace(link)
    except OSError as error:
        _say_without_links(link.parent, str(error.strerror))


@cache
def _say_without_links(parent: Path, reason: str) -> None:
    """Say, once, which path stands for the links that a file system doesn't have."""
    logger.warning(
        f"{parent} can't have links ({reason}): {NAMES_FILE} there names the best checkpoint, now "
        f"{named_step(parent, 'best') or named_step(parent, 'latest')}"
    )


def verify(folder: Path, *, hashes: bool = True) -> None:
    """Check a checkpoint against its manifest; without `hashes`, check the files' sizes alone.

    Raises:
        CheckpointError: A file is damaged or missing; the message names the first such file.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text("utf-8")
        expected: Files = parse_json(text)["files"]
        complete = all({"size", "sha256"} <= entry.keys() for entry in expected.values())
        intact = text == _render(expected) and complete
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
        if hashes and (digest := file_digest(file)) != entry["sha256"]:
            raise CheckpointError(
                f"{file} is damaged: its SHA-256 is {digest[:12]}... instead of "
                f"{entry['sha256'][:12]}..."
            )


def steps(parent: Path) -> list[Path]:
    """List the checkpoints that have their final names, newest first, damaged ones included."""
    folders = filter(Path.is_dir, parent.glob("step-*"))
    found = [path for path in folders if STEP_NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def newest_valid(candidates: Iterable[Path]) -> Path | None:
    """Return the first intact checkpoint or None, with a warning for each damaged one before."""
    for folder in candidates:
        try:
            verify(folder)
        except CheckpointError as error:
            logger.warning("%s. Passing over %s.", error, folder.name)
        else:
            return folder
    return None


def prune(parent: Path, keep: int, protected: Iterable[Path]) -> None:
    """Remove all checkpoints but the `keep` newest sealed ones and the protected ones.

    A sealed checkpoint has an intact manifest and files of the right sizes; hashes are verified
    when a checkpoint is read. Checkpoints that aren't sealed stay, don't count towards `keep`, and
    are reported.
    """
    kept = {path.resolve() for path in protected}
    sealed = 0
    for folder in steps(parent):
        try:
            verify(folder, hashes=False)
        except CheckpointError as error:
            logger.warning("%s. Left where it is.", error)
            continue
        sealed += 1
        if sealed > keep and folder.resolve() not in kept:
            condemned = folder.with_name(f"{TEMPORARY}removed-{folder.name}")
            # so that a kill half-way leaves no checkpoint without its files
            folder.rename(condemned)
            shutil.rmtree(condemned, ignore_errors=True)


def remove_unfinished(parent: Path) -> None:
    """Remove what a killed process was writing or removing."""
    for leftover in parent.glob(f"{TEMPORARY}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Where something is written before it gets its name."""
    return path.with_name(f"{TEMPORARY}{path.name}")


def _render(files: Files) -> str:
    """The one way to write a manifest, sealed with its own SHA-256: any other byte is damage."""
    seal = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": seal}, indent=2, sort_keys=True) + "\n"


def _flush(path: Path) -> None:
    """Have a file's content reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
