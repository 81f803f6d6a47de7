"""The models, by the names that recipes and model folders have for them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from groundup.models.bigram import Bigram
from groundup.models.cache import KVCache
from groundup.models.config import ModelConfig
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT

Model = Bigram | GPT2 | Modern | ReadableGPT
MODELS = {"bigram": Bigram, "readable": ReadableGPT, "gpt2": GPT2, "modern": Modern}


def build(architecture: str, config: ModelConfig) -> Model:
    """Build a new model, from a `ModernConfig` for modern, else from a `GPTConfig`."""
    return MODELS[architecture](config)  # pyright: ignore[reportArgumentType]


def build_on_meta(architecture: str, config: ModelConfig) -> Model:
    """Build a model on the meta device: its weights have shapes, and no memory."""
    with torch.device("meta"), _Undrawn():
        return build(architecture, config)


class _Undrawn(TorchFunctionMode):
    """Leaves out random initialisation: most of the time goes there, and no weight has memory."""

    draws = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in self.draws:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


def allocated(model: Model, dtype: torch.dtype) -> Model:
    """Move a model from the meta device to the CPU, where its weights are still to be filled in.

    No weight gets memory in another precision than `dtype` first.
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
    """Return the name of a model's architecture, as recipes and model folders state it."""
    return next(name for name, model_class in MODELS.items() if type(model) is model_class)


def count_parameters(model: nn.Module) -> int:
    """Count a model's parameters, those of a tied head once."""
    return sum(parameter.numel() for parameter in model.parameters())


def cache_for(model: Model, room: int) -> KVCache | None:
    """Make an empty cache for a model, or return None for a model that can't use one.

    Args:
        model: Any model.
        room: The largest number of tokens of a row that will be read.
    """
    return KVCache(model.config.n_layer, room) if isinstance(model, GPT2 | Modern) else None


def hidden_states(model: Model, tokens: Tensor, cache: KVCache | None) -> Tensor:
    """Return the hidden states of tokens, which follow the tokens of a cache if there is one.

    Args:
        model: Any model; with a cache, a model for which `cache_for` makes a cache.
        tokens: [batch, time] int64.
        cache: The cache of what the model has read before, to which `tokens` are added; or None.

    Returns:
        [batch, time, width].
    """
    if cache is None:
        return model.hidden(tokens)
    assert isinstance(model, GPT2 | Modern), f"{type(model).__name__} computes without a cache"
    return model.hidden(tokens, cache)
