"""Tests of the tests: break one thing in one of the two models, and the check that proves them
equal must go red.
"""

import math
from collections.abc import Callable

import pytest
import torch
from agreement import (
    Twins,
    assert_same_computation,
    assert_same_text,
    assert_same_training,
    batch_for,
    twins,
)
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models import cache, correspondence, gpt2, readable
from groundup.models.cache import Attend
from groundup.models.config import GPTConfig
from groundup.optim.groups import Rule
from groundup.recipes.schema import OptimSection

CONFIG = GPTConfig(block_size=12, vocab_size=11, n_layer=2, n_head=2, n_embd=8)
SECTION = OptimSection(learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0)


def computes_the_same(pair: Twins) -> None:
    """The check under test, on a batch that fills the context."""
    assert_same_computation(pair, *batch_for(CONFIG, batch=3, time=CONFIG.block_size))


def attention(
    allowed: Callable[[Tensor], Tensor], scale: float | None = None
) -> Callable[..., Tensor]:
    """GPT-2's attention with a mask of `allowed` distances (query's position minus key's), or
    another scale.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        positions = torch.arange(query.size(-2))
        mask = allowed(positions[:, None] - positions[None, :])
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
        )

    return attend


def interleaved_heads(layer: int, n_head: int, kind: str) -> list[str]:
    """Query, key and value of a head side by side, as GPT-NeoX stacks them; GPT-2 stacks all
    queries first.
    """
    parts = correspondence.STACKED
    return [
        f"blocks.{layer}.attention.heads.{head}.{part}.{kind}"
        for head in range(n_head)
        for part in parts
    ]


def transposing(suffix: str) -> Callable[..., correspondence.Weights]:
    """The map to GPT-2 with one square matrix transposed."""
    original = correspondence.gpt2_from_readable

    def transposed(*args: object) -> correspondence.Weights:
        mapped = original(*args)
        return {
            name: tensor.T if name.endswith(suffix) else tensor for name, tensor in mapped.items()
        }

    return transposed


def post_norm(block: gpt2.Block, hidden: Tensor, attend: Attend) -> Tensor:
    """The first transformer's order: add, then normalise (Vaswani et al. 2017, section 3.1)."""
    hidden = block.ln_1(hidden + block.attn(hidden, attend))
    return block.ln_2(hidden + block.mlp(hidden))


def loss_in_float32(model: gpt2.GPT2, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = model.lm_head(model.hidden(tokens))
    return logits, F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()).double()


def detached_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    return attention(lambda distance: distance >= 0)(query.detach(), key, value, dropout)


# What is patched before the models are built: (where, name, the broken one, what the check must
# find different).
PATCHES = {
    "mask shows the next token": (
        cache,
        "causal_attention",
        attention(lambda d: d >= -1),
        "logits",
    ),
    "mask hides the token itself": (
        *(cache, "causal_attention"),
        *(attention(lambda d: d >= 1), "logits"),
    ),
    "mask hides the first token from the last": (
        *(cache, "causal_attention"),
        *(attention(lambda d: (d >= 0) & (d < CONFIG.block_size - 1)), "logits"),
    ),
    "readable mask by one": (
        *(readable, "future_of"),
        *(lambda scores: torch.ones(scores.shape[-2:], dtype=torch.bool).triu(2), "logits"),
    ),
    "scale by the model's width": (
        *(cache, "causal_attention"),
        *(attention(lambda d: d >= 0, scale=1 / math.sqrt(CONFIG.n_embd)), "logits"),
    ),
    "no scale": (cache, "causal_attention", attention(lambda d: d >= 0, scale=1.0), "logits"),
    "GELU by erf": (readable.GELU, "forward", lambda self, x: F.gelu(x), "logits"),
    "ReLU": (readable.GELU, "forward", lambda self, x: F.relu(x), "logits"),
    "post-norm": (gpt2.Block, "forward", post_norm, "logits"),
    "loss in float32": (gpt2.GPT2, "forward", loss_in_float32, "losses"),
    "no gradient to the queries": (cache, "causal_attention", detached_attention, "gradients"),
    "queries and keys swapped": (correspondence, "STACKED", ("key", "query", "value"), "logits"),
    "keys and values swapped": (correspondence, "STACKED", ("query", "value", "key"), "logits"),
    "heads interleaved": (correspondence, "_head_names", interleaved_heads, "logits"),
    "attention's projection transposed": (
        *(correspondence, "gpt2_from_readable"),
        *(transposing("attn.c_proj.weight"), "logits"),
    ),
    "norms swapped": (
        *(correspondence, "BLOCK"),
        *(
            correspondence.BLOCK
            | {"attention_norm.scale": "ln_2.weight", "mlp_norm.scale": "ln_1.weight"},
            "logits",
        ),
    ),
}


def test_unbroken_models_pass() -> None:
    """Without this, a check that is always red would look like a sharp one."""
    computes_the_same(twins(CONFIG))
    assert_same_training(twins(CONFIG), SECTION)
    assert_same_text(twins(CONFIG, seed=1), batch_for(CONFIG, batch=3, time=4)[0])


def test_the_unbroken_attention_of_this_file_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "causal_attention", attention(lambda distance: distance >= 0))
    computes_the_same(twins(CONFIG))


@pytest.mark.parametrize("mutation", PATCHES)
def test_a_broken_definition_goes_red(monkeypatch: pytest.MonkeyPatch, mutation: str) -> None:
    where, name, broken, found = PATCHES[mutation]
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(AssertionError, match=found):
        computes_the_same(twins(CONFIG))


def no_attention_bias(model: gpt2.GPT2) -> None:
    model.transformer.h[1].attn.c_proj.bias = None


def another_epsilon(model: gpt2.GPT2) -> None:
    model.transformer.ln_f.eps = 1e-6


def positions_from_one(model: gpt2.GPT2) -> None:
    model.transformer.wpe.weight.data = model.transformer.wpe.weight.data.roll(1, dims=0)


def untied_head(model: gpt2.GPT2) -> None:
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


@pytest.mark.parametrize(
    ("mutate", "found"),
    [
        (no_attention_bias, "logits"),
        (another_epsilon, "logits"),
        (positions_from_one, "logits"),
        (untied_head, "gradients of transformer.wte"),  # its logits are still right
    ],
)
def test_a_broken_model_goes_red(mutate: Callable[[gpt2.GPT2], None], found: str) -> None:
    pair = twins(CONFIG)
    mutate(pair.gpt2)
    with pytest.raises(AssertionError, match=found):
        computes_the_same(pair)


def test_every_number_counts() -> None:
    """Moving any one weight, bias or norm by a millionth goes red, but for the keys' biases."""
    pair = twins(CONFIG)
    for name, parameter in pair.gpt2.named_parameters():
        for index in range(parameter.numel()):
            if name.endswith("c_attn.bias") and CONFIG.n_embd <= index < 2 * CONFIG.n_embd:
                # a key's bias adds the same to all scores of a query: softmax takes it out again
                continue
            if index % 7 and parameter.ndim == 2:
                continue  # of the matrices every seventh number is enough
            kept = parameter.data.flatten()[index].clone()
            parameter.data.view(-1)[index] += 1e-6
            with pytest.raises(AssertionError, match="logits"):
                computes_the_same(pair)
            parameter.data.view(-1)[index] = kept
    computes_the_same(pair)  # all put back


def test_training_without_clipping_goes_red() -> None:
    with pytest.raises(AssertionError, match="weights"):
        assert_same_training(twins(CONFIG), SECTION, fast_clip_norm=math.inf)


def test_training_with_decaying_biases_goes_red() -> None:
    with pytest.raises(AssertionError, match="weights"):
        assert_same_training(twins(CONFIG), SECTION, rules=(Rule(".*", decays=True),))


def test_training_an_untied_head_goes_red() -> None:
    pair = twins(CONFIG)
    untied_head(pair.gpt2)
    with pytest.raises(AssertionError, match="weights"):
        assert_same_training(pair, SECTION)


def test_another_greedy_choice_goes_red() -> None:
    pair = twins(CONFIG, seed=1)
    with torch.no_grad():
        pair.gpt2.lm_head.weight.mul_(-1.0)
    with pytest.raises(AssertionError, match="greedy tokens differ"):
        assert_same_text(pair, batch_for(CONFIG, batch=3, time=4)[0])
