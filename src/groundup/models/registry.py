"""The models there are, by the names under which recipes and folders know them."""

import torch
from torch import Tensor, nn

from groundup.models.bigram import Bigram
from groundup.models.cache import KVCache
from groundup.models.config import ModelConfig
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT

Model = Bigram | GPT2 | Modern | ReadableGPT
MODELS = {"bigram": Bigram, "readable": ReadableGPT, "gpt2": GPT2, "modern": Modern}


def build(architecture: str, config: ModelConfig) -> Model:
    """Build a new model of that name, from a config of its class."""
    return MODELS[architecture](config)  # pyright: ignore[reportArgumentType]


def build_on_meta(architecture: str, config: ModelConfig) -> Model:
    """Build a model on the meta device: its weights have shapes, and no memory."""
    with torch.device("meta"):
        return build(architecture, config)


def allocated(model: Model, dtype: torch.dtype) -> Model:
    """Move a model from the meta device to the CPU, where its weights are still to be filled in.

    No weight is held in another precision first.
    """
    model = model.to(dtype)
    first: dict[Tensor, str] = {}
    weights = model.named_parameters(remove_duplicate=False)
    tied = [(name, first.setdefault(weight, name)) for name, weight in weights]
    model.to_empty(device="cpu")  # unties what was one
    for name, same in tied:
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, model.get_parameter(same))
    return model


def architecture_of(model: Model) -> str:
    """Return the name under which the model's class is saved."""
    return next(name for name, model_class in MODELS.items() if type(model) is model_class)


def count_parameters(model: nn.Module) -> int:
    """Count a model's parameters, those of a tied head once."""
    return sum(parameter.numel() for parameter in model.parameters())


def cache_for(model: Model, room: int) -> KVCache | None:
    """Make an empty cache for a model; None for the models that compute everything anew.

    Args:
        model: Any model.
        room: The tokens of a row that will be read at the most.
    """
    return KVCache(model.config.n_layer, room) if isinstance(model, GPT2 | Modern) else None


def hidden_states(model: Model, tokens: Tensor, cache: KVCache | None) -> Tensor:
    """Return the states of tokens that follow what a cache holds; without one, they follow nothing.

    Args:
        model: Any model, and one that `cache_for` has a cache for if there is a cache.
        tokens: [batch, time] int64.
        cache: What the model has read before; these tokens are added to it.

    Returns:
        [batch, time, width].
    """
    if cache is None:
        return model.hidden(tokens)
    assert isinstance(model, GPT2 | Modern), f"{type(model).__name__} computes without a cache"
    return model.hidden(tokens, cache)
