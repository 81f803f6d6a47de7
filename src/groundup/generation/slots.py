"""The memory for keys and values of several texts, each in a slot of its own.

Slots are taken once, whole: a text that got one never waits for memory. A slot keeps what it holds
when its text ends, so that a later text that begins in the same way needs not read that again.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.generation.kernels import MemoryView
from groundup.machine.kinds import to_device
from groundup.models.cache import Attend, Cache, KVCache, check_fits
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.registry import Model

ALIGNED = 32  # numbers of two bytes or more that fill whole cache lines of 64


class Slots:
    """Preallocated keys and values of several texts.

    Args:
        model: The model whose layers they are of.
        count: The number of slots.
        room: The number of tokens that a slot holds.
        device: Where they are.
        spare: Whether each slot has a place after its room that no text reaches.
        piece_dtype: The dtype of attention's products while a piece is read.
    """

    def __init__(
        self,
        model: GPT2 | Modern,
        count: int,
        room: int,
        device: torch.device,
        *,
        spare: bool = False,
        piece_dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = model.config
        heads = shape.n_head if isinstance(model, GPT2) else model.config.n_kv_head
        size = shape.n_embd // shape.n_head if isinstance(model, GPT2) else model.config.head_dim
        dtype = next(model.parameters()).dtype  # float32 in a packed model
        self.count, self.device, self.piece_dtype = count, device, piece_dtype
        # heads begin at whole cache lines in every slot: torch adds in an order that depends on it
        self.room = -(-(room + spare) // ALIGNED) * ALIGNED
        # a text beside longer ones multiplies what it doesn't see by 0: that must be no NaN
        self.memory = torch.zeros(
            (shape.n_layer, 2, count, heads, self.room, size), dtype=dtype, device=device
        )

    def view(self) -> MemoryView:
        """Return what step.cpp reads and writes of it; the slots must outlive the view."""
        return MemoryView(self.memory.data_ptr(), self.count, self.room)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot to another."""
        self.memory[:, :, target, :, :length] = self.memory[:, :, source, :, :length]

    def reading(self, slot: int, first: int) -> Cache:
        """Return the cache for reading tokens of one text, of which the slot holds `first`."""
        return _Reading(self, slot, first)

    def writing(self, slots: Sequence[int], lengths: Sequence[int]) -> Cache:
        """Return the cache for one token of each of several texts.

        Args:
            slots: The slot of each text.
            lengths: The number of tokens of each text, the new one included.
        """
        return _Writing(self, slots, lengths)


def text_bytes(model: Model, room: int) -> int:
    """Count the bytes of a slot that has room for `room` tokens; 0 for a model without a cache."""
    if not isinstance(model, GPT2 | Modern):
        return 0
    return Slots(model, 1, room, torch.device("meta")).memory.nbytes


def token_bytes(model: Model) -> int:
    """Count the bytes of the keys and values of a token; 0 for a model without a cache."""
    return text_bytes(model, ALIGNED) // ALIGNED


class _Reading(KVCache):
    """The cache while a piece of one text is read, tokens [1, time]: in the memory of its slot."""

    def __init__(self, slots: Slots, slot: int, first: int) -> None:
        super().__init__(len(slots.memory), slots.room)
        self._kept, self.length = slots.memory[:, :, slot, None], first
        self.dtype = slots.piece_dtype

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, dropout: float
    ) -> Tensor:
        if self.dtype != torch.bfloat16 or query.size(2) == 1:
            return super()._attend(layer, query, key, value, dropout)
        keys, values = self._memory_for(key)[layer, ..., : self.length, :]
        keys[:, :, self._new], values[:, :, self._new] = key, value
        query, keys, values = query.bfloat16(), keys.bfloat16(), values.bfloat16()
        grouped = key.size(1) != query.size(1)
        found = F.scaled_dot_product_attention(query, keys, values, self._mask, enable_gqa=grouped)
        return found.to(key.dtype)


class _Writing(Cache):
    """The cache while one token of each of several texts is read: tokens [texts, 1]."""

    def __init__(self, slots: Slots, numbers: Sequence[int], lengths: Sequence[int]) -> None:
        self.memory = slots.memory
        self.numbers = numbers
        both = to_device(torch.tensor([numbers, lengths]), slots.device)
        self.slots, self.lengths, self.longest = both[0], both[1], max(lengths)

    def positions(self, tokens: Tensor, block_size: int) -> Tensor:
        check_fits(self.longest, block_size)
        return self.lengths[:, None] - 1

    def attention(self, layer: int) -> Attend:
        return partial(self._attend, layer)

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, dropout: float
    ) -> Tensor:
        memory, grouped = self.memory[layer], key.size(1) != query.size(1)
        if len(self.numbers) == 1:  # a text alone sees all of its own
            keys, values = memory[:, self.numbers[0], None, :, : self.longest]
            keys[:, :, -1:], values[:, :, -1:] = key, value
            return F.scaled_dot_product_attention(query, keys, values, enable_gqa=grouped)
        memory[0, self.slots, :, self.lengths - 1] = key[:, :, 0]
        memory[1, self.slots, :, self.lengths - 1] = value[:, :, 0]
        keys, values = memory[:, self.slots, :, : self.longest]
        seen = torch.arange(self.longest, device=key.device) < self.lengths[:, None]
        mask = seen[:, None, None]
        return F.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=grouped)
