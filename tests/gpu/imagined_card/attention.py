"""Which kernel torch takes on the imagined card for each way that groundup asks for attention."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from imagined_card.imagined import CARD
from imagined_card.watch import Watch
from torch import Tensor

from groundup.models.attention import causal_attention
from groundup.models.cache import KVCache

ROWS, HEADS, TOKENS, HEAD_DIM = 2, 12, 256, 64
SHARING = 3  # heads of queries that share one of keys and values
WAYS = {
    "each head alone": 1,
    "grouped": SHARING,
}


def attention_kernels() -> dict[str, list[str]]:
    """The kernels in training by dtype, groups and dropout, and those of tokens after others."""
    found = {}
    for way, sharing in WAYS.items():
        for dtype in (torch.bfloat16, torch.float32):
            query, key = heads(HEADS, TOKENS, dtype), heads(HEADS // sharing, TOKENS, dtype)
            named = f"{str(dtype).removeprefix('torch.')}, {way}"
            for dropout, what in ((0.0, "training"), (0.1, "training with dropout")):
                attend = partial(causal_attention, query, key, key, dropout)
                found[f"{named}, {what}"] = kernels(attend)
            with torch.no_grad():
                found |= {f"{named}, {what}": which for what, which in cached(dtype, sharing)}
    return found


def cached(dtype: torch.dtype, sharing: int) -> list[tuple[str, list[str]]]:
    """The kernels of the tokens of a prompt, of two more tokens, and of one."""
    cache, found = KVCache(1, 2 * TOKENS), []
    for tokens, what in ((TOKENS, "a prompt"), (2, "two tokens after it"), (1, "one token")):
        cache.positions(torch.zeros(ROWS, tokens, dtype=torch.int64, device=CARD), 2 * TOKENS)
        query, key = heads(HEADS, tokens, dtype), heads(HEADS // sharing, tokens, dtype)
        found.append((what, kernels(partial(cache.attention(0), query, key, key, 0.0))))
    return found


def heads(count: int, tokens: int, dtype: torch.dtype) -> Tensor:
    """Queries or keys, [rows, heads, time, head_dim]."""
    shape = ROWS, count, tokens, HEAD_DIM
    return torch.empty(shape, dtype=dtype, device=CARD, requires_grad=torch.is_grad_enabled())


def kernels(attend: Callable[[], Any]) -> list[str]:
    """The operations by which attention is computed: a kernel of its own, or products."""
    with Watch() as watch:
        attend()
    names = {name for name, _, _ in watch.operations}
    return sorted(name for name in names if "scaled_dot" in name or "mm" in name)
