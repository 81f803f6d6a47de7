"""The keys and values of tokens that a model has read already, so that what follows them is all it
computes.
"""

import torch
from torch import Tensor


class LayerCache:
    """One layer's keys and values, in buffers that double when they are full.

    keys, values: [batch, n_kv_head, length, head_dim] each, rotated and normalised as attention
    uses them.
    """

    def __init__(self) -> None:
        self.length = 0
        self._buffers: tuple[Tensor, Tensor] | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep what is new behind what is there; all of it. key, value: [batch, n_kv_head, time,
        head_dim]
        """
        first, last = self.length, self.length + key.size(-2)
        if self._buffers is None or last > self._buffers[0].size(-2):
            self._grow(key, max(last, 2 * first))
        assert self._buffers is not None
        for buffer, new in zip(self._buffers, (key, value), strict=True):
            buffer[:, :, first:last] = new
        self.length = last
        return self._contents()

    def rows(self, numbers: Tensor, room: int = 0) -> "LayerCache":
        """These rows of the batch, in memory of their own, with room for as many tokens more.
        numbers: [n] int64
        """
        copy = LayerCache()
        if self.length:
            key, value = (kept.index_select(0, numbers) for kept in self._contents())
            copy._grow(key, self.length + room)
            copy.append(key, value)
        return copy

    def _grow(self, like: Tensor, capacity: int) -> None:
        shape = (*like.shape[:2], capacity, like.size(-1))
        larger = (like.new_empty(shape), like.new_empty(shape))
        if self._buffers is not None:
            for buffer, kept in zip(larger, self._contents(), strict=True):
                buffer[:, :, : self.length] = kept
        self._buffers = larger

    def _contents(self) -> tuple[Tensor, Tensor]:
        assert self._buffers is not None
        return self._buffers[0][:, :, : self.length], self._buffers[1][:, :, : self.length]


class KVCache:
    """What a model remembers of a prefix, layer by layer; `hidden(tokens, cache)` goes on from it
    and adds to it.

    All rows of a batch have the same length. Buffers are written in place, so that no gradient can
    go through them.
    """

    def __init__(self, n_layer: int) -> None:
        self.layers = [LayerCache() for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """Tokens that have been read: the position of the next one."""
        return self.layers[-1].length

    def rows(self, numbers: Tensor, room: int = 0) -> "KVCache":
        """A copy with these rows of the batch, one or many times each: a prefix, to be continued in
        several ways.

        numbers: [n] int64, where the model is. room: tokens that will follow, so that nothing is
        copied again for them
        """
        copy = KVCache(0)
        copy.layers = [layer.rows(numbers, room) for layer in self.layers]
        return copy


def layers_of(cache: KVCache | None, n_layer: int) -> list[LayerCache] | list[None]:
    """The cache of each layer; without one, None for each."""
    return [None] * n_layer if cache is None else cache.layers


def positions_after(cache: KVCache | None, tokens: Tensor) -> Tensor:
    """The positions of tokens that follow what is cached. tokens: [batch, time] -> [time] int64"""
    first = 0 if cache is None else cache.length
    return torch.arange(first, first + tokens.size(1), device=tokens.device)
