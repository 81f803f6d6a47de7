"""The models of the ladder are those of the package: another way to the same logits."""

import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from conftest import perturb
from groundup import GPT2, Bigram, Modern, ModernConfig, ReadableGPT
from groundup.ladder.rungs import RUNGS, build_rung, parts_of
from groundup.models.ladder import plain

CONFIG = ModernConfig(
    block_size=12, vocab_size=29, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, rope_theta=1000.0
)
RUNG = {rung.name: rung for rung in RUNGS}


def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(CONFIG.vocab_size, (3, CONFIG.block_size), generator=generator)


def perturbed(name: str) -> nn.Module:
    torch.manual_seed(3)
    model = build_rung(RUNG[name], CONFIG)
    perturb(model)
    return model.eval()


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, weight in state.items():
        new = name
        for pattern, replacement in names.items():
            new = re.sub(pattern, replacement, new)
        found[new] = weight
    return found


READABLE = {
    r"^embedding\.tokens": "token_embedding",
    r"^embedding\.positions": "position_embedding",
    r"\.0\.norm\.": ".attention_norm.",
    r"\.1\.norm\.": ".mlp_norm.",
    r"\.0\.part\.": ".attention.",
    r"\.1\.part\.": ".mlp.",
}
FUSED = {
    r"^embedding\.tokens": "transformer.wte",
    r"^embedding\.positions": "transformer.wpe",
    r"^norm": "transformer.ln_f",
    r"^blocks": "transformer.h",
    r"\.0\.norm\.": ".ln_1.",
    r"\.1\.norm\.": ".ln_2.",
    r"\.0\.part\.": ".attn.",
    r"\.1\.part\.": ".mlp.",
    r"^head": "lm_head",
}
MODERN = {
    r"^embedding\.tokens": "model.embed_tokens",
    r"^norm": "model.norm",
    r"^blocks": "model.layers",
    r"\.0\.norm\.": ".input_layernorm.",
    r"\.1\.norm\.": ".post_attention_layernorm.",
    r"\.0\.part\.": ".self_attn.",
    r"\.1\.part\.": ".mlp.",
    r"^head": "lm_head",
}


@pytest.mark.parametrize(
    ("rung", "names", "model"),
    [
        ("bigram", {}, lambda: Bigram(plain(CONFIG))),
        ("GPT-2", READABLE, lambda: ReadableGPT(plain(CONFIG))),
        ("fused", FUSED, lambda: GPT2(plain(CONFIG))),
        ("QK-norm", MODERN, lambda: Modern(CONFIG)),
        ("compiled", MODERN, lambda: Modern(CONFIG)),
    ],
)
def test_a_rung_is_a_model_of_the_package(rung: str, names: dict[str, str], model):
    ours, theirs = perturbed(rung), model().eval()
    theirs.load_state_dict(renamed(ours.state_dict(), names))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens())[0], theirs(tokens())[0], atol=1e-5, rtol=1e-5)


def test_the_readable_rung_computes_what_the_fused_gpt2_computes():
    """From the readable parts to `GPT2` in one step, with every tensor perturbed."""
    from groundup.models.ladder import fused_weights

    ours, theirs = perturbed("GPT-2"), GPT2(plain(CONFIG)).eval()
    theirs.load_state_dict(renamed(fused_weights(ours.state_dict()), FUSED))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens())[0], theirs(tokens())[0], atol=1e-5, rtol=1e-5)


def test_fused_begins_with_the_weights_of_the_readable_rung():
    models = []
    for name in ("GPT-2", "fused"):
        torch.manual_seed(3)
        models.append(build_rung(RUNG[name], CONFIG).eval())
    with torch.no_grad():
        readable, fused = (model(tokens())[0] for model in models)
    torch.testing.assert_close(readable, fused, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_no_rung_sees_the_future_and_each_gets_gradients(rung):
    model = perturbed(rung.name)
    seen = tokens()
    other = seen.clone()
    other[:, 6:] = (other[:, 6:] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        torch.testing.assert_close(model(seen)[0][:, :6], model(other)[0][:, :6])
    model(seen, seen)[1].backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not unused


def test_each_rung_changes_something_and_says_so():
    assert len({rung.name for rung in RUNGS}) == len(RUNGS)
    for below, rung in pairwise(RUNGS):
        assert rung.model or rung.optim or rung.train, rung.name
        assert (parts_of(below) != parts_of(rung)) == bool(rung.model), rung.name
        assert rung.sentence.endswith(".")
        assert len(rung.sentence) < 100


def test_parameters_that_the_rungs_take_away_and_add():
    count = {
        rung.name: sum(weight.numel() for weight in perturbed(rung.name).parameters())
        for rung in RUNGS
    }
    width, layers = CONFIG.n_embd, CONFIG.n_layer
    assert count["norms"] - count["residuals"] == (2 * layers + 1) * 2 * width
    assert count["initialisation"] - count["GPT-2"] == CONFIG.vocab_size * width
    assert count["fused"] - count["no biases"] == layers * (3 + 1 + 4 + 1) * width
    assert count["no biases"] - count["RoPE"] == CONFIG.block_size * width
    assert count["RoPE"] - count["RMSNorm"] == (2 * layers + 1) * width
    assert count["QK-norm"] - count["grouped queries"] == layers * 2 * CONFIG.head_dim


def test_initialisations():
    torch.manual_seed(3)
    gpt2 = build_rung(RUNG["GPT-2"], ModernConfig(n_layer=8, n_head=4, n_embd=64, vocab_size=99))
    for name, weight in gpt2.named_parameters():
        if name.endswith(("projection.weight", "contract.weight")):
            assert weight.std().item() == pytest.approx(0.02 / 4, rel=0.1), name
        elif name.endswith("bias"):
            assert not weight.any(), name
        elif weight.ndim == 2:
            assert weight.std().item() == pytest.approx(0.02, rel=0.1), name
    zero = build_rung(RUNG["zero init"], CONFIG)
    writing = [name for name, weight in zero.named_parameters() if not weight.any()]
    assert len(writing) == 2 * CONFIG.n_layer
    assert all(name.endswith(("o_proj.weight", "down_proj.weight")) for name in writing)
