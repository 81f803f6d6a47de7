"""Claim: every part of the modern model and its training earns its time.

python benchmarks/ablations.py [RECIPE] [flags of groundup train] [--seeds 1 2 3] [--minutes 0.25]

Each row takes one idea away from the recipe and trains for the same time; its difference is what
the idea bought. (`groundup ladder` goes the other way: it begins with a bigram and adds.) The model
has no switches for this: the parts are exchanged here, in the finished model.
"""

import argparse
import math
import statistics
from dataclasses import replace

import torch
from torch import Tensor, nn

from common import conclude, recipe_with
from groundup.models.ladder import PlainMLP
from groundup.models.modern import Modern, Rotation
from groundup.models.registry import Model
from groundup.recipes.schema import Recipe
from trained import Change, Variant, compare, markdown, text_of


class Unturned(nn.Module):
    """Instead of rotations: nothing. The positions are learned and added to the embedding."""

    def forward(self, positions: Tensor) -> Rotation:
        angle = torch.zeros(*positions.shape, 1, device=positions.device)[:, None]
        return angle.cos(), angle.sin()


class WithPositions(nn.Embedding):
    """A token's vector and a learned one of its position (Radford et al. 2019)."""

    def __init__(self, tokens: nn.Embedding, block_size: int) -> None:
        super().__init__(tokens.num_embeddings, tokens.embedding_dim)
        self.weight = tokens.weight
        self.embed_positions = nn.Embedding(block_size, tokens.embedding_dim)
        nn.init.normal_(self.embed_positions.weight, std=0.02)

    def forward(self, input: Tensor) -> Tensor:
        positions = self.embed_positions.weight[: input.size(1)]
        return super().forward(input) + positions


def without_rope(model: Model) -> None:
    """Learned positions instead."""
    assert isinstance(model, Modern)
    model.model.rotary = Unturned()  # pyright: ignore[reportAttributeAccessIssue]
    model.model.embed_tokens = WithPositions(model.model.embed_tokens, model.block_size)


def without_qk_norm(model: Model) -> None:
    """Queries and keys as they come."""
    assert isinstance(model, Modern)
    for layer in model.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = nn.Identity()  # pyright: ignore


def without_swiglu(model: Model) -> None:
    """An MLP of two matrices instead of three, with as many parameters."""
    assert isinstance(model, Modern)
    for layer in model.model.layers:
        plain = PlainMLP(model.config)
        nn.init.normal_(plain.up_proj.weight, std=0.02)
        nn.init.zeros_(plain.down_proj.weight)
        layer.mlp = plain  # pyright: ignore[reportAttributeAccessIssue]


def without_zero_init(model: Model) -> None:
    """What writes to the residual stream starts as GPT-2's does."""
    assert isinstance(model, Modern)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * model.config.n_layer))


def variants_of(recipe: Recipe) -> list[Variant]:
    """The recipe whole, and without each of its ideas."""
    adamw = replace(
        recipe.optim, optimizer="adamw", learning_rate=3e-3, warmup_steps=50, betas=(0.9, 0.99)
    )
    taken: dict[str, tuple[Recipe, Change | None]] = {
        "all of it": (recipe, None),
        "learned positions instead of RoPE": (recipe, without_rope),
        "without QK-norm": (recipe, without_qk_norm),
        "GELU instead of SwiGLU": (recipe, without_swiglu),
        "without zero-init": (recipe, without_zero_init),
        "AdamW at 3e-3 instead of Muon": (replace(recipe, optim=adamw), None),
        "cosine instead of WSD": (
            replace(recipe, optim=replace(recipe.optim, schedule="cosine")),
            None,
        ),
        "float32 instead of bfloat16": (
            replace(recipe, train=replace(recipe.train, precision="float32")),
            None,
        ),
    }
    return [Variant(name, changed, change) for name, (changed, change) in taken.items()]


def main(words: list[str] | None = None) -> None:
    """Train all, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="shakespeare-fast")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=0.25)
    given, flags = parser.parse_known_args(words)
    recipe = recipe_with(given.recipe, [*flags, "--train.minutes", str(given.minutes)])
    found = compare(variants_of(recipe), given.seeds, text_of(recipe))
    print(markdown(found))
    medians = {
        name: statistics.median(outcome.loss for outcome in outcomes)
        for name, outcomes in found.items()
    }
    ours = medians.pop("all of it")
    claim = (
        "every idea of the modern model and its training earns its time (against the least useful "
        "one)"
    )
    peer = min(medians.values())
    conclude(claim, ours=ours, peer=peer, ratio=peer / ours, unit="nats a token")


if __name__ == "__main__":
    main()
