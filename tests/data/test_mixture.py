"""Mixtures: shares that are exact, corpora that each go through their own epochs, and names that
can't be misread.
"""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.corpora import parse_mixture
from groundup.data.mixture import Mixture, seed_of
from groundup.data.permutation import PERIOD
from groundup.data.sampler import Sampler
from groundup.data.splits import Tokens
from groundup.errors import RecipeError

seeds = st.integers(0, 2**63 - 1)


def mixture_of(shares: tuple[float, ...], seed: int = 3, batch_size: int = 12) -> Mixture:
    """Corpora of 100, 200, ... tokens; the thousands of a token say which corpus it is of."""
    samplers = tuple(
        Sampler(
            Tokens.of(1000 * place + np.arange(100 * (place + 1))),
            7,
            batch_size,
            seed_of(seed, place),
        )
        for place in range(len(shares))
    )
    return Mixture(samplers, shares, seed)


@st.composite
def some_shares(draw: st.DrawFn) -> tuple[float, ...]:
    weights = draw(st.lists(st.floats(0.001, 1), min_size=2, max_size=5))
    return tuple(weight / sum(weights) for weight in weights)


@settings(max_examples=25)
@given(shares=some_shares(), seed=seeds)
def test_a_period_has_each_share_rounded(shares: tuple[float, ...], seed: int) -> None:
    mixture = mixture_of(shares, seed)
    owners, places = mixture.origins(np.arange(2 * PERIOD))
    for corpus, share in enumerate(shares):
        mine = places[owners == corpus]
        # its examples in their order, none twice, none left out
        assert mine.tolist() == list(range(len(mine)))
        assert abs(len(mine) / 2 - share * PERIOD) <= 1 + 1e-6


def test_the_shares_are_exact_on_average_over_seeds() -> None:
    """A share of 2.5 slots is 2 or 3, each in half of 300 seeds (six standard deviations)."""
    share = 2.5 / PERIOD
    found = []
    for seed in range(300):
        counts = mixture_of((share, 1 - share), seed)._pattern[2]
        assert counts.sum() == PERIOD
        found.append(int(counts[0]))
    assert set(found) == {2, 3}
    assert abs(np.mean(found) - 2.5) < 6 * 0.5 / np.sqrt(300)


def test_the_corpora_are_spread_over_the_period() -> None:
    owners, _ = mixture_of((0.7, 0.3)).origins(np.arange(PERIOD))
    parts = owners.reshape(64, -1).mean(axis=1)  # 1,024 examples each
    assert np.abs(parts - 0.3).max() < 6 * np.sqrt(0.21 / 1024)


@settings(max_examples=25)
@given(seed=seeds, step=st.integers(0, 10**7), data=st.data())
def test_a_batch_depends_on_its_step_alone(seed: int, step: int, data: st.DataObject) -> None:
    rows = data.draw(st.slices(12).filter(lambda rows: (rows.step or 1) > 0))
    batch = mixture_of((0.5, 0.25, 0.25), seed).batch(step)
    assert torch.equal(mixture_of((0.5, 0.25, 0.25), seed).batch(step, rows), batch[rows])
    assert (batch.diff(dim=1) == 1).all()


@given(seed=seeds)
@settings(max_examples=10)
def test_each_corpus_goes_through_its_own_epochs(seed: int) -> None:
    mixture = mixture_of((0.6, 0.4), seed)
    rows = torch.cat([mixture.batch(step) for step in range(40)])
    for place, sampler in enumerate(mixture.samplers):
        mine = rows[rows[:, 0] // 1000 == place]
        assert torch.equal(mine, torch.from_numpy(sampler.windows(np.arange(len(mine)))))


def test_other_seeds_are_other_orders_and_places_other_seeds() -> None:
    orders = {
        mixture_of((0.5, 0.5), seed).origins(np.arange(64))[0].tobytes() for seed in range(50)
    }
    assert len(orders) == 50
    assert len({seed_of(seed, place) for seed in range(20) for place in range(20)}) == 400


def test_the_order_is_the_one_of_every_earlier_release() -> None:
    """Golden numbers: a change of the order would make old runs go on with other batches, without a
    word.
    """
    mixture = mixture_of((0.7, 0.3), 1337)
    assert mixture.batch(0)[:, 0].tolist() == [0, 1185, 28, 1150, 56, 77, 7, 1003, 35, 1045, 42, 70]
    assert mixture.batch(123_456)[:, 0].tolist() == [
        44,
        37,
        1143,
        65,
        1080,
        58,
        30,
        1115,
        23,
        1171,
        2,
        86,
    ]


def parsed(given: str, *existing: str) -> list[tuple[str, float]]:
    return parse_mixture(given, lambda name: name in existing)


def test_a_mixture_is_names_with_weights() -> None:
    assert parsed("a:0.7,b:0.3") == [("a", 0.7), ("b", 0.3)]
    assert parsed("data/a:3, b.txt:1") == [("data/a", 0.75), ("b.txt", 0.25)]
    # a file of that name
    assert parsed("a:0.7,b:0.3", "a:0.7,b:0.3") == [("a:0.7,b:0.3", 1.0)]
    for name in ("shakespeare", "a,b", "c:/texts", "a:b,c:d"):
        assert parsed(name) == [(name, 1.0)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a:0.7,b:-0.3", "gives b the weight -0.3: choose a finite one above 0"),
        ("a:0.7,b:0", "gives b the weight 0:"),
        ("a:nan,b:1", "gives a the weight nan"),
        ("a:1e999,b:1", "gives a the weight 1e999"),
        ("a:1,b:1,a:2", "names a twice"),
        ("a:1,b", "has b without a weight"),
        ("a:1,b:x", "has b:x without a weight"),
        ("a:1,", "has an empty name without a weight"),
        ("a:1,:1", "has 1 without a weight"),
        ("a:1,b:1e-9", "gives b 1e-09 of the tokens, but a share has to be at least 1 in 65,536"),
    ],
)
def test_what_is_no_mixture_is_named(given: str, said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)) as refusal:
        parsed(given)
    assert f"data.corpus = {given} " in str(refusal.value)
