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
def explain_refusals() -> Iterator[None]:
    """Explain in one line what the system refuses: a full disk, a folder that is gone or read-only.

    Raises:
        TrainingError: A file can't be written or read.
    """
    try:
        yield
    except BrokenPipeError:  # a reader has gone: nothing was refused
        raise
    except OSError as error:
        is_full = error.errno in FULL
        reason = FULL[error.errno or 0] if is_full else error.strerror or str(error)
        verb, remedy = ("write", "make room") if is_full else ("use", "put that right")
        what = f"can't {verb} {error.filename}: " if error.filename else ""
        raise TrainingError(
            f"{what}{reason}. Checkpoints are untouched: {remedy}, then go on with --resume"
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
