"""Which parameter decays is decided by rules: each one matched once, and an optimizer's state
survives a file.
"""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import model_of, perturb
from groundup.models.config import GPTConfig
from groundup.models.registry import MODELS, Model
from groundup.optim.groups import (
    RULES,
    Rule,
    build_optimizers,
    group_parameters,
)
from groundup.optim.state import load_optimizer_state, optimizer_state
from groundup.recipes.schema import OptimSection

CONFIG = GPTConfig(block_size=8, vocab_size=11, n_layer=2, n_head=2, n_embd=8)
SECTION = OptimSection(learning_rate=3e-3, weight_decay=0.25, betas=(0.85, 0.97))
MUON = OptimSection(optimizer="muon", learning_rate=3e-3, weight_decay=0.25)
of_every_model = pytest.mark.parametrize("architecture", MODELS)
of_every_combination = pytest.mark.parametrize(
    ("architecture", "section"),
    [
        (name, section)
        for name in MODELS
        for section in (SECTION, MUON)
        if name != "bigram" or section is SECTION
    ],
    ids=lambda value: value if isinstance(value, str) else value.optimizer,
)


def decays(architecture: str, name: str, parameter: torch.Tensor) -> bool:
    """By the shape, not by a rule: matrices and embeddings do, but for the modern model's
    embedding.
    """
    return parameter.ndim == 2 and not (architecture == "modern" and "embed" in name)


def build(architecture: str) -> Model:
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG)
    perturb(model)
    return model


def train(model: Model, optimizers: list[torch.optim.Optimizer], first: int, last: int) -> None:
    """Steps first to last, each on a batch of its own."""
    for step in range(first, last):
        tokens = torch.randint(0, 11, (2, 4, 8), generator=torch.Generator().manual_seed(step))
        _, loss = model(tokens[0], tokens[1])
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_every_model_has_rules() -> None:
    assert RULES.keys() == MODELS.keys()


@of_every_combination
def test_every_parameter_is_in_exactly_one_group(architecture: str, section: OptimSection) -> None:
    model = build(architecture)
    grouped = [
        id(member)
        for _, members in group_parameters(model, RULES[architecture])
        for member in members.values()
    ]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    optimizers = build_optimizers(model, RULES[architecture], section)
    assert len(optimizers) == (2 if section is MUON else 1)
    given = [
        id(member)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for member in group["params"]
    ]
    assert sorted(given) == sorted(grouped)


@of_every_combination
def test_matrices_decay_and_norms_and_biases_do_not(
    architecture: str, section: OptimSection
) -> None:
    model = build(architecture)
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    optimizers = build_optimizers(model, RULES[architecture], section)
    for group in optimizers[-1].param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (
                0.25 if decays(architecture, name_of[parameter], parameter) else 0.0
            )
        assert group["lr"] == group["initial_lr"] == 3e-3
        assert group["betas"] == section.betas
    for optimizer in optimizers[:-1]:
        for group in optimizer.param_groups:
            assert group["lr"] == group["initial_lr"] == 0.02
            assert group["decay"] == 0.25
            assert all(parameter.ndim == 2 for parameter in group["params"])
            assert not any(
                re.search(r"wte|wpe|embed|head\.", name_of[parameter])
                for parameter in group["params"]
            )


@of_every_model
def test_decay_shrinks_matrices_by_its_formula(architecture: str) -> None:
    """With no gradient, a step multiplies matrices by 1 - lr * decay (Loshchilov & Hutter 2019) and
    no more.
    """
    model = build(architecture)
    optimizers = build_optimizers(model, RULES[architecture], SECTION)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers[0].step()
    for name, parameter in model.named_parameters():
        factor = 1.0 - 3e-3 * 0.25 if decays(architecture, name, parameter) else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-6, atol=0)


@of_every_model
def test_a_rule_that_matches_nothing_is_an_error(architecture: str) -> None:
    rules = (*RULES[architecture], Rule(r"experts\..*", decays=True))
    with pytest.raises(AssertionError, match=r"rule 'experts.*' matches no parameter"):
        group_parameters(build(architecture), rules)


@of_every_model
def test_a_parameter_that_no_rule_matches_is_an_error(architecture: str) -> None:
    model = build(architecture)
    model.register_parameter("stray", nn.Parameter(torch.zeros(2)))
    with pytest.raises(AssertionError, match="no optimizer rule matches parameter stray"):
        group_parameters(model, RULES[architecture])


def test_the_first_matching_rule_wins_and_matches_whole_names() -> None:
    names = ("gain", "gain_of_gate", "again", "bias")
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in names})
    rules = (Rule("gain", decays=False), Rule(".*gain.*", decays=True), Rule(".*", decays=False))
    found = [
        [id(member) for member in members.values()] for _, members in group_parameters(model, rules)
    ]
    assert found == [
        [id(model["gain"])],
        [id(model["again"]), id(model["gain_of_gate"])],
        [id(model["bias"])],
    ]


@of_every_combination
def test_the_state_goes_on_from_a_file(
    architecture: str, section: OptimSection, tmp_path: Path
) -> None:
    rules = RULES[architecture]
    unbroken = build(architecture)
    optimizers = build_optimizers(unbroken, rules, section)
    train(unbroken, optimizers, 0, 3)
    save_file(optimizer_state(unbroken, optimizers), tmp_path / "optimizer.safetensors")
    weights = {name: tensor.clone() for name, tensor in unbroken.state_dict().items()}
    train(unbroken, optimizers, 3, 7)

    resumed = build(architecture)
    resumed.load_state_dict(weights)
    fresh = build_optimizers(resumed, rules, section)
    load_optimizer_state(resumed, fresh, load_file(tmp_path / "optimizer.safetensors"))
    train(resumed, fresh, 3, 7)
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    ours, theirs = optimizer_state(resumed, fresh), optimizer_state(unbroken, optimizers)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@of_every_combination
def test_without_its_state_training_goes_another_way(
    architecture: str, section: OptimSection
) -> None:
    """A test of the test above: the state matters to the weights that it compares."""
    rules = RULES[architecture]
    unbroken = build(architecture)
    optimizers = build_optimizers(unbroken, rules, section)
    train(unbroken, optimizers, 0, 3)
    forgetful = build(architecture)
    forgetful.load_state_dict(unbroken.state_dict())
    train(unbroken, optimizers, 3, 4)
    train(forgetful, build_optimizers(forgetful, rules, section), 3, 4)
    assert any(
        not torch.equal(forgetful.state_dict()[name], tensor)
        for name, tensor in unbroken.state_dict().items()
    )


def test_the_state_is_saved_for_every_parameter_under_its_name() -> None:
    model = build("gpt2")
    optimizers = build_optimizers(model, RULES["gpt2"], SECTION)
    assert optimizer_state(model, optimizers) == {}  # before the first step there is none
    train(model, optimizers, 0, 2)
    state = optimizer_state(model, optimizers)
    for name, parameter in model.named_parameters():
        assert state[f"{name}:step"] == 2
        assert (
            state[f"{name}:exp_avg"].shape == state[f"{name}:exp_avg_sq"].shape == parameter.shape
        )
    assert len(state) == 3 * len(list(model.parameters()))
