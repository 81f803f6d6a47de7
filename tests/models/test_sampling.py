"""Sampling is pure functions, so each is held against its definition, written out plainly."""

import math
from itertools import accumulate

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import model_of, perturb
from groundup.models.config import GPTConfig
from groundup.models.registry import MODELS
from groundup.models.sampling import (
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_token,
    window_start,
)

LAST_UNIFORM = math.nextafter(1.0, 0.0)
uniforms = st.floats(0.0, LAST_UNIFORM)
probability_rows = st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=30).filter(any)
logit_rows = st.lists(st.floats(-30.0, 30.0, width=32), min_size=1, max_size=30)
of_every_model = pytest.mark.parametrize("architecture", MODELS)


def reference_probabilities(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> list[float]:
    """The distribution that the settings mean: temperature, then top-k, then top-p, in plain
    Python.
    """
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: -weights[token])  # stable, as ties need
    order = order[: top_k or None]
    total = sum(weights[token] for token in order)
    kept, mass = [], 0.0
    for token in order:
        if mass >= top_p:
            break
        kept.append(token)
        mass += weights[token] / total
    total = sum(weights[token] for token in kept)
    return [weights[token] / total if token in kept else 0.0 for token in range(len(logits))]


@given(probabilities=probability_rows, uniform=uniforms)
@example(probabilities=[0.0, 1.0, 0.0], uniform=0.0)
@example(probabilities=[0.0, 1.0, 0.0], uniform=LAST_UNIFORM)
@example(probabilities=[1.0, 1.401298464324817e-45], uniform=LAST_UNIFORM)
@example(probabilities=[0.25, 0.25, 0.5], uniform=0.25)
@example(probabilities=[0.25, 0.25, 0.5], uniform=0.5)
def test_draw_inverts_the_cumulative_distribution(
    probabilities: list[float], uniform: float
) -> None:
    row = torch.tensor([probabilities], dtype=torch.float32)
    token = int(draw(row, torch.tensor([uniform], dtype=torch.float64)))
    assert probabilities[token] > 0.0
    cumulative = [0.0, *accumulate(probabilities)]
    threshold, rounding = uniform * cumulative[-1], 1e-14 * cumulative[-1]
    assert cumulative[token] - rounding <= threshold <= cumulative[token + 1] + rounding


def test_draw_is_exact_where_the_numbers_are() -> None:
    """Eighths have no rounding: each token owns [start, end) of its interval, and no empty one is
    drawn.
    """
    row = torch.tensor([0.0, 0.125, 0.0, 0.5, 0.375, 0.0])
    uniform = torch.tensor([0.0, 0.1249, 0.125, 0.6249, 0.625, LAST_UNIFORM], dtype=torch.float64)
    assert draw(row.expand(6, -1), uniform).tolist() == [1, 1, 3, 3, 4, 4]


def test_draw_stays_inside_where_rounding_would_leave() -> None:
    """The smallest float64 times anything above a half is itself: the threshold is the whole mass,
    not below it.
    """
    row = torch.tensor([[0.0, 5e-324, 0.0]], dtype=torch.float64)
    assert draw(row, torch.tensor([LAST_UNIFORM], dtype=torch.float64)).tolist() == [1]


def test_draw_takes_each_row_by_itself() -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert draw(rows, torch.tensor([0.9, 0.9, 0.0])).tolist() == [0, 1, 2]


@given(logits=logit_rows, top_k=st.integers(0, 40))
def test_top_k_keeps_what_is_no_smaller_than_the_kth(logits: list[float], top_k: int) -> None:
    kept = keep_top_k(torch.tensor([logits]), top_k)[0].tolist()
    smallest = sorted(logits, reverse=True)[min(top_k, len(logits)) - 1] if top_k else -math.inf
    assert kept == [logit if logit >= smallest else -math.inf for logit in logits]


@given(logits=logit_rows, top_p=st.floats(1e-6, 1.0))
@example(logits=[0.0, 0.0, 0.0, 0.0], top_p=0.5)
@example(logits=[1.0], top_p=1e-6)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(logits: list[float], top_p: float) -> None:
    row = torch.tensor([logits], dtype=torch.float64)
    kept = keep_top_p(row, top_p)[0].isfinite().tolist()
    probabilities = row.softmax(dim=-1)[0].tolist()
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    count = sum(kept)
    assert count >= 1
    assert {token for token in order if kept[token]} == set(order[:count])
    mass = sum(probabilities[token] for token in order[:count])
    assert mass >= top_p - 1e-12
    assert mass - probabilities[order[count - 1]] < top_p + 1e-12
    assert top_p < 1.0 or count == len(logits)
    assert keep_top_p(row, top_p)[0][kept].tolist() == row[0][kept].tolist()


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.1, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.9, 4)]
)
def test_top_p_by_hand(top_p: float, expected: int) -> None:
    logits = torch.tensor([[0.125, 0.5, 0.125, 0.25]]).double().log()
    assert int(keep_top_p(logits, top_p).isfinite().sum()) == expected


def top_p_by_stable_sort(logits: Tensor, top_p: float) -> Tensor:
    """The formula as it reads: sort all, the first of equal ones first, and cut."""
    sorted_logits, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = sorted_logits.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    surplus = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logits.masked_fill(surplus, -math.inf)


@st.composite
def rows_with_ties(draw: st.DrawFn) -> Tensor:
    """Up to three rows of one to 300 logits, most of which have equals; some are -inf."""
    rows, width = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 5, 30, 300]))
    levels = draw(st.sampled_from([1, 2, 8, 1000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = torch.randint(-levels, levels, (rows, width), generator=generator) / levels
    logits = logits.to(draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16])))
    return keep_top_k(
        logits * draw(st.sampled_from([0.0, 1.0, 9.0])), draw(st.sampled_from([0, 3]))
    )


@given(
    logits=rows_with_ties(), top_p=st.floats(1e-6, 1.0) | st.integers(1, 16).map(lambda n: n / 16)
)
@example(logits=torch.zeros(1, 4), top_p=0.5)
@example(logits=torch.tensor([[0.0, -0.0, 1.0, 0.0]]), top_p=0.6)
@example(logits=torch.full((1, 4), math.nan), top_p=0.5)
@settings(max_examples=200)
def test_top_p_is_the_formula_to_the_bit(logits: Tensor, top_p: float) -> None:
    found, expected = keep_top_p(logits, top_p), top_p_by_stable_sort(logits, top_p)
    assert found.dtype == logits.dtype
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def test_top_p_leaves_its_input_alone() -> None:
    """It sorts in place, but a copy; a tensor that has a gradient is no obstacle."""
    logits = torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float64, requires_grad=True)
    assert keep_top_p(logits, 0.5).tolist() == [[-math.inf, 3.0, -math.inf]]
    assert logits.tolist() == [[1.0, 3.0, 2.0]]


@given(logits=rows_with_ties(), min_p=st.floats(0.0, 1.0))
def test_min_p_keeps_what_is_probable_enough(logits: Tensor, min_p: float) -> None:
    kept, probabilities = keep_min_p(logits, min_p), logits.double().softmax(dim=-1)
    shares = probabilities / probabilities.amax(dim=-1, keepdim=True)
    rounding = 50 * torch.finfo(logits.dtype).eps
    assert (kept == logits)[shares >= min_p * (1 + rounding)].all()
    assert (kept == -math.inf)[shares < min_p * (1 - rounding)].all()
    assert ((kept == logits) | (kept == -math.inf)).all()


@pytest.mark.parametrize(
    ("min_p", "expected"), [(0.0, 4), (0.24, 4), (0.26, 2), (0.49, 2), (0.51, 1), (1.0, 1)]
)
def test_min_p_by_hand(min_p: float, expected: int) -> None:
    logits = torch.tensor([[0.125, 0.5, 0.125, 0.25]]).double().log()
    assert int(keep_min_p(logits, min_p).isfinite().sum()) == expected


def test_min_p_of_one_keeps_all_of_the_most_probable() -> None:
    assert keep_min_p(torch.tensor([[2.0, 1.0, 2.0]]), 1.0).tolist() == [[2.0, -math.inf, 2.0]]


def test_min_p_comes_after_the_temperature_top_k_and_top_p() -> None:
    """Probabilities 0.5, 0.25, 0.125, 0.125: temperature 2 makes the shares of the first 1, 0.71,
    0.5, 0.5. Were top-p taken of what min-p leaves, it would keep one token.
    """
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).double().log().expand(4000, -1)
    evenly = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000

    def drawn(*limits: float, min_p: float) -> list[int]:
        return next_token(logits, evenly, *limits, min_p=min_p).unique().tolist()

    assert drawn(1.0, min_p=0.4) == [0, 1]
    assert drawn(2.0, min_p=0.4) == [0, 1, 2, 3]
    assert drawn(2.0, 0, 1.0, min_p=0.6) == [0, 1]
    assert drawn(1.0, 0, 0.6, min_p=0.4) == [0, 1]
    assert drawn(2.0, 1, 1.0, min_p=0.1) == [0]
    assert drawn(0.0, min_p=1.0) == [0]


@given(
    logits=logit_rows, uniform=uniforms, temperature=st.sampled_from([1e-3, 1e-10, 1e-100, 5e-324])
)
@example(logits=[-30.0, 30.0], uniform=0.0, temperature=5e-324)
def test_a_temperature_near_zero_is_greedy(
    logits: list[float], uniform: float, temperature: float
) -> None:
    row = torch.tensor([logits], dtype=torch.float64)
    # In float64 a token that is 746 temperatures below the best has no probability at all.
    best = [token for token, logit in enumerate(logits) if max(logits) - logit <= 746 * temperature]
    token = int(next_token(row, torch.tensor([uniform], dtype=torch.float64), temperature))
    assert token in best
    assert int(next_token(row, torch.tensor([uniform]), temperature=0.0)) == logits.index(
        max(logits)
    )


@given(logits=logit_rows, uniform=uniforms)
def test_a_huge_temperature_forgets_the_logits(logits: list[float], uniform: float) -> None:
    token = int(
        next_token(
            torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64), temperature=1e12
        )
    )
    place = uniform * len(logits)
    assert token <= place + 1e-6
    assert place <= token + 1 + 1e-6


@given(logits=st.lists(st.floats(-30.0, 30.0, width=32), min_size=1, unique=True), uniform=uniforms)
def test_top_k_of_one_and_a_tiny_top_p_are_greedy(logits: list[float], uniform: float) -> None:
    row, uniform_row = torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64)
    greedy = logits.index(max(logits))
    assert int(next_token(row, uniform_row, top_k=1)) == greedy
    assert int(next_token(row, uniform_row, top_p=1e-9)) == greedy


@given(
    # far enough apart to be ordered
    eighths=st.lists(st.integers(-40, 40), min_size=2, max_size=12, unique=True),
    uniform=uniforms,
    temperature=st.floats(0.1, 3.0),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1.0),
)
def test_settings_together_draw_from_the_distribution_that_they_mean(
    eighths: list[int], uniform: float, temperature: float, top_k: int, top_p: float
) -> None:
    logits = [eighth / 8 for eighth in eighths]
    row, uniform_row = (
        torch.tensor([logits], dtype=torch.float64),
        torch.tensor([uniform], dtype=torch.float64),
    )
    token = int(next_token(row, uniform_row, temperature, top_k, top_p))
    # A top_p within rounding of a sum of probabilities may fall on either side.
    candidates = [
        reference_probabilities(logits, temperature, top_k, top_p + nudge)
        for nudge in (-1e-12, 0.0, 1e-12)
    ]
    fits = []
    for probabilities in candidates:
        cumulative = [0.0, *accumulate(probabilities)]
        inside = (
            cumulative[token] - 1e-12 <= uniform * cumulative[-1] <= cumulative[token + 1] + 1e-12
        )
        fits.append(probabilities[token] > 0.0 and inside)
    assert any(fits)


SETTINGS = [
    {},
    {"temperature": 0.5},
    {"top_k": 3},
    {"top_p": 0.7},
    {"temperature": 1.5, "top_k": 5, "top_p": 0.8},
]


@of_every_model
@pytest.mark.parametrize("chosen", SETTINGS, ids=str)
def test_generated_tokens_are_as_frequent_as_they_should_be(
    architecture: str, chosen: dict[str, float]
) -> None:
    """20,000 draws after one prompt: each frequency within five standard deviations of its
    probability.
    """
    model = small_model(architecture)
    draws = 20_000
    prompt = torch.tensor([[1, 4, 2]])
    logits = model(prompt)[0][0, -1].tolist()
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | chosen
    expected = reference_probabilities(logits, **settings)
    written = model.generate(
        prompt.expand(draws, -1), 1, generator=torch.Generator().manual_seed(5), **settings
    )
    counts = written[:, -1].bincount(minlength=len(expected)).tolist()
    for count, probability in zip(counts, expected, strict=True):
        deviation = math.sqrt(probability * (1.0 - probability) / draws)
        assert abs(count / draws - probability) <= 5 * deviation + 1e-12
        assert (count == 0) if probability == 0.0 else True


@of_every_model
def test_generation_appends_to_the_prompt(architecture: str) -> None:
    model, prompt = small_model(architecture), torch.tensor([[3, 1], [0, 8], [8, 8]])
    written = model.generate(prompt, 15)
    assert written.shape == (3, 17)
    assert written.dtype == torch.int64
    assert torch.equal(written[:, :2], prompt)
    assert 0 <= int(written.min()) <= int(written.max()) < 9
    assert torch.equal(model.generate(prompt, 0), prompt)


@of_every_model
def test_generation_keeps_the_newest_half_of_a_full_context(architecture: str) -> None:
    """Of a prompt of eight tokens the newest six count, the context; then each token is the greedy
    one after the newest four, five or six.
    """
    model = small_model(architecture)
    prompts = torch.randint(0, 9, (30, 8), generator=torch.Generator().manual_seed(4))
    written = model.generate(prompts, 10, temperature=0.0)
    for end, read in zip(range(8, 18), [6, *(4, 5, 6) * 3], strict=True):
        logits, _ = model(written[:, end - read : end])
        assert torch.equal(logits[:, -1].argmax(dim=-1), written[:, end])


@of_every_model
def test_the_window_can_slide_by_one(architecture: str) -> None:
    model = small_model(architecture)
    prompts = torch.randint(0, 9, (30, 8), generator=torch.Generator().manual_seed(4))
    written = model.generate(prompts, 10, temperature=0.0, sliding=True)
    for end in range(8, 18):
        logits, _ = model(written[:, end - model.block_size : end])
        assert torch.equal(logits[:, -1].argmax(dim=-1), written[:, end])


@given(block_size=st.integers(1, 40), length=st.integers(0, 300))
def test_a_window_grows_by_one_until_it_is_full(block_size: int, length: int) -> None:
    read = length - window_start(length, block_size)
    assert 0 <= read <= block_size
    following = length + 1 - window_start(length + 1, block_size)
    assert following == (read + 1 if read < block_size else block_size // 2 + 1)
    assert window_start(length, block_size) == 0 or length > block_size


@of_every_model
def test_generation_draws_from_its_own_generator_alone(architecture: str) -> None:
    model, prompt = small_model(architecture), torch.tensor([[3, 1], [0, 8]])
    before = torch.get_rng_state()

    def write(seed: int) -> Tensor:
        return model.generate(prompt, 40, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(write(1), write(1))
    assert not torch.equal(write(1), write(2))
    assert torch.equal(torch.get_rng_state(), before)


def small_model(architecture: str) -> torch.nn.Module:
    """A model of nine tokens and a context of six that has preferences."""
    torch.manual_seed(0)
    model = model_of(
        architecture, GPTConfig(block_size=6, vocab_size=9, n_layer=2, n_head=2, n_embd=8)
    ).double()
    perturb(model, scale=0.5)
    return model.eval()
