"""Which parameter decays is decided by rules: each one matched once, and an optimizer's state survives a file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import perturb
from groundup.config import GPTConfig
from groundup.model_folder import MODELS, Model
from groundup.optim.groups import (
    RULES,
    Rule,
    build_optimizer,
    group_parameters,
    load_optimizer_state,
    optimizer_state,
)
from groundup.recipe import OptimSection

CONFIG = GPTConfig(block_size=8, vocab_size=11, n_layer=2, n_head=2, n_embd=8)
SECTION = OptimSection(learning_rate=3e-3, weight_decay=0.25, betas=(0.85, 0.97))
of_every_model = pytest.mark.parametrize("architecture", MODELS)


def build(architecture: str) -> Model:
    torch.manual_seed(0)
    model = MODELS[architecture](CONFIG)
    perturb(model)
    return model


def train(model: Model, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Steps first to last, each on a batch of its own."""
    for step in range(first, last):
        tokens = torch.randint(0, 11, (2, 4, 8), generator=torch.Generator().manual_seed(step))
        _, loss = model(tokens[0], tokens[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_every_model_has_rules() -> None:
    assert RULES.keys() == MODELS.keys()


@of_every_model
def test_every_parameter_is_in_exactly_one_group(architecture: str) -> None:
    model = build(architecture)
    grouped = [id(member) for _, members in group_parameters(model, RULES[architecture]) for member in members]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    optimizer = build_optimizer(model, RULES[architecture], SECTION)
    given = [id(member) for group in optimizer.param_groups for member in group["params"]]
    assert sorted(given) == sorted(grouped)


@of_every_model
def test_matrices_decay_and_norms_and_biases_do_not(architecture: str) -> None:
    """Held against the shapes, not the names: what has two dimensions is a matrix or an embedding."""
    optimizer = build_optimizer(build(architecture), RULES[architecture], SECTION)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.25 if parameter.ndim == 2 else 0.0)
        assert group["lr"] == 3e-3
        assert group["betas"] == (0.85, 0.97)


@of_every_model
def test_decay_shrinks_matrices_by_its_formula(architecture: str) -> None:
    """With no gradient, a step multiplies matrices by 1 - lr * decay (Loshchilov & Hutter 2019) and no more."""
    model = build(architecture)
    optimizer = build_optimizer(model, RULES[architecture], SECTION)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 - 3e-3 * 0.25 if parameter.ndim == 2 else 1.0
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
    found = [[id(member) for member in members] for _, members in group_parameters(model, rules)]
    assert found == [[id(model["gain"])], [id(model["again"]), id(model["gain_of_gate"])], [id(model["bias"])]]


@of_every_model
def test_the_state_goes_on_from_a_file_as_if_never_stopped(architecture: str, tmp_path: Path) -> None:
    rules = RULES[architecture]
    unbroken = build(architecture)
    optimizer = build_optimizer(unbroken, rules, SECTION)
    train(unbroken, optimizer, 0, 3)
    save_file(optimizer_state(unbroken, optimizer), tmp_path / "optimizer.safetensors")
    weights = {name: tensor.clone() for name, tensor in unbroken.state_dict().items()}
    train(unbroken, optimizer, 3, 7)

    resumed = build(architecture)
    resumed.load_state_dict(weights)
    fresh = build_optimizer(resumed, rules, SECTION)
    load_optimizer_state(resumed, fresh, load_file(tmp_path / "optimizer.safetensors"))
    train(resumed, fresh, 3, 7)
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    ours, theirs = optimizer_state(resumed, fresh), optimizer_state(unbroken, optimizer)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@of_every_model
def test_without_its_state_training_goes_another_way(architecture: str) -> None:
    """A test of the test above: the state matters to the weights that it compares."""
    rules = RULES[architecture]
    unbroken = build(architecture)
    optimizer = build_optimizer(unbroken, rules, SECTION)
    train(unbroken, optimizer, 0, 3)
    forgetful = build(architecture)
    forgetful.load_state_dict(unbroken.state_dict())
    train(unbroken, optimizer, 3, 4)
    train(forgetful, build_optimizer(forgetful, rules, SECTION), 3, 4)
    assert not torch.equal(forgetful.head.weight, unbroken.head.weight)


def test_the_state_is_saved_for_every_parameter_under_its_name() -> None:
    model = build("gpt2")
    optimizer = build_optimizer(model, RULES["gpt2"], SECTION)
    assert optimizer_state(model, optimizer) == {}  # before the first step there is none
    train(model, optimizer, 0, 2)
    state = optimizer_state(model, optimizer)
    for name, parameter in model.named_parameters():
        assert state[f"{name}:step"] == 2
        assert state[f"{name}:exp_avg"].shape == state[f"{name}:exp_avg_sq"].shape == parameter.shape
    assert len(state) == 3 * len(list(model.parameters()))


def test_a_state_that_lacks_a_parameter_is_refused_by_name() -> None:
    model = build("gpt2")
    optimizer = build_optimizer(model, RULES["gpt2"], SECTION)
    train(model, optimizer, 0, 1)
    state = optimizer_state(model, optimizer)
    lacking = {name: tensor for name, tensor in state.items() if "ln_f.bias" not in name}
    with pytest.raises(KeyError, match=r"transformer\.ln_f\.bias"):
        load_optimizer_state(model, optimizer, lacking)
