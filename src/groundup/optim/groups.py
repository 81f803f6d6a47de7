"""Which parameter goes to which optimizer, by rules with a pattern of names each."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from groundup.optim.muon import Matrix, Muon, split_rows
from groundup.recipes.schema import OptimSection, Recipe


@dataclass(frozen=True)
class Rule:
    """How parameters whose names match a pattern are optimized.

    Of several rules the first whose pattern matches counts.

    Attributes:
        pattern: A regular expression for the whole name.
        decays: Whether weight decay shrinks the parameters.
        matrices: The number of matrices that one parameter holds, each below the one before, for
            Muon. With 0 the parameter is left to AdamW.
        joined: What replaces the pattern in a name. Parameters that then have one name are rows of
            one matrix.
    """

    pattern: str
    decays: bool
    matrices: int = 0
    joined: str = r"\g<0>"


# Matrices decay, GPT-2's embeddings among them; norms and biases don't (Loshchilov & Hutter 2019;
# GPT-2). Muon takes Q, K and V as separate matrices, and all heads of one together, however a model
# stores them.
RULES: dict[str, tuple[Rule, ...]] = {
    "bigram": (Rule(r"head\.weight", decays=True),),
    "readable": (
        Rule(r".*\.(bias|scale|shift)", decays=False),
        Rule(
            r"(.*)\.heads\.\d+\.(query|key|value)\.weight", decays=True, matrices=1, joined=r"\1.\2"
        ),
        Rule(r"blocks\..*\.weight", decays=True, matrices=1),
        Rule(r".*\.weight", decays=True),
    ),
    "gpt2": (
        Rule(r".*\.bias", decays=False),
        Rule(r".*\.ln_\w+\.weight", decays=False),
        Rule(r".*\.c_attn\.weight", decays=True, matrices=3),
        Rule(r".*\.c_(fc|proj)\.weight", decays=True, matrices=1),
        Rule(r".*\.weight", decays=True),
    ),
    "modern": (
        Rule(r".*norm\.weight", decays=False),
        Rule(r".*_proj\.weight", decays=True, matrices=1),
        Rule(r"(.*\.embed_\w+|lm_head)\.weight", decays=False),
    ),
}

# Of a model with adapters (models/lora.py): only they train, and decay towards the model as it was.
LORA_RULES = (Rule(r".*\.lora_[AB]\.weight", decays=True),)


def rules_of(recipe: Recipe) -> tuple[Rule, ...]:
    """Return the rules that say how each parameter that a recipe trains is optimized.

    A recipe trains a whole model, or LoRA adapters on a model.
    """
    return LORA_RULES if recipe.lora.rank else RULES[recipe.model.architecture]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return all parameters that aren't frozen, by name."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def group_parameters(
    model: nn.Module, rules: tuple[Rule, ...]
) -> list[tuple[Rule, dict[str, nn.Parameter]]]:
    """Pair each rule with the parameters that it is the first to match, by their names.

    Frozen parameters are left out. A rule without a parameter fails an assertion, as does a
    parameter without a rule.
    """
    groups: list[tuple[Rule, dict[str, nn.Parameter]]] = [(rule, {}) for rule in rules]
    for name, parameter in trained_parameters(model).items():
        matching = next(
            (members for rule, members in groups if re.fullmatch(rule.pattern, name)), None
        )
        assert matching is not None, f"no optimizer rule matches parameter {name}"
        matching[name] = parameter
    for rule, members in groups:
        assert members, f"optimizer rule {rule.pattern!r} matches no parameter"
    return groups


def build_optimizers(
    model: nn.Module,
    rules: tuple[Rule, ...],
    section: OptimSection,
    precision: torch.dtype = torch.float32,
) -> list[torch.optim.Optimizer]:
    """Build AdamW, and Muon for the blocks' matrices if it is asked for.

        m <- beta1 m + (1 - beta1) g;  m2 <- beta2 m2 + (1 - beta2) g^2
        W <- W - lr decay W - lr m / (1 - beta1^step) / (sqrt(m2 / (1 - beta2^step)) + eps)

    That is AdamW (Loshchilov & Hutter 2019, algorithm 2).
    Each parameter group of an optimizer keeps its highest learning rate as `initial_lr`, while the
    learning rate's schedule changes `lr`.

    Args:
        model: The model, once `distribute` has spread it over the processes.
        rules: The rules that say which parameter goes to which optimizer.
        section: The recipe's section with the optimizer and its settings.
        precision: The dtype of Muon's matrix products.

    Returns:
        Muon, if the section asks for it, and AdamW.
    """
    rate, decay = section.learning_rate, section.weight_decay
    uses_muon = section.optimizer == "muon"
    adamw: list[dict[str, Any]] = []
    matrices: list[Matrix] = []
    for rule, members in group_parameters(model, rules):
        if uses_muon and rule.matrices:
            matrices += matrices_of(rule, members)
        else:
            settings = {"weight_decay": decay if rule.decays else 0.0, "initial_lr": rate}
            adamw.append({"params": list(members.values()), **settings})
    optimizers: list[torch.optim.Optimizer] = []
    if uses_muon:
        momentum = section.muon_momentum
        optimizers.append(Muon(matrices, section.muon_learning_rate, momentum, decay, precision))
    last = torch.optim.AdamW(adamw, lr=rate, betas=section.betas, eps=1e-8, fused=True)
    return [*optimizers, last]


def matrices_of(rule: Rule, members: dict[str, nn.Parameter]) -> list[Matrix]:
    """Find the matrices that Muon orthogonalises.

    A matrix is a part of a parameter, a whole parameter, or several parameters one below another.

    Args:
        rule: The rule, which says how parameters are cut or joined.
        members: The parameters that the rule is for, by name.
    """
    joined: dict[str, list[Matrix]] = {}
    for name, parameter in members.items():
        parts = split_rows(parameter, rule.matrices)
        known = joined.setdefault(re.sub(rule.pattern, rule.joined, name), [[] for _ in parts])
        for matrix, part in zip(known, parts, strict=True):
            matrix.extend(part)
    return [matrix for matrices in joined.values() for matrix in matrices]
