"""A full disk, said in one line: whatever the run was writing when it happened."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from groundup.errors import TrainingError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew past the largest size allowed",
}


@contextmanager
def explain_full_disk() -> Iterator[None]:
    """Around training, which writes metrics, samples and pictures besides its checkpoints. Raises TrainingError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = f"can't write {error.filename}: " if error.filename else ""
        raise TrainingError(
            f"{what}{FULL[error.errno]}. Checkpoints are untouched: make room, then go on with --resume"
        ) from error
