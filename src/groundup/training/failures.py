"""Explains in one line what a machine lacks while a run trains, and what to do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from groundup.errors import OutOfMemoryError, TrainingError
from groundup.machine.memory import is_out_of_memory
from groundup.recipes.schema import Recipe

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew past the largest size allowed",
}


@contextmanager
def explain_full_disk() -> Iterator[None]:
    """Explain a full disk in one line, whether metrics, pictures or checkpoints were written.

    Raises:
        TrainingError: The disk is full, or the file or the quota is at its limit.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = f"can't write {error.filename}: " if error.filename else ""
        raise TrainingError(
            f"{what}{FULL[error.errno]}. Checkpoints are untouched: make room, then go on with "
            "--resume"
        ) from error


@contextmanager
def explain_out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Explain by which fields of the recipe memory ran out, while a run is set up or trains.

    Raises:
        OutOfMemoryError: Memory ran out, on a GPU or a CPU.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        model, rows = recipe.model, recipe.train.micro_batch_size or recipe.train.batch_size
        raise OutOfMemoryError(
            f"out of memory with {rows} sequences of block_size = {model.block_size} at once "
            f"through n_layer = {model.n_layer}, n_embd = {model.n_embd}. Lower "
            f"train.micro_batch_size first, to {max(1, rows // 2)} say (the result stays the "
            "same), then model.block_size, then model.n_layer"
        ) from error
