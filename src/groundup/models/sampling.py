"""Sampling as pure functions: logits and a uniform number in, a token out."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class LanguageModel(Protocol):
    """What generation needs of a model."""

    @property
    def block_size(self) -> int: ...

    def hidden(self, tokens: Tensor) -> Tensor: ...

    @property
    def head(self) -> Callable[[Tensor], Tensor]: ...


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """All but the `top_k` largest logits of each row become -inf (Fan et al. 2018); ties stay, 0
    keeps all.

    logits: [batch, vocab] -> [batch, vocab]
    """
    if top_k == 0 or top_k >= logits.size(-1):
        return logits
    smallest_kept = logits.topk(top_k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the fewest most probable tokens whose probability reaches `top_p` (nucleus, Holtzman et
    al. 2020).

    logits: [batch, vocab] -> [batch, vocab]
    """
    if top_p >= 1.0:
        return logits
    sorted_logits, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = sorted_logits.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # the mass of all more probable tokens
    surplus = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logits.masked_fill(surplus, -math.inf)


def precise(values: Tensor) -> Tensor:
    """The values in float64 where the device has it, else in float32."""
    return values.float() if values.device.type == "mps" else values.double()


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `uniform`: inverse transform sampling.

    probabilities: [batch, vocab], uniform: [batch] in [0, 1) -> [batch] int64
    """
    cumulative = precise(probabilities).cumsum(dim=-1)
    threshold = uniform.to(cumulative) * cumulative[:, -1]
    token = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
    # rounding must not pass it
    last_possible = (probabilities > 0).long().cumsum(dim=-1).argmax(dim=-1)
    return torch.minimum(token, last_possible)


def next_token(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """The next token of each row; temperature 0 takes the most probable.

    logits: [batch, vocab], uniform: [batch] in [0, 1) -> [batch] int64
    """
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    logits = precise(logits)
    # a tiny temperature can't make inf - inf
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    return draw(F.softmax(keep_top_p(keep_top_k(scaled, top_k), top_p), dim=-1), uniform)


@torch.no_grad()
def generate(
    model: LanguageModel,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Append `max_new_tokens` sampled tokens, each from the newest `block_size` ones: plain,
    uncached, the oracle.

    tokens: [batch, time] int64, time >= 1 -> [batch, time + max_new_tokens]
    """
    for _ in range(max_new_tokens):
        context = tokens[:, -model.block_size :]
        # [batch, vocab]: what follows the last token
        logits = model.head(model.hidden(context)[:, -1])
        uniform = torch.rand(tokens.size(0), generator=generator).to(tokens.device)
        tokens = torch.cat(
            [tokens, next_token(logits, uniform, temperature, top_k, top_p)[:, None]], dim=1
        )
    return tokens
