"""Causal attention by the fastest kernel that the machine has for it."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Softmax(Q K^T / sqrt(head_dim)) V, each token seeing itself and its past (Vaswani et al. 2017, section 3.2.1).

    query: [batch, n_head, time, head_dim]; key, value: [batch, n_kv_head, time, head_dim], each of which serves
    n_head / n_kv_head queries in a row -> [batch, n_head, time, head_dim]
    """
    grouped = key.size(1) != query.size(1)
    if value.device.type != "cpu" or value.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, enable_gqa=grouped)
    longest = 512 if torch.compiler.is_compiling() else 256  # as measured: benchmarks/cpu_attention.py
    if query.size(-2) <= longest:
        return attention_by_products(query, key, value, dropout)
    with torch.autocast("cpu", enabled=False):  # the kernel's backward is several times slower in bfloat16
        found = F.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), dropout_p=dropout, is_causal=True, enable_gqa=grouped
        )
    return found.to(value.dtype)


def attention_by_products(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """The same with all scores at once: two batched products in the dtype of `value`, and a softmax in float32."""
    groups, time = query.unflatten(1, (key.size(1), -1)), query.size(-2)  # [batch, n_kv_head, sharing, time, head_dim]
    scores = groups.to(value.dtype) @ key.to(value.dtype).unsqueeze(2).mT  # [..., time, time]: who asks, who answers
    future = torch.ones(time, time, dtype=torch.bool, device=query.device).triu(1)
    scores = (scores.float() / math.sqrt(query.size(-1))).masked_fill(future, -math.inf)
    weights = F.dropout(scores.softmax(dim=-1), dropout).to(value.dtype)
    return (weights @ value.unsqueeze(2)).flatten(1, 2)
