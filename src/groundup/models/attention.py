"""Causal attention by the fastest kernel that the machine has for it."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

QUERIES_AT_ONCE = 128  # as measured: benchmarks/cpu_attention.py


def causal_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Softmax(Q K^T / sqrt(head_dim)) V, each token seeing itself and its past (Vaswani et al.
    2017, section 3.2.1).

    query: [batch, n_head, time, head_dim]; key, value: [batch, n_kv_head, time, head_dim], each of
    which serves n_head / n_kv_head queries in a row -> [batch, n_head, time, head_dim]. More keys
    than queries: the first ones are those of a cache, and the queries are the last tokens.
    """
    grouped = key.size(1) != query.size(1)
    if key.size(-2) != query.size(-2):
        return attention_after_cache(query, key, value, grouped)
    if value.device.type != "cpu" or value.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, enable_gqa=grouped
        )
    if 128 <= query.size(-2) <= 512:  # as measured: benchmarks/cpu_attention.py
        return attention_by_products(query, key, value, dropout)
    # the kernel's backward is several times slower in bfloat16
    with torch.autocast("cpu", enabled=False):
        found = F.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            dropout_p=dropout,
            is_causal=True,
            enable_gqa=grouped,
        )
    return found.to(value.dtype)


def attention_after_cache(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> Tensor:
    """The same for the last tokens of those that there are keys for, without dropout: a cache is
    for inference.
    """
    new, all_of_them = query.size(-2), key.size(-2)
    seen = None  # a single token sees everything
    if new > 1:
        seen = torch.ones(new, all_of_them, dtype=torch.bool, device=query.device).tril(
            all_of_them - new
        )
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, enable_gqa=grouped)


def attention_by_products(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """The same by batched products in the dtype of `value`, with what is exponential and summed in
    float32.

    Some queries at a time, against the keys that they may see. The sum of the weights divides what
    they picked, not the weights: two passes over the scores less going forward, and two less going
    back.
    """
    queries = (
        (query.float() / math.sqrt(query.size(-1))).to(value.dtype).unflatten(1, (key.size(1), -1))
    )
    # [batch, n_kv_head, sharing, time, head_dim]
    keys, values = key.to(value.dtype).unsqueeze(2), value.unsqueeze(2)
    found, first = [], 0
    for some in queries.split(QUERIES_AT_ONCE, dim=-2):
        last = first + some.size(-2)
        scores = (some @ keys[..., :last, :].mT).float()  # [..., queries, keys]
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).triu(
            1 + first
        )
        scores = scores.masked_fill(future, -math.inf)
        weights = (scores - scores.detach().amax(dim=-1, keepdim=True)).exp()
        picked = F.dropout(weights, dropout).to(value.dtype) @ values[..., :last, :]
        found.append((picked.float() / weights.sum(dim=-1, keepdim=True)).to(value.dtype))
        first = last
    return torch.cat(found, dim=-2).flatten(1, 2)
