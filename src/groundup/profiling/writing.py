"""The memory that writing texts needs, computed from a model's shape."""

from dataclasses import dataclass

import torch

from groundup.generation.packed import weight_bytes
from groundup.generation.slots import text_bytes
from groundup.generation.writer import Precision, kernels_for, weight_dtype, with_weights
from groundup.machine import memory
from groundup.models.registry import Model, architecture_of, count_parameters

HEADROOM = 0.9  # of the available memory, that weights, texts and training may fill


@dataclass(frozen=True)
class Writing:
    """The bytes that writing texts takes, as `groundup generate` writes them.

    Attributes:
        architecture: The model's architecture.
        parameters: The number of the model's parameters.
        device: Where it writes.
        dtype: The dtype of the weights.
        weights: The bytes of the weights.
        context: The largest number of tokens of a text that the model sees.
        each: The bytes of the keys and values of a text as long as the context; 0 for a model that
            keeps none.
        available: The bytes that this process could have in all.
        texts: The number of such texts that fit beside the weights; None where nothing is kept.
    """

    architecture: str
    parameters: int
    device: str
    dtype: str
    weights: int
    context: int
    each: int
    available: int
    texts: int | None


def plan_writing(model: Model, device: torch.device) -> Writing:
    """Compute the memory that writing with a model takes, with the weights that `auto` chooses.

    Args:
        model: The model, which may be on the meta device.
        device: Where it is to write.
    """
    precision = Precision()
    kernels = kernels_for(model, precision, device)
    dtype = weight_dtype(model, precision, kernels)
    writes = with_weights(model, dtype, kernels)
    weights, each = weight_bytes(writes), text_bytes(writes, model.block_size)
    available = memory.available(device)
    return Writing(
        architecture=architecture_of(model),
        parameters=count_parameters(model),
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        weights=weights,
        context=model.block_size,
        each=each,
        available=available,
        texts=texts_that_fit(available, weights, each),
    )


def texts_that_fit(available: int, weights: int, each: int) -> int | None:
    """Return how many texts of `each` bytes fit beside the weights; None for texts of no bytes."""
    return max(0, int(HEADROOM * available - weights) // each) if each else None
