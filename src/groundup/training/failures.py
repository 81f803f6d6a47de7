"""Explains in one line what a machine lacks while a run trains, and what to do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from groundup.errors import OutOfMemoryError, TrainingError
from groundup.machine.memory import held_by_others, is_out_of_memory
from groundup.models.config import largest_divisor
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe

LITTLE = 2**30  # bytes: as much as the driver and small programs take
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
            f"{what}{reason}. Checkpoints are untouched: {remedy}, then start it again, or go on "
            "with --resume"
        ) from error


@contextmanager
def explain_out_of_memory(
    recipe: Recipe, world: World | None = None, resumes: bool = False
) -> Iterator[None]:
    """Explain by which fields of the recipe memory ran out, while a run is set up or trains.

    Args:
        recipe: The recipe.
        world: The processes; None stands for one.
        resumes: Whether the run goes on, so that it can't be made smaller.

    Raises:
        OutOfMemoryError: Memory ran out, on a GPU or a CPU.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        model, share = recipe.model, recipe.train.batch_size // (world or World()).size
        rows = recipe.train.micro_batch_size or share
        raise OutOfMemoryError(
            f"out of memory with {rows} sequences of block_size = {model.block_size} at once "
            f"through n_layer = {model.n_layer}, n_embd = {model.n_embd}. "
            f"{_advise_less(recipe, largest_divisor(share, rows // 2), resumes)}{others_hold()}"
        ) from error


def others_hold() -> str:
    """Return what to add to an advice if other processes hold much of the GPU, or nothing."""
    held, everything = held_by_others() or (0, 0)
    if held < LITTLE:
        return ""
    what = f"{held / 2**30:.1f} of its {everything / 2**30:.1f} GiB"
    return f". Other processes hold {what} (nvidia-smi lists them): end them, or wait for them"


def _advise_less(recipe: Recipe, fewer: int, resumes: bool) -> str:
    """What can be lowered; `fewer` is a smaller micro-batch, or 0 where there is none."""
    draws = bool(recipe.model.dropout)  # another mask for each micro-batch
    kept = "" if draws else " (the result stays the same but for the last bits)"
    if resumes and (draws or not fewer):
        return "Go on where there is more memory: a resumed run can't be made smaller"
    if resumes:
        return f"Go on with a smaller one: --train.micro-batch-size {fewer}{kept}"
    ways = [f"train.micro_batch_size first, to {fewer} say{kept}"] if fewer else []
    ways.append("model.block_size" if ways else "model.block_size first")
    if not recipe.train.init:  # whose shape is given
        ways.append("model.n_layer")
    return f"Lower {', then '.join(ways)}"
