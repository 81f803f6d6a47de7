"""The readable model is the oracle of the fast one: in float64 both compute, learn and write the
same.
"""

import pytest
import torch
from agreement import (
    as_gpt2,
    assert_close,
    assert_same_computation,
    assert_same_text,
    assert_same_training,
    batch_for,
    gradients_of,
    twins,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import model_of, perturb
from groundup.data.sampler import IGNORED
from groundup.models.config import GPTConfig
from groundup.models.correspondence import gpt2_from_readable, readable_from_gpt2
from groundup.models.gpt2 import GPT2
from groundup.models.readable import ReadableGPT
from groundup.models.registry import MODELS
from groundup.optim.groups import RULES, group_parameters
from groundup.recipes.schema import OptimSection
from groundup.training.objective import NextTokenLoss

SHAPES = {  # name: (config, batch, time)
    "several of everything": (GPTConfig(16, 11, n_layer=2, n_head=4, n_embd=16), 3, 16),
    "one head, a short text": (GPTConfig(16, 13, n_layer=2, n_head=1, n_embd=12), 2, 7),
    "one layer, one row": (GPTConfig(8, 30, n_layer=1, n_head=2, n_embd=8), 1, 8),
    "three layers, heads of width 1": (GPTConfig(9, 7, n_layer=3, n_head=6, n_embd=6), 4, 9),
    "one token": (GPTConfig(5, 6, n_layer=2, n_head=2, n_embd=10), 2, 1),
    "odd head width, large vocabulary": (GPTConfig(12, 97, n_layer=3, n_head=3, n_embd=15), 2, 11),
}
of_every_shape = pytest.mark.parametrize("shape", SHAPES)


@of_every_shape
def test_logits_loss_and_gradients_agree(shape: str) -> None:
    config, batch, time = SHAPES[shape]
    assert_same_computation(twins(config), *batch_for(config, batch, time))


@settings(max_examples=15)
@given(
    n_head=st.integers(1, 4),
    head_dim=st.integers(1, 5),
    n_layer=st.integers(1, 3),
    vocab_size=st.integers(1, 40),
    batch=st.integers(1, 3),
    time=st.integers(1, 10),
    unused=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
def test_logits_loss_and_gradients_agree_in_any_shape(
    *,
    n_head: int,
    head_dim: int,
    n_layer: int,
    vocab_size: int,
    batch: int,
    time: int,
    unused: int,
    seed: int,
) -> None:
    config = GPTConfig(time + unused, vocab_size, n_layer, n_head, n_head * head_dim)
    assert_same_computation(twins(config, seed), *batch_for(config, batch, time, seed))


@of_every_shape
def test_twenty_clipped_steps_of_adamw_agree(shape: str) -> None:
    config, _, _ = SHAPES[shape]
    assert_same_training(
        twins(config), OptimSection(learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0)
    )


@of_every_shape
def test_twenty_steps_of_muon_agree(shape: str) -> None:
    """Heads stored one by one or stacked are orthogonalised together; queries, keys and values
    never are.
    """
    config, _, _ = SHAPES[shape]
    section = OptimSection(optimizer="muon", learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0)
    assert_same_training(twins(config), section)


def test_the_same_parameters_decay() -> None:
    config, _, _ = SHAPES["several of everything"]
    pair = twins(config)
    decays: dict[str, dict[str, bool]] = {}
    for architecture, model in {"readable": pair.readable, "gpt2": pair.gpt2}.items():
        groups = group_parameters(model, RULES[architecture])
        by_identity = {
            id(member): rule.decays for rule, members in groups for member in members.values()
        }
        named = model.named_parameters(remove_duplicate=False)
        decays[architecture] = {name: by_identity[id(parameter)] for name, parameter in named}
    as_tensors = {
        name: torch.full_like(tensor, decays["readable"][name])
        for name, tensor in _state(pair.readable)
    }
    mapped = as_gpt2(as_tensors, config)
    assert {name: bool(tensor.all()) for name, tensor in mapped.items()} == decays["gpt2"]
    assert {name: bool(tensor.any()) for name, tensor in mapped.items()} == decays["gpt2"]


@pytest.mark.parametrize(
    ("shape", "seed"),
    [
        ("several of everything", 0),
        ("one head, a short text", 4),
        ("odd head width, large vocabulary", 1),
    ],
)
def test_both_write_the_same_64_greedy_tokens(shape: str, seed: int) -> None:
    config, _, _ = SHAPES[shape]
    prompt, _ = batch_for(config, batch=3, time=4)
    # 68 tokens: far past every block_size, so the window slides
    assert_same_text(twins(config, seed), prompt)


@of_every_shape
def test_the_map_is_exact_both_ways(shape: str) -> None:
    config, _, _ = SHAPES[shape]
    depth = (config.n_layer, config.n_head)
    readable, gpt2 = ReadableGPT(config), GPT2(config)
    perturb(readable, seed=1)
    perturb(gpt2, seed=2)

    there = gpt2_from_readable(readable.state_dict(), *depth)
    back = readable_from_gpt2(there, *depth)
    assert there.keys() == gpt2.state_dict().keys()
    assert back.keys() == readable.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in _state(readable))

    there = readable_from_gpt2(gpt2.state_dict(), *depth)
    back = gpt2_from_readable(there, *depth)
    assert there.keys() == readable.state_dict().keys()
    assert back.keys() == gpt2.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in _state(gpt2))


@pytest.mark.parametrize("architecture", MODELS)
# n_embd is 16
@pytest.mark.parametrize("vocab_size", [8, 16, 97], ids=["narrow", "square", "wide"])
def test_the_objective_is_the_models_own_loss(architecture: str, vocab_size: int) -> None:
    config = GPTConfig(12, vocab_size, n_layer=2, n_head=2, n_embd=16)
    torch.manual_seed(0)
    model = model_of(architecture, config).double()
    perturb(model, scale=0.5)
    tokens, targets = batch_for(config, batch=3, time=12)

    _, loss = model(tokens, targets)
    loss.backward()
    expected = {name: gradient.clone() for name, gradient in gradients_of(model).items()}
    model.zero_grad()
    objective_loss = NextTokenLoss(model, "float64")(tokens, targets)
    objective_loss.backward()

    assert_close(objective_loss, loss, 1e-12, "losses")
    for name, gradient in gradients_of(model).items():
        assert_close(gradient, expected[name], 1e-12, f"gradients of {name}")


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("vocab_size", [8, 97], ids=["narrow", "wide"])
def test_the_objective_leaves_out_ignored_targets(architecture: str, vocab_size: int) -> None:
    config = GPTConfig(12, vocab_size, n_layer=1, n_head=2, n_embd=16)
    torch.manual_seed(0)
    model = model_of(architecture, config).double()
    perturb(model, scale=0.5)
    tokens, targets = batch_for(config, batch=2, time=12)
    logits, _ = model(tokens)
    log_probabilities = logits.log_softmax(dim=-1).gather(-1, targets[..., None])[..., 0]
    targets[:, 7:] = IGNORED
    loss = NextTokenLoss(model, "float64")(tokens, targets)
    assert_close(loss, -log_probabilities[:, :7].mean(), 1e-12, "losses")


def _state(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(model.state_dict().items())
