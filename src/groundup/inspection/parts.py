"""Where a model can be looked into: its cache, and the modules that add to the residual stream."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from groundup.models.cache import Attend, Cache
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.registry import Model


class Recorder(Cache):
    """A cache that keeps the queries of new tokens, and leaves all else to another one.

    Args:
        cache: The other one.
        queries: [n_layer, n_head, time, head_dim], where queries are kept.
        first: The first token that is read now.
        last: The token after the last one.
    """

    def __init__(self, cache: Cache, queries: Tensor, first: int, last: int) -> None:
        self.cache, self.queries = cache, queries[:, :, first:last]

    def positions(self, tokens: Tensor, block_size: int) -> Tensor:
        """Begin to read new tokens, and return their positions."""
        return self.cache.positions(tokens, block_size)

    def attention(self, layer: int) -> Attend:
        """Return a layer's attention, which keeps its queries."""
        attend = self.cache.attention(layer)

        def recorded(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
            self.queries[layer] = query[0]
            return attend(query, key, value, dropout)

        return recorded


@dataclass(frozen=True)
class Parts:
    """The modules of a model that are looked at, whatever their names."""

    blocks: Any
    norm: nn.Module

    def adding(self, layer: int) -> tuple[nn.Module, nn.Module]:
        """The modules of a block that add to the residual stream: attention and MLP."""
        block = self.blocks[layer]
        attention = block.attn if hasattr(block, "attn") else block.self_attn
        return attention, block.mlp


def parts_of(model: Model) -> Parts | None:
    """Return the modules of a model that are looked at, or None for a bigram."""
    if isinstance(model, GPT2):
        return Parts(model.transformer.h, model.transformer.ln_f)
    if isinstance(model, Modern):
        return Parts(model.model.layers, model.model.norm)
    return None
