"""Batch k is a function of (tokens, seed, k): which tokens it holds, how often, and that nothing
else decides.
"""

import random

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundup.data.loader import hash_rows
from groundup.data.permutation import mix, permute
from groundup.data.sampler import IGNORED, Sampler, evaluation_batches
from groundup.data.splits import Tokens

keys = st.integers(0, 2**64 - 1).map(lambda key: np.array([key], dtype=np.uint64))
seeds = st.integers(0, 2**63 - 1)  # what the recipe accepts


def sampler_of(length: int, block_size: int, batch_size: int, seed: int = 7) -> Sampler:
    """A text in which every token is its own position, so that a batch says where it was read."""
    return Sampler(Tokens.of(np.arange(length, dtype=np.uint32)), block_size, batch_size, seed)


def epoch_of(sampler: Sampler, epoch: int) -> np.ndarray:
    """Where each window of an epoch starts, in the order in which they come. [windows_per_epoch]"""
    windows = sampler.windows_per_epoch
    first, last = epoch * windows, (epoch + 1) * windows - 1
    steps = range(first // sampler.batch_size, last // sampler.batch_size + 1)
    starts = np.concatenate([sampler.batch(step)[:, 0].numpy() for step in steps])
    skipped = first - steps[0] * sampler.batch_size
    return starts[skipped : skipped + windows]


@st.composite
def samplers(draw: st.DrawFn) -> Sampler:
    block_size = draw(st.integers(1, 12))
    # the shortest text that the corpus check lets through
    length = draw(st.integers(block_size + 1, 400))
    return sampler_of(length, block_size, draw(st.integers(1, 9)), draw(seeds))


@settings(max_examples=200)
@given(size=st.integers(1, 3000), key=keys)
@example(size=1, key=np.zeros(1, dtype=np.uint64))
@example(size=2, key=np.zeros(1, dtype=np.uint64))
def test_permute_is_a_bijection(size: int, key: np.ndarray) -> None:
    permuted = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(permuted), np.arange(size))


@pytest.mark.parametrize("power", range(1, 13))
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_permute_is_a_bijection_around_powers_of_two(power: int, beside: int) -> None:
    """Where the number of bits changes, and with it how far a walk may go."""
    size = 2**power + beside
    assert (
        len(np.unique(permute(np.arange(size), size, np.array([power], dtype=np.uint64)))) == size
    )


@given(
    size=st.integers(1, 2**62),
    key=keys,
    picks=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, unique=True),
)
def test_permute_needs_only_the_indices_it_is_asked_for(
    size: int, key: np.ndarray, picks: list[float]
) -> None:
    indices = np.unique([min(int(pick * size), size - 1) for pick in picks])
    together = permute(indices, size, key)
    assert ((together >= 0) & (together < size)).all()
    assert len(np.unique(together)) == len(indices)
    assert together.tolist() == [
        int(permute(indices[i : i + 1], size, key)[0]) for i in range(len(indices))
    ]


def test_permutations_reach_everywhere() -> None:
    """Over 4,000 keys, each of 10 places gets each of 10 values about 400 times (six standard
    deviations).
    """
    counts = np.zeros((10, 10))
    for key in range(4000):
        counts[np.arange(10), permute(np.arange(10), 10, np.array([key], dtype=np.uint64))] += 1
    assert np.abs(counts - 400).max() < 6 * np.sqrt(4000 * 0.1 * 0.9)


@given(sampler=samplers(), step=st.integers(0, 10**6))
def test_a_batch_is_rows_of_consecutive_tokens(sampler: Sampler, step: int) -> None:
    batch = sampler.batch(step)
    assert batch.shape == (sampler.batch_size, sampler.block_size + 1)
    assert batch.dtype == torch.int64
    assert (batch.diff(dim=1) == 1).all()  # the text's own order
    assert 0 <= int(batch.min()) <= int(batch.max()) < len(sampler.tokens)


@given(sampler=samplers(), step=st.integers(0, 10**6), data=st.data())
def test_rows_of_a_batch_are_the_batchs_rows(
    sampler: Sampler, step: int, data: st.DataObject
) -> None:
    rows = data.draw(st.slices(sampler.batch_size).filter(lambda rows: (rows.step or 1) > 0))
    assert torch.equal(sampler.batch(step, rows), sampler.batch(step)[rows])


@given(sampler=samplers(), epoch=st.integers(0, 2000))
def test_an_epoch_sees_each_target_at_most_once_and_nearly_all(
    sampler: Sampler, epoch: int
) -> None:
    starts = epoch_of(sampler, epoch)
    targets = (starts[:, None] + 1 + np.arange(sampler.block_size)).flatten()
    assert len(np.unique(targets)) == len(targets)
    possible = len(sampler.tokens) - 1
    assert possible - len(targets) < 2 * sampler.block_size
    assert targets.min() >= 1


def test_every_epoch_has_an_offset_and_an_order_of_its_own() -> None:
    """200 epochs of one text: each possible offset is used, every target is seen, and no order
    comes twice.
    """
    # 9 windows an epoch, offsets 0 to 10
    sampler = sampler_of(length=101, block_size=10, batch_size=9)
    epochs = [epoch_of(sampler, epoch) for epoch in range(200)]
    assert {int(starts.min()) for starts in epochs} == set(range(11))
    orders = {tuple((starts - starts.min()) // 10) for starts in epochs}
    assert len(orders) > 195  # of 9! orders
    seen = {int(start) + place for starts in epochs for start in starts for place in range(1, 11)}
    assert seen == set(range(1, 101))


def test_another_seed_is_another_order() -> None:
    batches = {
        tuple(sampler_of(1000, 8, 4, seed).batch(0).flatten().tolist()) for seed in range(50)
    }
    assert len(batches) == 50


@given(sampler=samplers(), seed=st.integers(0, 1000))
def test_a_batch_does_not_depend_on_what_was_asked_before(sampler: Sampler, seed: int) -> None:
    steps = list(range(12))
    in_order = {step: sampler.batch(step) for step in steps}
    random.Random(seed).shuffle(steps)
    torch.manual_seed(seed)  # nor on what else draws random numbers
    fresh = Sampler(
        Tokens.of(sampler.tokens.streams[0].copy()),
        sampler.block_size,
        sampler.batch_size,
        sampler.seed,
    )
    for step in steps:
        assert torch.equal(fresh.batch(step), in_order[step])


@given(sampler=samplers(), other=st.integers(1, 20))
def test_another_batch_size_reads_the_same_windows_in_the_same_order(
    sampler: Sampler, other: int
) -> None:
    """So accumulation, processes and batch size are questions of how the one stream is cut."""
    regrouped = Sampler(sampler.tokens, sampler.block_size, other, sampler.seed)
    count = sampler.batch_size * other
    ours = torch.cat([sampler.batch(step) for step in range(other)])
    theirs = torch.cat([regrouped.batch(step) for step in range(sampler.batch_size)])
    assert len(ours) == len(theirs) == count
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_the_type_of_the_stored_tokens_changes_nothing(dtype: type) -> None:
    tokens = np.arange(200).astype(dtype)
    batch = Sampler(Tokens.of(tokens), 8, 4, seed=3).batch(5)
    assert batch.dtype == torch.int64
    assert torch.equal(batch, sampler_of(200, 8, 4, seed=3).batch(5))


def test_the_mixer_is_splitmix64() -> None:
    """The first outputs of the reference implementation (prng.di.unimi.it/splitmix64.c) from state
    0.
    """
    states = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_the_order_is_the_one_of_every_earlier_release() -> None:
    """Golden numbers: a change of the order would make old runs go on with other batches, without a
    word.
    """
    sampler = sampler_of(length=10_000, block_size=64, batch_size=8, seed=1337)
    assert sampler.windows_per_epoch == 155
    assert sampler.batch(0)[:, 0].tolist() == [796, 2460, 1116, 8348, 1756, 9052, 1820, 2268]
    # 3 of epoch 0
    assert sampler.batch(19)[:, 0].tolist() == [5340, 6172, 7644, 5926, 4774, 6758, 806, 5414]
    assert sampler.batch(123_456)[:, 0].tolist() == [1296, 4688, 6736, 6992, 6224, 3536, 9040, 4880]
    assert permute(np.arange(10), 10, np.array([42], dtype=np.uint64)).tolist() == [
        1,
        3,
        6,
        4,
        2,
        9,
        8,
        0,
        7,
        5,
    ]


@pytest.mark.parametrize(
    ("shape", "hashes", "measured"),
    [
        (
            (10_000, 64, 8, 1337),
            [20677247654, 19555634494, 13921857691, 15382781530],
            [351957319231, 14596795917],
        ),
        (
            (1_000_003, 256, 12, 7),
            [19617895639, 29032807970, 24084807717, 26305988234],
            [8353848828302, 25974751391],
        ),
        (
            (70_000, 1, 5, 2**63 - 1),
            [11902396673, 10319145656, 6372269208, 15396130149],
            [150321996084664, 1093563122263],
        ),
        (
            (30, 16, 4, 0),
            [9170575785, 4142281488, 9811802697, 6450486389],
            [6675008781, 6675008781],
        ),
    ],
)
def test_the_batches_of_one_stream_are_those_of_every_earlier_release(
    shape: tuple[int, int, int, int], hashes: list[int], measured: list[int]
) -> None:
    """Golden: computed when the sampler knew one array alone."""
    length, *rest = shape
    sampler = Sampler(Tokens.of((np.arange(length) * 7919 % 50257).astype(np.uint16)), *rest)
    assert [hash_rows(sampler.batch(step), 0) for step in (0, 1, 19, 123_456)] == hashes
    for most, expected in zip((0, 500), measured, strict=True):
        batches = evaluation_batches(sampler.tokens, rest[0], rest[1], most)
        assert sum(hash_rows(batch, number) for number, batch in enumerate(batches)) == expected


@given(
    lengths=st.lists(st.integers(0, 90), max_size=6),
    block_size=st.integers(1, 12),
    seed=seeds,
    epoch=st.integers(0, 99),
)
def test_an_epoch_of_many_streams_sees_each_target_at_most_once(
    lengths: list[int], block_size: int, seed: int, epoch: int
) -> None:
    """No window crosses two streams, one that is shorter than a window has none, and little of the
    others is left.
    """
    streams = [
        1000 * place + np.arange(length) for place, length in enumerate([*lengths, 2 * block_size])
    ]
    sampler = Sampler(Tokens(tuple(streams), tuple(map(str, streams))), block_size, 3, seed)
    rows = sampler.windows(epoch * sampler.windows_per_epoch + np.arange(sampler.windows_per_epoch))
    assert (np.diff(rows) == 1).all()
    targets = rows[:, 1:].flatten()
    assert len(np.unique(targets)) == len(targets)
    assert not np.isin(targets, [1000 * place for place in range(len(streams))]).any()
    for place, stream in enumerate(streams):
        seen = ((targets // 1000) == place).sum()
        assert seen == 0 if len(stream) <= block_size else len(stream) - 1 - seen < 2 * block_size


def test_every_stream_has_an_offset_of_its_own() -> None:
    streams = tuple(1000 * place + np.arange(31) for place in range(6))
    sampler = Sampler(Tokens(streams, ("",) * 6), 10, 4, seed=5)
    offsets = sampler.windows(np.arange(12)).min(axis=1)
    first = {place: int(min(offsets[offsets // 1000 == place]) % 1000) for place in range(6)}
    assert len(set(first.values())) > 2
    epochs = {tuple(sampler.windows(epoch * 12 + np.arange(12))[:, 0]) for epoch in range(50)}
    assert len(epochs) == 50


@given(
    lengths=st.lists(st.integers(0, 60), max_size=5),
    block_size=st.integers(1, 20),
    batch_size=st.integers(1, 8),
)
def test_evaluation_of_many_streams_counts_every_target_once(
    lengths: list[int], block_size: int, batch_size: int
) -> None:
    streams = [1000 * place + np.arange(length) for place, length in enumerate([*lengths, 5])]
    tokens = Tokens(tuple(streams), tuple(map(str, lengths)))
    rows = torch.cat(list(evaluation_batches(tokens, block_size, batch_size)))
    inputs, targets = rows[:, :-1].flatten(), rows[:, 1:].flatten()
    counted = targets != IGNORED
    assert targets[counted].tolist() == [int(token) for stream in streams for token in stream[1:]]
    assert torch.equal(inputs[counted], targets[counted] - 1)


@given(length=st.integers(2, 300), block_size=st.integers(1, 20), batch_size=st.integers(1, 8))
@example(length=2, block_size=20, batch_size=3)
def test_evaluation_counts_every_target_once(length: int, block_size: int, batch_size: int) -> None:
    tokens = np.arange(1000, 1000 + length, dtype=np.uint16)
    batches = list(evaluation_batches(Tokens.of(tokens), block_size, batch_size))
    assert {batch.shape for batch in batches} == {(batch_size, block_size + 1)}
    assert {batch.dtype for batch in batches} == {torch.int64}
    inputs, targets = torch.cat(batches)[:, :-1].flatten(), torch.cat(batches)[:, 1:].flatten()
    counted = targets != IGNORED
    assert targets[counted].tolist() == list(range(1001, 1000 + length))  # all, in order
    assert torch.equal(inputs[counted], targets[counted] - 1)  # and each after its own predecessor
    assert len(batches) == -(-(length - 1) // (block_size * batch_size))  # no batch of nothing


@given(
    length=st.integers(2, 300),
    block_size=st.integers(1, 20),
    batch_size=st.integers(1, 8),
    most=st.integers(1, 320),
)
def test_a_sampled_evaluation_is_spread_evenly(
    length: int, block_size: int, batch_size: int, most: int
) -> None:
    tokens = np.arange(1000, 1000 + length, dtype=np.uint16)
    batches = list(evaluation_batches(Tokens.of(tokens), block_size, batch_size, most))
    assert {batch.shape for batch in batches} == {(batch_size, block_size + 1)}
    whole = torch.cat(list(evaluation_batches(Tokens.of(tokens), block_size, batch_size)))
    sampled = torch.cat(batches)
    starts = sampled[sampled[:, 1] != IGNORED][:, 0]
    assert len(starts.unique()) == len(starts)
    assert set(starts.tolist()) <= set(whole[whole[:, 1] != IGNORED][:, 0].tolist())
    counted = int((sampled[:, 1:] != IGNORED).sum())
    if most >= length - 1:
        assert counted == length - 1
    else:
        assert 1 <= counted <= max(most, block_size)
        assert len(starts) == max(1, most // block_size)
    if len(starts) > 1:
        # from the first window to the last, the gaps within a window of each other
        assert starts[0] == 1000
        assert starts[-1] == 1000 + (length - 2) // block_size * block_size
        assert int(starts.diff().max() - starts.diff().min()) <= block_size
