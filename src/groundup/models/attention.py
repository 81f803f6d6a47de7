"""Causal attention by the fastest kernel that the machine has for it."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

QUERIES_AT_ONCE = 128  # as measured: benchmarks/cpu_attention.py


def causal_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Compute the attention of tokens, each of which sees itself and those before.

        y_t = sum_s p_ts v_s,  p_ts = softmax_s(q_t . k_s / sqrt(d)),  s <= t

    The formula is that of Vaswani et al. 2017, section 3.2.1. Each head of keys and values serves
    n_head / n_kv_head consecutive heads of queries.

    Args:
        query: [batch, n_head, time, head_dim].
        key: [batch, n_kv_head, time, head_dim].
        value: [batch, n_kv_head, time, head_dim].
        dropout: The probability with which a weight of attention is zeroed.

    Returns:
        [batch, n_head, time, head_dim].
    """
    grouped = bool(key.size(1) != query.size(1))  # traced, sizes are tensors
    if value.device.type != "cpu" or value.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, enable_gqa=grouped
        )
    # a graph that is exported holds for all lengths
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    exported = tracing or torch.compiler.is_exporting()
    if not exported and 128 <= query.size(-2) <= 512:  # as measured: benchmarks/cpu_attention.py
        return attention_by_products(query, key, value, dropout)
    # the kernel's backward is several times slower in bfloat16
    query, key, value32 = query.float(), key.float(), value.float()
    with torch.autocast("cpu", enabled=False):
        found = F.scaled_dot_product_attention(
            query, key, value32, dropout_p=dropout, is_causal=True, enable_gqa=grouped
        )
    return found.to(value.dtype)


def attention_by_products(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Compute causal attention by batched products in the dtype of `value`.

    Exponentials and sums are taken in float32. The queries are taken in groups, each with only the
    keys that it may see. The weighted sums of values are divided by the sum of the
    weights, instead of the weights themselves, which saves two passes over the scores forward and
    two backward.

    Args:
        query: [batch, n_head, time, head_dim].
        key: [batch, n_kv_head, time, head_dim].
        value: [batch, n_kv_head, time, head_dim].
        dropout: The probability with which a weight of attention is zeroed.

    Returns:
        [batch, n_head, time, head_dim] in the dtype of `value`.
    """
    queries = (query.float() / math.sqrt(query.size(-1))).to(value.dtype)
    queries = queries.unflatten(1, (key.size(1), -1))  # [batch, n_kv_head, sharing, time, head_dim]
    keys, values = key.to(value.dtype).unsqueeze(2), value.unsqueeze(2)
    found, first = [], 0
    for some in queries.split(QUERIES_AT_ONCE, dim=-2):
        last = first + some.size(-2)
        scores = (some @ keys[..., :last, :].mT).float()  # [..., queries, keys]
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device)
        scores = scores.masked_fill(future.triu(1 + first), -math.inf)
        weights = (scores - scores.detach().amax(dim=-1, keepdim=True)).exp()
        picked = F.dropout(weights, dropout).to(value.dtype) @ values[..., :last, :]
        found.append((picked.float() / weights.sum(dim=-1, keepdim=True)).to(value.dtype))
        first = last
    return torch.cat(found, dim=-2).flatten(1, 2)
