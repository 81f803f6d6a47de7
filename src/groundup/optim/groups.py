"""Which parameter goes to which optimizer group, as data: rules of a name pattern each, and the first match wins."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groundup.recipe import OptimSection


@dataclass(frozen=True)
class Rule:
    """Parameters whose names match `pattern` decay, or don't."""

    pattern: str
    decays: bool


# Matrices decay, embeddings among them; norms and biases don't (Loshchilov & Hutter 2019; GPT-2's own practice).
RULES: dict[str, tuple[Rule, ...]] = {
    "bigram": (Rule(r"head\.weight", decays=True),),
    "readable": (
        Rule(r".*\.(bias|scale|shift)", decays=False),
        Rule(r".*\.weight", decays=True),
    ),
    "gpt2": (
        Rule(r".*\.bias", decays=False),
        Rule(r".*\.ln_\w+\.weight", decays=False),
        Rule(r".*\.weight", decays=True),
    ),
}


def group_parameters(model: nn.Module, rules: tuple[Rule, ...]) -> list[tuple[Rule, list[nn.Parameter]]]:
    """Each rule with its parameters, every parameter under exactly one rule.

    A rule that matches nothing and a parameter that no rule matches are errors: AssertionError names them.
    """
    groups: list[tuple[Rule, list[nn.Parameter]]] = [(rule, []) for rule in rules]
    for name, parameter in model.named_parameters():
        matching = next((members for rule, members in groups if re.fullmatch(rule.pattern, name)), None)
        assert matching is not None, f"no optimizer rule matches parameter {name}"
        matching.append(parameter)
    for rule, members in groups:
        assert members, f"optimizer rule {rule.pattern!r} matches no parameter"
    return groups


def build_optimizer(model: nn.Module, rules: tuple[Rule, ...], section: OptimSection) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with one group a rule; the schedule sets the learning rate at each step."""
    groups = [
        {"params": members, "weight_decay": section.weight_decay if rule.decays else 0.0}
        for rule, members in group_parameters(model, rules)
    ]
    return torch.optim.AdamW(groups, lr=section.learning_rate, betas=section.betas, eps=1e-8, fused=True)


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors under `parameter name:state name`, as they are saved."""
    return {
        f"{name}:{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave. Raises KeyError where a parameter has none."""
    for name, parameter in model.named_parameters():
        state = {key.rpartition(":")[2]: value for key, value in tensors.items() if key.rpartition(":")[0] == name}
        if not state:
            raise KeyError(name)
        optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
