"""Which parameter goes to which optimizer, as data: rules of a name pattern each, and the first
match wins.
"""

import re
from dataclasses import dataclass

import torch
from torch import nn

from groundup.optim.muon import Matrix, Muon, split_rows
from groundup.recipes.schema import OptimSection, Recipe


@dataclass(frozen=True)
class Rule:
    """Parameters whose names match `pattern`: whether they decay, and how Muon takes them where it
    is used.

    matrices: how many matrices lie on top of each other in one parameter; 0 keeps Muon away from
    it. joined: what is left of a name when the parameters are rows of one matrix, as a replacement
    for the pattern.
    """

    pattern: str
    decays: bool
    matrices: int = 0
    joined: str = r"\g<0>"


# Matrices decay, GPT-2's embeddings among them; norms and biases don't (Loshchilov & Hutter 2019;
# GPT-2).
# Q, K and V are orthogonalised as separate matrices, and all heads of one together, however a model
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
    """The rules of what the recipe trains."""
    return LORA_RULES if recipe.lora.rank else RULES[recipe.model.architecture]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, all parameters but those that are frozen."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def group_parameters(
    model: nn.Module, rules: tuple[Rule, ...]
) -> list[tuple[Rule, dict[str, nn.Parameter]]]:
    """Each rule with its parameters by name, every parameter that trains under exactly one rule.

    A rule that matches nothing and a parameter that no rule matches are errors: AssertionError
    names them.
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
    """AdamW (Loshchilov & Hutter 2019), and Muon before it where the recipe has it for the matrices
    of the blocks.

    Every group keeps its peak as `initial_lr`; the schedule moves the learning rate. precision: of
    Muon's products.
    """
    groups = group_parameters(model, rules)
    uses_muon = section.optimizer == "muon"
    adamw = [
        {
            "params": list(members.values()),
            "weight_decay": section.weight_decay if rule.decays else 0.0,
            "initial_lr": section.learning_rate,
        }
        for rule, members in groups
        if not (uses_muon and rule.matrices)
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if uses_muon:
        matrices = [
            matrix
            for rule, members in groups
            if rule.matrices
            for matrix in matrices_of(rule, members)
        ]
        momentum, decay = section.muon_momentum, section.weight_decay
        optimizers.append(Muon(matrices, section.muon_learning_rate, momentum, decay, precision))
    optimizers.append(
        torch.optim.AdamW(
            adamw, lr=section.learning_rate, betas=section.betas, eps=1e-8, fused=True
        )
    )
    return optimizers


def matrices_of(rule: Rule, members: dict[str, nn.Parameter]) -> list[Matrix]:
    """The matrices that Muon orthogonalises: parts of a parameter, a parameter, or several under
    each other.
    """
    if rule.matrices > 1:
        return [
            matrix
            for parameter in members.values()
            for matrix in split_rows(parameter, rule.matrices)
        ]
    joined: dict[str, Matrix] = {}
    for name, parameter in members.items():
        joined.setdefault(re.sub(rule.pattern, rule.joined, name), []).extend(
            split_rows(parameter, 1)[0]
        )
    return list(joined.values())
