"""A model with nanoGPT's names and shapes, and the files that nanoGPT leaves of it, for tests.

It is written from the descriptions of GPT-2 and of nanoGPT's checkpoints: its attention, its GELU
and its norms are spelled out, and nothing of groundup computes in it.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TEXT = (
    "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n" * 40
)
CHARACTERS = sorted(set(TEXT))
SHAPE = {"block_size": 16, "vocab_size": len(CHARACTERS), "n_layer": 2, "n_head": 2, "n_embd": 16}


class Shaped(nn.Module):
    """A scale, and a shift if there are biases."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        centred = hidden - hidden.mean(-1, keepdim=True)
        normal = centred * (centred.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
        return normal * self.weight + (0.0 if self.bias is None else self.bias)


class StandIn(nn.Module):
    """What nanoGPT's model computes, with its names.

    Args:
        shape: What nanoGPT's `model_args` say of sizes.
        bias: Whether linear layers and norms have biases.
        exact: Whether GELU is exact, as since June 2023, or GPT-2's tanh formula, as before.
    """

    def __init__(self, shape: dict[str, int], bias: bool = True, exact: bool = False) -> None:
        super().__init__()
        self.n_head, self.exact, width = shape["n_head"], exact, shape["n_embd"]

        def block() -> nn.Module:
            linear = {"c_attn": (width, 3 * width), "c_proj": (width, width)}
            wide = {"c_fc": (width, 4 * width), "c_proj": (4 * width, width)}
            parts = (
                {name: nn.Linear(*sizes, bias=bias) for name, sizes in part.items()}
                for part in (linear, wide)
            )
            attn, mlp = (nn.ModuleDict(part) for part in parts)
            norms = {"ln_1": Shaped(width, bias), "ln_2": Shaped(width, bias)}
            return nn.ModuleDict({**norms, "attn": attn, "mlp": mlp})

        tables = {
            "wte": nn.Embedding(shape["vocab_size"], width),
            "wpe": nn.Embedding(shape["block_size"], width),
        }
        blocks = nn.ModuleList(block() for _ in range(shape["n_layer"]))
        self.transformer = nn.ModuleDict({**tables, "h": blocks, "ln_f": Shaped(width, bias)})
        self.lm_head = nn.Linear(width, shape["vocab_size"], bias=False)
        self.lm_head.weight = self.transformer["wte"].weight
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():  # far from what a new model has, so that all counts
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.data = noise + (1.0 if parameter.dim() == 1 else 0.0)

    def forward(self, tokens: Tensor) -> Tensor:
        parts: Any = self.transformer
        hidden = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.size(1)))
        for block in parts["h"]:
            hidden = hidden + self.attention(block["attn"], block["ln_1"](hidden))
            hidden = hidden + self.mlp(block["mlp"], block["ln_2"](hidden))
        return self.lm_head(parts["ln_f"](hidden))

    def attention(self, parts: Any, hidden: Tensor) -> Tensor:
        future = torch.ones(hidden.size(1), hidden.size(1), dtype=torch.bool).triu(1)
        query, key, value = (
            each.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for each in parts["c_attn"](hidden).chunk(3, dim=-1)
        )
        scores = query @ key.mT / math.sqrt(key.size(-1))
        found = scores.masked_fill(future, -math.inf).softmax(-1) @ value
        return parts["c_proj"](found.transpose(1, 2).flatten(2))

    def mlp(self, parts: Any, hidden: Tensor) -> Tensor:
        x = parts["c_fc"](hidden)
        if self.exact:
            share = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        else:
            share = 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return parts["c_proj"](x * share)


def write_checkpoint(out: Path, model: StandIn, shape: dict[str, int], /, **changes: Any) -> None:
    """Write `ckpt.pt` as nanoGPT's train.py does, after a step of AdamW.

    Args:
        out: The folder, which is made.
        model: The model.
        shape: Its shape.
        changes: What is stated otherwise: `model`, `best_val_loss`, `model_args` and so on.
    """
    out.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    optimizer.step()
    bias = model.transformer["ln_f"].bias is not None
    whole = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "model_args": {**shape, "bias": bias, "dropout": 0.2},
        "iter_num": 2000,
        "best_val_loss": torch.tensor(1.4697),
        "config": {"out_dir": "out", "learning_rate": 1e-3, "compile": True},
    }
    torch.save(whole | changes, out / "ckpt.pt")


def write_data(folder: Path, text: str = TEXT) -> np.ndarray:
    """Write the files of nanoGPT's `data/shakespeare_char`: uint16 tokens, and `meta.pkl`.

    Returns:
        The tokens of `val.bin`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stoi = {character: token for token, character in enumerate(CHARACTERS)}
    tokens = np.array([stoi[character] for character in text], dtype=np.uint16)
    cut = int(0.9 * len(tokens))
    tokens[:cut].tofile(folder / "train.bin")
    tokens[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(stoi), "itos": dict(enumerate(CHARACTERS)), "stoi": stoi}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    (folder / "input.txt").write_text(text, "utf-8")
    (folder / "prepare.py").write_text("# makes them\n", "utf-8")
    return tokens[cut:]
