"""The cache of keys and values of the tokens that a model has read, to compute only new ones.

A model asks its cache for two things: the positions of the tokens that the model reads, and the
attention of each layer. So the model's own code is the same with a cache and without one.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.models.attention import causal_attention

# (query, key, value, dropout), all of the tokens that are read now, as `causal_attention` has them
Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class Cache(Protocol):
    """What a model asks of a cache while it reads tokens."""

    def positions(self, tokens: Tensor, block_size: int) -> Tensor:
        """Begin to read new tokens, and return their positions.

        Args:
            tokens: [batch, time] int64, the new tokens, which follow those that each row has read.
            block_size: The largest number of tokens of a row, the model's context.

        Returns:
            [batch, time] int64, or [1, time] where all rows have the same positions.
        """
        ...

    def attention(self, layer: int) -> Attend:
        """Return a layer's attention, in which new tokens see all tokens of their rows so far.

        Args:
            layer: The index of the layer.

        Returns:
            A function of the new tokens' queries, keys and values and of the dropout. The new
            tokens are those that were last given to `positions`.
        """
        ...


class NoCache(Cache):
    """The cache of a model that reads whole texts: each begins at position 0, and nothing is kept.

    `positions` returns [1, time].
    """

    def positions(self, tokens: Tensor, block_size: int) -> Tensor:
        check_fits(tokens.size(1), block_size)
        return torch.arange(tokens.size(1), device=tokens.device)[None]

    def attention(self, layer: int) -> Attend:
        return causal_attention


NO_CACHE = NoCache()


class KVCache(Cache):
    """The keys and values of all tokens that a model has read, layer by layer.

        k <- [k, k_t],  v <- [v, v_t];  y_t = sum_s p_ts v_s,  s <= t

    Only the newest token's q, k and v are computed; attention is that of Vaswani et al. (2017).
    The model's method `hidden` takes the cache, and adds those of its new tokens. All rows of a
    batch have read equally many tokens. Memory is written in place, so no gradient goes through a
    cache.

    Args:
        n_layer: The number of layers of the model.
        room: The largest number of tokens of a row to expect. Memory for them is allocated at once.
            For more tokens the memory is doubled, and the keys and values in it are copied.
    """

    def __init__(self, n_layer: int, room: int = 0) -> None:
        self.n_layer, self.room = n_layer, room
        self.length = 0  # the tokens of a row that are read, those of this step included
        self._new = slice(0, 0)  # which of them are this step's
        self._mask: Tensor | None = None  # [new, length] bool: what each of this step's tokens sees
        self._kept: Tensor | None = None  # [n_layer, 2, batch, n_kv_head, room, head_dim]

    def positions(self, tokens: Tensor, block_size: int) -> Tensor:
        first, last = self.length, self.length + tokens.size(1)
        check_fits(last, block_size)
        positions = torch.arange(first, last, device=tokens.device)
        self.length, self._new, self._mask = last, slice(first, last), None
        if last - first > 1:  # a single token sees everything
            self._mask = torch.arange(last, device=tokens.device) <= positions[:, None]
        return positions.expand(tokens.size(0), -1)

    def attention(self, layer: int) -> Attend:
        return partial(self._attend, layer)

    def rows(self, numbers: Tensor, room: int = 0) -> "KVCache":
        """Copy rows of the cache, each once or many times, to continue a text in several ways.

        Args:
            numbers: [n] int64, the rows to copy, on the device of the model.
            room: The number of tokens to expect in a row after those that are copied.

        Returns:
            A cache of n rows in memory of its own.
        """
        copy = KVCache(self.n_layer, self.length + room)
        if self._kept is not None:
            copy.length = self.length
            copy._kept = _memory(self._kept[0, 0], self.n_layer, len(numbers), copy.room)
            for new, old in zip(copy._kept, self._kept, strict=True):  # a layer each
                new[..., : self.length, :] = old[..., : self.length, :].index_select(1, numbers)
        return copy

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, dropout: float
    ) -> Tensor:
        keys, values = self._memory_for(key)[layer, ..., : self.length, :]
        keys[:, :, self._new], values[:, :, self._new] = key, value
        if self._new.start == 0:
            return causal_attention(query, keys, values, dropout)
        grouped = bool(key.size(1) != query.size(1))  # traced, sizes are tensors
        return F.scaled_dot_product_attention(query, keys, values, self._mask, enable_gqa=grouped)

    def _memory_for(self, key: Tensor) -> Tensor:
        """Return the memory of all layers, made or made larger where this step needs it."""
        before = self._kept
        if before is None or self.length > self.room:
            self.room = max(self.length, self.room if before is None else 2 * self.room)
            self._kept = _memory(key, self.n_layer, len(key), self.room)
            if before is not None:
                self._kept[..., : before.size(-2), :] = before
        assert self._kept is not None
        return self._kept


def check_fits(time: int, block_size: int) -> None:
    """Assert that `time` tokens fit into a context of `block_size` tokens."""
    assert time <= block_size, f"{time} tokens are more than block_size = {block_size}"


def _memory(like: Tensor, n_layer: int, batch: int, room: int) -> Tensor:
    """Memory for keys and values. like: [any, n_kv_head, any, head_dim]"""
    return like.new_empty(n_layer, 2, batch, like.size(1), room, like.size(-1))
