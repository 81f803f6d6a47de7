"""A full disk, said in one line: whatever the run was writing when it happened."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from groundup.errors import OutOfMemoryError, TrainingError
from groundup.recipes.schema import Recipe

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew past the largest size allowed",
}


@contextmanager
def explain_full_disk() -> Iterator[None]:
    """Around training, which writes metrics, samples and pictures besides its checkpoints. Raises
    TrainingError.
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or a CPU."""
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)


@contextmanager
def explain_out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Around building and training. Raises OutOfMemoryError."""
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
