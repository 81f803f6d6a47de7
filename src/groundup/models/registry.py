"""The models there are, by the names under which recipes and folders know them."""

import torch
from torch import Tensor

from groundup.models.bigram import Bigram
from groundup.models.cache import KVCache
from groundup.models.config import ModelConfig
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT

Model = Bigram | GPT2 | Modern | ReadableGPT
MODELS: dict[str, type[Model]] = {
    "bigram": Bigram,
    "readable": ReadableGPT,
    "gpt2": GPT2,
    "modern": Modern,
}


def build(architecture: str, config: ModelConfig) -> Model:
    """A new model of that name, from a config of its class."""
    return MODELS[architecture](config)  # pyright: ignore[reportArgumentType]


def build_on_paper(architecture: str, config: ModelConfig) -> Model:
    """A model of that name without memory for its weights, which have shapes alone."""
    with torch.device("meta"):
        return build(architecture, config)


def allocated(model: Model, dtype: torch.dtype) -> Model:
    """A model on paper, now on the CPU, its weights still to be filled in: none is held in another
    precision first.
    """
    model = model.to(dtype)
    first: dict[torch.Tensor, str] = {}
    tied = [
        (name, first.setdefault(weight, name))
        for name, weight in model.named_parameters(remove_duplicate=False)
    ]
    model.to_empty(device="cpu")  # unties what was one
    for name, same in tied:
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, model.get_parameter(same))
    return model


def architecture_of(model: Model) -> str:
    """The name under which the model's class is saved."""
    return next(name for name, model_class in MODELS.items() if type(model) is model_class)


def new_cache(model: Model) -> KVCache | None:
    """An empty cache for a model whose `hidden` takes one; None for those that compute everything
    anew.
    """
    return KVCache(model.config.n_layer) if isinstance(model, GPT2 | Modern) else None


def hidden_after(model: Model, tokens: Tensor, cache: KVCache | None) -> Tensor:
    """The states of tokens that follow what is cached; without a cache, of tokens that follow
    nothing.

    tokens: [batch, time] int64 -> [batch, time, width]
    """
    if cache is None:
        return model.hidden(tokens)
    assert isinstance(model, GPT2 | Modern), f"{type(model).__name__} computes without a cache"
    return model.hidden(tokens, cache)
