"""What holds for every model, whatever its weights: causality, size, initialisation, dropout,
checked configs.
"""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import model_of, perturb
from groundup.errors import ConfigError
from groundup.models.config import GPTConfig, ModernConfig, gpt_parameter_count
from groundup.models.gpt2 import GPT2, Attention
from groundup.models.modern import SequenceDropout
from groundup.models.readable import ReadableGPT
from groundup.models.registry import MODELS
from groundup.recipes.schema import ModelSection, Recipe

SMALL = GPTConfig(block_size=10, vocab_size=13, n_layer=2, n_head=2, n_embd=12)
GPTS: dict[str, Callable[[GPTConfig], nn.Module]] = {"readable": ReadableGPT, "gpt2": GPT2}
WITH_DROPOUT = pytest.mark.parametrize("architecture", ["readable", "gpt2", "modern"])
of_every_model = pytest.mark.parametrize("architecture", MODELS)
of_every_gpt = pytest.mark.parametrize("architecture", GPTS)


def perturbed(architecture: str, config: GPTConfig = SMALL) -> nn.Module:
    torch.manual_seed(0)
    model = model_of(architecture, config).double()
    perturb(model, scale=0.5)
    return model


def random_tokens(rows: int = 3, time: int = SMALL.block_size) -> torch.Tensor:
    return torch.randint(
        0, SMALL.vocab_size, (rows, time), generator=torch.Generator().manual_seed(2)
    )


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@of_every_model
@pytest.mark.parametrize("changed", range(SMALL.block_size))
def test_a_token_changes_its_own_logits_and_no_earlier_ones(
    architecture: str, changed: int
) -> None:
    model, tokens = perturbed(architecture), random_tokens()
    others = tokens.clone()
    others[:, changed] = (others[:, changed] + 1) % SMALL.vocab_size
    difference = (model(tokens)[0] - model(others)[0]).abs().amax(dim=-1)  # [batch, time]
    assert (difference[:, :changed] <= 1e-12).all()
    assert (difference[:, changed] > 1e-3).all()
    reaches = architecture != "bigram"  # a GPT hands it on to every later token, the bigram to none
    assert (
        (difference[:, changed + 1 :] > 1e-6).all()
        if reaches
        else not difference[:, changed + 1 :].any()
    )


@of_every_model
def test_the_start_of_a_text_is_read_as_if_it_were_all(architecture: str) -> None:
    model, tokens = perturbed(architecture), random_tokens()
    whole, _ = model(tokens)
    for time in range(1, SMALL.block_size):
        torch.testing.assert_close(model(tokens[:, :time])[0], whole[:, :time], rtol=0, atol=1e-12)


@of_every_model
def test_a_row_knows_nothing_of_the_others(architecture: str) -> None:
    model, tokens = perturbed(architecture), random_tokens()
    together, _ = model(tokens)
    for row in range(3):
        torch.testing.assert_close(
            model(tokens[row : row + 1])[0], together[row : row + 1], rtol=0, atol=1e-12
        )


@of_every_model
def test_logits_and_loss_have_the_shapes_that_they_promise(architecture: str) -> None:
    model, tokens = perturbed(architecture), random_tokens()
    logits, loss = model(tokens)
    assert logits.shape == (3, SMALL.block_size, SMALL.vocab_size)
    assert loss is None
    targets = tokens.roll(-1, dims=1)
    again, loss = model(tokens, targets)
    assert torch.equal(again, logits)
    assert loss.shape == ()
    by_hand = -logits.log_softmax(dim=-1).gather(-1, targets[..., None]).mean()
    torch.testing.assert_close(loss, by_hand, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.logits(model.hidden(tokens)), logits, rtol=0, atol=1e-12)


@of_every_gpt
@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (GPTConfig(), 124_439_808),
        (GPTConfig(block_size=256, vocab_size=50257, n_layer=4, n_head=4, n_embd=128), 7_259_008),
    ],
)
def test_known_sizes(architecture: str, config: GPTConfig, parameters: int) -> None:
    with torch.device("meta"):
        assert count(GPTS[architecture](config)) == parameters
    assert gpt_parameter_count(config) == parameters


@settings(max_examples=30)
@given(
    block_size=st.integers(1, 30),
    vocab_size=st.integers(1, 60),
    n_layer=st.integers(1, 4),
    n_head=st.integers(1, 4),
    head_dim=st.integers(1, 9),
)
def test_the_parameter_count_is_the_models(
    block_size: int, vocab_size: int, n_layer: int, n_head: int, head_dim: int
) -> None:
    config = GPTConfig(block_size, vocab_size, n_layer, n_head, n_head * head_dim)
    shape = ModelSection("gpt2", block_size, n_layer, n_head, n_head * head_dim)
    with torch.device("meta"):
        assert (
            count(GPT2(config))
            == gpt_parameter_count(config)
            == Recipe(model=shape).parameter_count(vocab_size)
        )
        assert count(ReadableGPT(config)) == gpt_parameter_count(config)
        bigram = Recipe(model=ModelSection("bigram", block_size)).parameter_count(vocab_size)
        assert count(model_of("bigram", config)) == bigram == vocab_size**2


@of_every_gpt
def test_initial_weights_have_the_deviations_of_gpt2(architecture: str) -> None:
    torch.manual_seed(1)
    model = GPTS[architecture](
        GPTConfig(block_size=64, vocab_size=200, n_layer=8, n_head=2, n_embd=64)
    )
    residual = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            writes = name.endswith(("c_proj.weight", "projection.weight", "contract.weight"))
            residual += writes
            expected = 0.02 / 4 if writes else 0.02  # 1 / sqrt(2 * 8 layers) is a quarter
            # Five standard deviations of an estimate from so many numbers.
            assert parameter.std().item() == pytest.approx(
                expected, rel=5 / math.sqrt(2 * parameter.numel())
            ), name
            assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(parameter.numel()), name
        else:
            is_scale = name.endswith((".scale", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
            assert parameter.unique().tolist() == [1.0 if is_scale else 0.0], name
    assert residual == 2 * 8


@of_every_model
def test_an_untrained_model_guesses(architecture: str) -> None:
    """Its loss is that of a uniform guess, ln(vocab), but for what the small initial
    weights add.
    """
    torch.manual_seed(1)
    config = GPTConfig(block_size=64, vocab_size=200, n_layer=4, n_head=2, n_embd=64)
    tokens = torch.randint(0, 200, (2, 8, 64))
    _, loss = model_of(architecture, config)(tokens[0], tokens[1])
    assert loss.item() == pytest.approx(math.log(200), abs=0.05)


@of_every_gpt
def test_the_head_is_the_embedding(architecture: str) -> None:
    model = GPTS[architecture](SMALL)
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    assert any(embedding.weight is model.head.weight for embedding in embeddings)


@WITH_DROPOUT
def test_dropout_is_for_training_alone(architecture: str) -> None:
    dropping = perturbed(
        architecture, GPTConfig(10, 13, n_layer=2, n_head=2, n_embd=12, dropout=0.5)
    )
    plain, tokens = perturbed(architecture), random_tokens()
    torch.manual_seed(3)
    assert not torch.equal(dropping(tokens)[0], dropping(tokens)[0])
    assert torch.equal(dropping.eval()(tokens)[0], plain(tokens)[0])
    assert torch.equal(plain(tokens)[0], plain(tokens)[0])


@of_every_gpt
def test_dropout_is_where_gpt2_has_it(architecture: str) -> None:
    """After the embeddings, on the attention's probabilities, and on what each block adds: each
    acts on its own.
    """
    config = GPTConfig(10, 13, n_layer=1, n_head=1, n_embd=12, dropout=0.5)
    sites = {
        name: module
        for name, module in perturbed(architecture, config).named_modules()
        if drops(module)
    }
    assert len(sites) == 4
    for site in sites:
        model = perturbed(architecture, config)
        for name, module in model.named_modules():
            if drops(module) and name != site:
                switch_off(module)
        torch.manual_seed(3)
        assert not torch.equal(model(random_tokens())[0], model(random_tokens())[0]), site
        switch_off(model.get_submodule(site))
        assert torch.equal(model(random_tokens())[0], model(random_tokens())[0])


def drops(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout | Attention)


def switch_off(module: nn.Module) -> None:
    if isinstance(module, nn.Dropout):
        module.p = 0.0
    else:
        module.dropout = 0.0  # the fused attention hands it to the kernel


def test_heads_that_do_not_divide_the_width_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError) as refusal:
        GPTConfig(n_embd=384, n_head=5)
    message = str(refusal.value)
    assert "n_embd = 384" in message
    assert "n_head = 5" in message
    offered = [
        int(number)
        for number in message.partition("Choose n_head from ")[2].rstrip(".").split(", ")
    ]
    assert offered == [number for number in range(1, 385) if 384 % number == 0]
    assert refusal.value.field == "n_head"
    for number in offered:
        GPTConfig(n_embd=384, n_head=number)


@pytest.mark.parametrize("field", ["block_size", "vocab_size", "n_layer", "n_head", "n_embd"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_size_below_one_is_refused(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{field} = {value} is below 1") as refusal:
        GPTConfig(**{field: value})
    assert refusal.value.field == field


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5, math.nan, math.inf])
def test_a_dropout_outside_its_range_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError, match=rf"dropout = {dropout} is outside \[0, 1\)"):
        GPTConfig(dropout=dropout)
    with pytest.raises(ConfigError, match=rf"dropout = {dropout} is outside \[0, 1\)"):
        ModernConfig(dropout=dropout)


def test_the_modern_model_drops_units_for_a_whole_sequence() -> None:
    """A unit is zero at every position of a sequence or at none, scaled up where it is kept."""
    dropout = SequenceDropout(0.25)
    torch.manual_seed(1)
    dropped = dropout(torch.ones(8, 5, 400))
    assert (dropped == dropped[:, :1]).all()
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (dropped == 0.0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert (dropped[0] != dropped[1]).any()
    hidden = torch.randn(2, 3, 4)
    assert dropout.eval()(hidden) is hidden
