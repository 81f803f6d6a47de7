"""Model folders as others publish them: in shards, with old names, with buffers that compute
nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def published(folder: Path) -> None:
    """Rewrite a GPT-2 folder as OpenAI's are on the hub: no `transformer.` before names, causal
    masks among them.
    """
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(folder / WHOLE).items()
    }
    n_layer = sum(name.endswith(".ln_1.weight") for name in tensors)
    for layer in range(n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 8, 8).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / WHOLE, metadata={"format": "pt"})


def shard(folder: Path, count: int = 2) -> dict[str, str]:
    """Cut a folder's weights into several files with an index, as save_pretrained does: which
    tensor is in which.
    """
    tensors = load_file(folder / WHOLE)
    (folder / WHOLE).unlink()
    files: dict[str, dict[str, Tensor]] = {}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        files.setdefault(f"model-{number % count + 1:05d}-of-{count:05d}.safetensors", {})[name] = (
            tensor
        )
    for file, content in files.items():
        save_file(content, folder / file, metadata={"format": "pt"})
    places = {name: file for file, content in files.items() for name in content}
    write_index(folder, places)
    return places


def write_index(folder: Path, places: Mapping[str, object]) -> None:
    """`model.safetensors.index.json` with that map."""
    (folder / INDEX).write_text(
        json.dumps({"metadata": {"total_size": 0}, "weight_map": places}), "utf-8"
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, as a repository holds them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
