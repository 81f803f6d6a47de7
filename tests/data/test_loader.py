"""What is prepared ahead is what would be computed on the spot, in whatever order it is
asked for.
"""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.loader import Loader, hash_rows
from groundup.data.sampler import Sampler
from groundup.data.splits import Tokens
from groundup.errors import CorpusError

SAMPLER = Sampler(Tokens.of(np.arange(500, dtype=np.uint16)), block_size=7, batch_size=12, seed=3)


def batches(rows: int = 3, rank: int = 0, size: int = 2) -> Loader:
    return Loader(SAMPLER, rows, rank, size, torch.device("cpu"))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), max_size=12), st.integers(0, 1))
def test_any_order_gives_the_samplers_rows(asked: list[tuple[int, int]], rank: int) -> None:
    ahead = batches(rank=rank)
    for step, micro_step in asked:
        first = (2 * micro_step + rank) * 3
        expected = SAMPLER.batch(step)[first : first + 3]
        tokens, batch_hash = ahead.take(step, micro_step)
        assert torch.equal(tokens, expected)
        assert batch_hash == hash_rows(expected, first)


@pytest.mark.parametrize(("rows", "size"), [(12, 1), (3, 2), (2, 3), (1, 1)])
def test_all_slices_of_all_processes_are_the_batch(rows: int, size: int) -> None:
    worlds = [batches(rows, rank, size) for rank in range(size)]
    for step in range(3):
        slices = [
            world.take(step, micro) for micro in range(worlds[0].micro_steps) for world in worlds
        ]
        assert torch.equal(torch.cat([tokens for tokens, _ in slices]), SAMPLER.batch(step))
        assert sum(batch_hash for _, batch_hash in slices) == hash_rows(SAMPLER.batch(step), 0)


def test_the_next_one_is_begun_while_the_last_is_used() -> None:
    ahead = batches()
    for here, after in [((0, 0), (0, 1)), ((0, 1), (1, 0))]:
        ahead.take(*here)
        assert ahead.next is not None
        assert ahead.next[0] == after
        assert torch.equal(ahead.next[1].result()[0], batches().take(*after)[0])


def test_a_failure_of_the_thread_is_raised_where_the_batch_is_taken() -> None:
    damaged = Tokens((np.arange(500, dtype=np.uint16),), ("shard",), limit=300)
    ahead = Loader(Sampler(damaged, 7, 12, 0), 3, 0, 2, torch.device("cpu"))
    for micro_step in (0, 1):
        with pytest.raises(
            CorpusError,
            match=r"shard has token \d+ at position \d+, but the vocabulary ends at 299",
        ):
            ahead.take(0, micro_step)


def test_the_hash_knows_rows_and_places() -> None:
    batch = SAMPLER.batch(0)
    assert hash_rows(batch, 5) == sum(
        zlib.crc32(row.numpy().tobytes(), 5 + place) for place, row in enumerate(batch)
    )
    assert hash_rows(batch, 0) != hash_rows(batch.flip(0), 0)
