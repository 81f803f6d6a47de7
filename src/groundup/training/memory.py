"""Running out of memory, said in one line that names what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from groundup.errors import OutOfMemoryError
from groundup.recipe import Recipe


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


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
            f"out of memory with {rows} sequences of block_size = {model.block_size} at once through n_layer = "
            f"{model.n_layer}, n_embd = {model.n_embd}. Lower train.micro_batch_size first, to {max(1, rows // 2)} say "
            "(the result stays the same), then model.block_size, then model.n_layer"
        ) from error
