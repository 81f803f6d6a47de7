"""Maps the weights of `readable.py` to those of `gpt2.py` and back, exactly."""

import torch
from torch import Tensor

Weights = dict[str, Tensor]

# tensors that both models hold whole, under different names; attention's heads are stacked
TOP = {
    "token_embedding.weight": "transformer.wte.weight",
    "position_embedding.weight": "transformer.wpe.weight",
    "norm.scale": "transformer.ln_f.weight",
    "norm.shift": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
}
BLOCK = {
    "attention_norm.scale": "ln_1.weight",
    "attention_norm.shift": "ln_1.bias",
    "attention.projection.weight": "attn.c_proj.weight",
    "attention.projection.bias": "attn.c_proj.bias",
    "mlp_norm.scale": "ln_2.weight",
    "mlp_norm.shift": "ln_2.bias",
    "mlp.expand.weight": "mlp.c_fc.weight",
    "mlp.expand.bias": "mlp.c_fc.bias",
    "mlp.contract.weight": "mlp.c_proj.weight",
    "mlp.contract.bias": "mlp.c_proj.bias",
}
STACKED = ("query", "key", "value")


def _names(n_layer: int) -> dict[str, str]:
    """Readable name -> GPT-2 name, for every tensor that is stored whole in both."""
    names = dict(TOP)
    for layer in range(n_layer):
        h = f"transformer.h.{layer}"
        names |= {f"blocks.{layer}.{readable}": f"{h}.{gpt2}" for readable, gpt2 in BLOCK.items()}
    return names


def _head_names(layer: int, n_head: int, kind: str) -> list[str]:
    """What `c_attn` stacks, in its order: all queries, all keys, all values."""
    heads = [f"blocks.{layer}.attention.heads.{head}" for head in range(n_head)]
    return [f"{head}.{part}.{kind}" for part in STACKED for head in heads]


def gpt2_from_readable(weights: Weights, n_layer: int, n_head: int) -> Weights:
    """Map the state dict of a `ReadableGPT` to that of the `GPT2` that computes the same.

    Args:
        weights: The state dict, or gradients by the same names.
        n_layer: The number of blocks of the model.
        n_head: The number of attention heads in a block.
    """
    mapped = {gpt2: weights[readable] for readable, gpt2 in _names(n_layer).items()}
    for layer in range(n_layer):
        for kind in ("weight", "bias"):
            stacked = [weights[name] for name in _head_names(layer, n_head, kind)]
            mapped[f"transformer.h.{layer}.attn.c_attn.{kind}"] = torch.cat(stacked)
    return mapped


def readable_from_gpt2(weights: Weights, n_layer: int, n_head: int) -> Weights:
    """Map the state dict of a `GPT2` to that of the `ReadableGPT` that computes the same.

    Args:
        weights: The state dict, or gradients by the same names.
        n_layer: The number of blocks of the model.
        n_head: The number of attention heads in a block.
    """
    mapped = {readable: weights[gpt2] for readable, gpt2 in _names(n_layer).items()}
    for layer in range(n_layer):
        for kind in ("weight", "bias"):
            stacked = weights[f"transformer.h.{layer}.attn.c_attn.{kind}"].chunk(3 * n_head)
            mapped |= dict(zip(_head_names(layer, n_head, kind), stacked, strict=True))
    return mapped
