"""Paired statistics against enumeration of every outcome, closed forms, integration and
simulation.
"""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.evaluation.passages import Reading, common_passages
from groundup.evaluation.statistics import (
    PairedItems,
    bonett_price,
    mcnemar,
    paired_rate,
    student_quantile,
    student_tails,
)

COUNTS = st.integers(0, 400)


@pytest.mark.parametrize("n", range(11))
def test_mcnemar_is_the_share_of_all_outcomes_that_are_as_uneven(n: int):
    """Each of n items goes to one model or the other by a fair coin: all 2^n ways are looked at."""
    gaps = [abs(2 * sum(ways) - n) for ways in itertools.product((0, 1), repeat=n)]
    for only_a in range(n + 1):
        as_uneven = sum(gap >= abs(2 * only_a - n) for gap in gaps)
        assert mcnemar(only_a, n - only_a) == as_uneven / 2**n


def test_mcnemar_where_floats_end():
    assert mcnemar(0, 1000) == 2.0**-999
    assert mcnemar(0, 5000) == 0.0
    assert mcnemar(5000, 5000) == 1.0
    # without its correction, so a little too small
    normal = math.erfc(84 / math.sqrt(10_042) / math.sqrt(2))
    assert normal < mcnemar(4979, 5063) < 1.05 * normal


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_swapping_the_models_turns_the_sign_alone(
    both: int, only_a: int, only_b: int, neither: int
):
    pairs = (
        [(True, True)] * both
        + [(True, False)] * only_a
        + [(False, True)] * only_b
        + [(False, False)] * neither
    )
    if not pairs:
        return
    random.Random(0).shuffle(pairs)
    right_a, right_b = zip(*pairs, strict=True)
    found, swapped = PairedItems.of(right_a, right_b), PairedItems.of(right_b, right_a)
    assert (found.both, found.only_a, found.only_b, found.neither) == (
        both,
        only_a,
        only_b,
        neither,
    )
    assert (
        found.accuracies
        == (sum(right_a) / len(pairs), sum(right_b) / len(pairs))
        == swapped.accuracies[::-1]
    )
    one, other = found.difference, swapped.difference
    assert one.value == pytest.approx(found.accuracies[1] - found.accuracies[0])
    assert (one.value, one.low, one.high, one.p_value) == (
        -other.value,
        -other.high,
        -other.low,
        other.p_value,
    )
    assert -1 <= one.low <= one.value <= one.high <= 1


@pytest.mark.parametrize(
    ("only_a", "only_b"),
    [(0.0, 0.0), (0.02, 0.02), (0.1, 0.1), (0.05, 0.2), (0.3, 0.1), (0.0, 0.4), (0.5, 0.5)],
)
def test_the_interval_covers_as_often_as_it_says(only_a: float, only_b: float):
    """Over every outcome of 40 items, by its probability: about 95%, and never far less."""
    n, covered = 40, 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b <= n:
            ways = math.comb(n, a) * math.comb(n - a, b)
            chance = ways * only_a**a * only_b**b * max(0.0, 1 - only_a - only_b) ** (n - a - b)
            low, high = bonett_price(a, b, n)
            covered += chance * (low <= only_b - only_a <= high)
    assert covered > 0.93


def test_many_items_give_the_bootstrap_s_interval():
    """Wald's, where there are enough items: the 2.5% ends of resampled differences are the same to
    5% of its width.
    """
    draw = np.random.default_rng(5)
    counts = {"both": 500, "only_a": 130, "only_b": 190, "neither": 1180}
    resampled = draw.multinomial(2000, np.array(list(counts.values())) / 2000, size=20_000)
    ends = np.quantile((resampled[:, 2] - resampled[:, 1]) / 2000, [0.025, 0.975])
    found = PairedItems(**counts).difference
    assert [found.low, found.high] == pytest.approx(
        ends.tolist(), abs=0.05 * (found.high - found.low)
    )


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30, 200, 3000])
@pytest.mark.parametrize("t", [0.0, 0.01, 0.3, 1.0, 1.7, 2.5, 6.0])
def test_student_s_tails_are_the_area_under_its_density(t: float, degrees: int):
    places = np.linspace(0, t, 20_001)
    logarithm = (
        math.lgamma((degrees + 1) / 2)
        - math.lgamma(degrees / 2)
        - 0.5 * math.log(degrees * math.pi)
    )
    density = np.exp(logarithm - (degrees + 1) / 2 * np.log1p(places**2 / degrees))
    assert student_tails(t, degrees) == pytest.approx(
        1 - 2 * np.trapezoid(density, places), abs=1e-9
    )
    assert student_tails(-t, degrees) == student_tails(t, degrees)


def test_student_in_closed_form_and_in_any_table():
    for t in (0.1, 3.0, 1e3, 1e6):
        assert student_tails(t, 1) == pytest.approx(2 / math.pi * math.atan(1 / t), rel=1e-10)
        # 1 - t / sqrt(2 + t^2), without cancellation
        exact = 2 / (math.sqrt(2 + t * t) * (math.sqrt(2 + t * t) + t))
        assert student_tails(t, 2) == pytest.approx(exact, rel=1e-10)
    for degrees, quantile in (
        (1, 12.7062),
        (4, 2.7764),
        (9, 2.2622),
        (30, 2.0423),
        (100, 1.9840),
        (10**6, 1.95997),
    ):
        assert student_quantile(0.95, degrees) == pytest.approx(quantile, abs=5e-5)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.integers(1, 2000))
def test_over_passages_of_one_size_it_is_the_paired_t_test(differences: list[float], size: int):
    found = paired_rate(np.array(differences), np.full(len(differences), size))
    assert found.value == pytest.approx(statistics.fmean(differences) / size, abs=1e-12)
    spread = statistics.stdev(differences)
    if spread < 1e-6:
        return
    error = spread / math.sqrt(len(differences)) / size
    assert (found.high - found.low) / 2 == pytest.approx(
        student_quantile(0.95, len(differences) - 1) * error
    )
    assert found.p_value == pytest.approx(
        student_tails(found.value / error, len(differences) - 1), rel=1e-6
    )
    assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)
    other = paired_rate(-np.array(differences), np.full(len(differences), size))
    assert (other.value, other.low, other.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )
    assert other.p_value == found.p_value


def test_no_difference_is_certain_and_so_is_one_that_never_varies():
    sizes = np.array([1000, 1100, 1050])
    same = paired_rate(np.zeros(3), sizes)
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    always = paired_rate(0.5 * sizes, sizes)
    assert (always.value, always.p_value) == (0.5, 0.0)


def test_the_rate_s_interval_covers_and_its_test_holds_its_level():
    """2,000 texts of 25 uneven passages with a known rate: 95% of the intervals have it, 5% of the
    tests reject it.
    """
    draw, rate, covered, rejected = np.random.default_rng(11), 0.3, 0, 0
    for _ in range(2000):
        sizes = draw.integers(1024, 1400, 25)
        noise = draw.normal(0, 40, 25)
        found = paired_rate(rate * sizes + noise, sizes)
        covered += found.low <= rate <= found.high
        rejected += paired_rate(noise, sizes).p_value < 0.05
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)
    assert rejected / 2000 == pytest.approx(0.05, abs=0.02)


CUTS = st.lists(st.integers(1, 6), min_size=1, max_size=60)


@given(first=CUTS, second=CUTS, size=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=200)
def test_passages_are_the_same_bytes_for_both(
    first: list[int], second: list[int], size: int, seed: int
):
    """Tokens of any sizes, special ones without bytes among them, that make the same text: token by
    token by hand.
    """
    gap = sum(first) - sum(second)
    first, second = (
        (first, [*second, gap])
        if gap > 0
        else ([*first, -gap], second)
        if gap < 0
        else (first, second)
    )
    first = [*first[:1], 0, *first[1:]]
    draw = np.random.default_rng(seed)
    readings = [Reading(np.array(sizes), draw.random(len(sizes) - 1)) for sizes in (first, second)]
    found = common_passages((readings[0], readings[1]), size)
    assert len(found) == found.nats.shape[1]
    assert found.nats.shape[0] == 2
    ends = [set(np.cumsum(sizes).tolist()) for sizes in (first, second)]
    start = min(ends[0] & ends[1])
    cuts = [start, *(start + np.cumsum(found.sizes)).tolist()]
    assert set(cuts) <= ends[0] & ends[1]
    assert cuts[-1] == sum(first)
    assert len(found) < 2 or min(found.sizes[:-1]) >= size
    for place, reading in enumerate(readings):
        its_ends, counted = np.cumsum(reading.sizes), 0
        for number, (low, high) in enumerate(itertools.pairwise(cuts)):
            inside = [token for token in range(1, len(its_ends)) if low < its_ends[token] <= high]
            assert found.nats[place, number] == pytest.approx(
                sum(reading.losses[token - 1] for token in inside)
            )
            counted += len(inside)
        assert found.tokens[place] == counted


@given(length=st.integers(2, 400), size=st.integers(1, 50))
def test_no_passage_is_short_where_tokens_are(length: int, size: int):
    """Of tokens of a byte each, every passage has the size, and the last one less than twice as
    much.
    """
    reading = Reading(np.ones(length, dtype=np.int64), np.zeros(length - 1))
    sizes = common_passages((reading, reading), size).sizes.tolist()
    assert sum(sizes) == length - 1
    assert sizes[:-1] == [size] * (len(sizes) - 1)
    assert sizes[-1] < 2 * size
    assert sizes[-1] >= size or len(sizes) == 1
