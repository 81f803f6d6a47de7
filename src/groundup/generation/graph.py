"""A step of all slots of an engine as one graph, which a GPU runs without waiting for Python."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.generation.slots import Slots
from groundup.machine.kinds import to_device
from groundup.models.cache import Attend, Cache
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern

GPU_MODE = "reduce-overhead"  # torch's own way to CUDA graphs


class StepGraph:
    """Reads one token of each text, in all slots at once, so that all shapes stay as they are.

    A slot without a text that writes takes part, too: what it writes goes to a place that no text
    reaches, and its logits are left out. The graph is compiled when it is first called.

    Args:
        model: The model.
        slots: Its slots, which have a spare place.
        mode: torch.compile's mode, or None to run without compiling.
    """

    def __init__(self, model: GPT2 | Modern, slots: Slots, mode: str | None) -> None:
        self.model, self.slots, self.block_size = model, slots, model.block_size
        self._run = self._logits
        if mode is not None:
            # a graph of CUDA may write to memory that never moves
            torch._dynamo.mark_static_address(slots.memory)
            self._run = torch.compile(self._logits, mode=mode, fullgraph=True, dynamic=False)

    def step(self, newest: Tensor, slots: list[int], lengths: list[int]) -> Tensor:
        """Return the logits of the next tokens: [texts, vocab].

        Args:
            newest: [texts] int64, on the CPU.
            slots: The slot of each text.
            lengths: The number of tokens of each text, the newest included.
        """
        spare = self.slots.memory.size(-2)
        tokens = torch.zeros(self.slots.count, dtype=torch.int64)
        places = torch.full((self.slots.count,), spare)
        tokens[slots], places[slots] = newest, torch.tensor(lengths)
        device = self.slots.device
        found = self._run(to_device(tokens, device), to_device(places, device))
        return found[to_device(torch.tensor(slots), device)]  # a copy: the next step overwrites

    def _logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of all slots: [slots], [slots] -> [slots, vocab]."""
        cache = _Everywhere(self.slots.memory, lengths)
        return self.model.logits(self.model.hidden(tokens[:, None], cache)[:, -1])


class _Everywhere(Cache):
    """The cache while one token of each slot is read: tokens [slots, 1].

    Args:
        memory: [n_layer, 2, slots, n_kv_head, places, head_dim].
        lengths: [slots] int64, the number of tokens of each, the new one included; `places` where
            none is written.
    """

    def __init__(self, memory: Tensor, lengths: Tensor) -> None:
        self.memory, self.lengths = memory, lengths

    def positions(self, tokens: Tensor, block_size: int) -> Tensor:
        return (self.lengths[:, None] - 1).clamp(max=block_size - 1)

    def attention(self, layer: int) -> Attend:
        return partial(self._attend, layer)

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, dropout: float
    ) -> Tensor:
        keys, values = self.memory[layer, 0], self.memory[layer, 1]
        newest = (self.lengths - 1)[:, None, None, None].expand_as(key)
        keys.scatter_(2, newest, key)
        values.scatter_(2, newest, value)
        seen = torch.arange(keys.size(2), device=keys.device) < self.lengths[:, None]
        grouped = key.size(1) != query.size(1)
        return F.scaled_dot_product_attention(
            query, keys, values, seen[:, None, None], enable_gqa=grouped
        )
