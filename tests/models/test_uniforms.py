"""Tokens are drawn by given numbers to the last bit, and where these come from is stated."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import model_of, perturb
from groundup.models import sampling
from groundup.models.config import GPTConfig
from groundup.models.readable import ReadableGPT, most_probable, token_at
from groundup.models.registry import MODELS
from groundup.models.sampling import draw, uniform_of

CONFIG = GPTConfig(block_size=6, vocab_size=9, n_layer=2, n_head=2, n_embd=8)
LAST_UNIFORM = math.nextafter(1.0, 0.0)


def small_model(architecture: str) -> torch.nn.Module:
    """A model of nine tokens and a context of six that has preferences, in float64."""
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG).double()
    perturb(model, scale=0.5)
    return model.eval()


@pytest.mark.parametrize(
    ("given", "high_bits"),  # `printf "SEED CHOICE POSITION" | b2sum`, by coreutils
    [
        ((0, 0, 0), 0x0244C7DBB66B1297 >> 11),
        ((1337, 0, 1), 0x2B5FFE63882E0DD7 >> 11),
        ((2**63 - 1, 3, 2047), 0xD89AA6EE0E0BCF95 >> 11),
    ],
)
def test_a_number_is_what_another_program_makes_of_the_text(
    given: tuple[int, int, int], high_bits: int
):
    assert uniform_of(*given) == math.ldexp(high_bits, -53)


def test_the_numbers_look_drawn():
    """Each of 16 intervals has its share of 16,000 numbers within five standard deviations, also
    of the lowest bits, and no two numbers are equal.
    """
    found = [
        uniform_of(seed, choice, at) for seed in range(8) for choice in (0, 1) for at in range(1000)
    ]
    assert len(set(found)) == len(found)
    assert min(found) >= 0.0
    assert max(found) < 1.0
    for scale in (16, 2**53):
        counts = torch.tensor([int(number * scale) % 16 for number in found]).bincount(minlength=16)
        assert (counts - 1000).abs().max() <= 5 * math.sqrt(16_000 / 16 * 15 / 16)


@given(place=st.integers(0, 2**53 - 1))
def test_each_of_the_53_bits_decides(place: int):
    """Two tokens that share the probability at `place`: the number there draws the second, the one
    below it the first.
    """
    share = max(1, place) / 2**53
    row = torch.tensor([[share, 1.0 - share]], dtype=torch.float64)
    at = torch.tensor([share], dtype=torch.float64)
    for uniform, token in ((at, 1), (at - 2.0**-53, 0)):
        assert draw(row, uniform).tolist() == [token]


@pytest.mark.parametrize("architecture", MODELS)
def test_generation_keeps_the_bits_and_asks_no_generator(architecture: str):
    """The number at a token's edge draws this token, and the one 1e-13 below it another one."""
    model, prompt = small_model(architecture), torch.tensor([[3, 1]])
    edges = model(prompt)[0][0, -1].softmax(dim=-1).cumsum(dim=-1)[:-1]  # where tokens 1 to 8 begin
    generator = torch.Generator().manual_seed(1)
    before, default = generator.get_state(), torch.get_rng_state()
    for nudge, first in ((1e-13, 1), (-1e-13, 0)):
        uniforms = (edges + nudge)[:, None].detach()
        written = model.generate(prompt.expand(8, -1), 1, uniforms=uniforms, generator=generator)
        assert written[:, -1].tolist() == list(range(first, first + 8))
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), default)


@given(
    rows=st.lists(st.lists(st.floats(0.0, LAST_UNIFORM), min_size=9, max_size=9), min_size=1),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 4, 9]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    sliding=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_the_readable_model_draws_the_same_by_its_own_hand(
    rows: list[list[float]], temperature: float, top_k: int, top_p: float, sliding: bool
):
    model = small_model("readable")
    prompt = torch.tensor([[3, 1, 4]]).expand(len(rows), -1)
    chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "sliding": sliding}
    uniforms = torch.tensor(rows, dtype=torch.float64)
    written = ReadableGPT.generate(model, prompt, 9, uniforms=uniforms, **chosen)
    assert torch.equal(written, sampling.generate(model, prompt, 9, uniforms=uniforms, **chosen))


@pytest.mark.parametrize("uniform", [0.0, 0.5, LAST_UNIFORM])
def test_the_readable_model_draws_nothing_impossible(uniform: float):
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    kept = most_probable(logits, 1.0, 0, 1.0)
    drawn = token_at(torch.tensor([uniform], dtype=torch.float64), *kept)
    assert drawn.tolist() == [[1 if uniform < 0.5 else 3]]
