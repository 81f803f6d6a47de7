"""The rungs of the ladder, in order: each has a name, what it changes, and a sentence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from groundup.models import ladder as parts
from groundup.models import modern
from groundup.models.config import ModernConfig
from groundup.models.ladder import LadderGPT, Parts

STEPWISE = {"optimizer": "adamw", "schedule": "constant", "warmup_steps": 0}


@dataclass(frozen=True)
class Rung:
    """One step up.

    Args:
        name: Its name, in tables and pictures.
        sentence: What it does, for a reader who climbs.
        model: The parts of the model that it exchanges.
        optim: The fields of the recipe's section `optim` that it changes.
        train: The fields of the recipe's section `train` that it changes.
        only_speed: Whether the same numbers are computed in another way, up to rounding.
        weights: Turns the first weights of the rung below into this one's; None draws new ones.
    """

    name: str
    sentence: str
    model: Mapping[str, Any] = field(default_factory=dict)
    optim: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    only_speed: bool = False
    weights: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None


RUNGS = (
    Rung(
        "bigram",
        "A table says how probable each token is after each other one. Nothing else is seen.",
        {"initialise": parts.small_normals},
        STEPWISE,
        {"precision": "float32", "compile": "off"},
    ),
    Rung(
        "one head",
        "Tokens and positions become vectors, and a head of attention reads those before.",
        {
            "embedding": parts.TokensAndPositions,
            "attention": parts.one_head,
            "depth": 1,
            "initialise": parts.as_torch_does,
        },
    ),
    Rung(
        "many heads",
        "Several narrow heads read instead of a wide one, and a matrix mixes what they found.",
        {"attention": parts.many_heads},
    ),
    Rung("MLP", "After attention, a network reads each position alone.", {"mlp": parts.mlp}),
    Rung("depth", "Attention and MLP, which are a block, are repeated.", {"depth": None}),
    Rung(
        "residuals",
        "Each part adds to a stream instead of replacing it, so that gradients reach every block.",
        {"join": parts.Residual},
    ),
    Rung(
        "norms",
        "Each part reads a normalised copy of the stream (LayerNorm), and so does the head.",
        {"norm": parts.layer_norm},
    ),
    Rung(
        "initialisation",
        "Weights begin small, and those that write to the stream smaller the deeper the model is.",
        {"initialise": parts.as_gpt2},
    ),
    Rung(
        "GPT-2",
        "One table reads tokens and writes them. This is the readable GPT-2.",
        {"is_tied": True},
    ),
    Rung(
        "fused",
        "The same numbers from fewer and larger operations: one product for all heads, one kernel.",
        {"attention": parts.FusedHeads, "mlp": parts.fused_mlp, "norm": parts.fused_norm},
        only_speed=True,
        weights=parts.fused_weights,
    ),
    Rung(
        "no biases",
        "Products lose their biases; queries, keys and values get a product each.",
        {"attention": parts.PlainHeads, "mlp": parts.PlainMLP},
    ),
    Rung(
        "RoPE",
        "Queries and keys are turned by their positions, instead of learned vectors of positions.",
        {"embedding": parts.Tokens, "attention": parts.TurnedHeads},
    ),
    Rung("RMSNorm", "Norms lose their mean and their bias.", {"norm": parts.rms_norm}),
    Rung("SwiGLU", "The MLP multiplies two products, one of which is a gate.", {"mlp": modern.MLP}),
    Rung(
        "grouped queries",
        "Heads of queries share heads of keys and values, which makes a smaller cache.",
        {"attention": parts.GroupedHeads},
    ),
    Rung(
        "QK-norm",
        "Queries and keys are normalised before they are turned. This is the modern model.",
        {"attention": parts.NormalisedHeads},
    ),
    Rung(
        "zero init",
        "What writes to the stream begins at zero, so that each block adds nothing at first.",
        {"initialise": parts.writing_zeros},
    ),
    Rung(
        "Muon",
        "Updates of the blocks' matrices are made orthogonal; AdamW keeps the table and the norms.",
        optim={"optimizer": "muon"},
    ),
    Rung(
        "schedule",
        "The learning rate falls to zero over the last part of training.",
        optim={"schedule": "wsd"},
    ),
    Rung(
        "bfloat16",
        "Products are computed from numbers of 16 bits; weights keep 32.",
        train={"precision": "bfloat16"},
        only_speed=True,
    ),
    Rung(
        "compiled",
        "torch.compile joins operations, so that memory is passed through less often.",
        train={"compile": "on"},
        only_speed=True,
    ),
)


def parts_of(rung: Rung) -> Parts:
    """Return the parts of a rung's model: its own changes after those of all rungs below."""
    return replace(Parts(), **changes_of(rung, "model"))


def changes_of(rung: Rung, what: str) -> dict[str, Any]:
    """Return what is changed up to a rung: of a later change and an earlier one the later.

    Args:
        rung: The rung.
        what: `model`, for parts; `optim` or `train`, for fields of these sections of a recipe.
    """
    changes: dict[str, Any] = {}
    for each in RUNGS[: RUNGS.index(rung) + 1]:
        changes |= getattr(each, what)
    return changes


def build_rung(rung: Rung, config: ModernConfig) -> LadderGPT:
    """Build a rung's model of a shape, with weights drawn by torch's default generator."""
    if rung.weights is None:
        return LadderGPT(config, parts_of(rung))
    below = build_rung(RUNGS[RUNGS.index(rung) - 1], config)
    model = LadderGPT(config, parts_of(rung))
    model.load_state_dict(rung.weights(below.state_dict()))
    return model
