"""N-grams found in shards, against sets of tuples."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.shard_file import open_shard, write_shard_file
from groundup.data_inspection import ngrams as overlap
from groundup.data_inspection.ngrams import (
    DocumentNgrams,
    NgramHash,
    NgramTable,
    chunks,
    sample,
    split,
)

SEPARATOR = 0


def ngrams(document: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(document[place : place + n]) for place in range(len(document) - n + 1)]


def documents_in(tokens: list[int]) -> list[list[int]]:
    """Split at the separators; empty documents left out."""
    documents: list[list[int]] = [[]]
    for token in tokens:
        if token == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(token)
    return [document for document in documents if document]


def write(path: Path, tokens: np.ndarray, dtype: str = "<u2") -> Path:
    write_shard_file(path, [tokens.astype(dtype)], np.dtype(dtype), 2**16, "00" * 32)
    return path


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 6),
    chunk=st.integers(1, 50),
    dtype=st.sampled_from(["<u2", "<u4"]),
)
def test_shares_are_those_of_sets_of_tuples(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, chunk: int, dtype: str
):
    generator, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("shards")
    train = [generator.integers(0, 5, generator.integers(0, 120)) for _ in range(3)]
    validation = generator.integers(0, 5, 80)
    validation[0] = SEPARATOR
    seen = {
        gram
        for shard in train
        for document in documents_in(shard.tolist())
        for gram in ngrams(document, n)
    }
    expected = [
        np.mean([gram in seen for gram in ngrams(document, n)]) if len(document) >= n else np.nan
        for document in documents_in(validation.tolist())
    ]
    shards = [
        open_shard(write(folder / f"train-{number}.bin", tokens, dtype))
        for number, tokens in enumerate(train)
    ]
    hasher = NgramHash(n)
    sought = sample(
        [open_shard(write(folder / "validation.bin", validation, dtype))], SEPARATOR, hasher
    )
    table = NgramTable(sought.hashes)
    found = np.zeros(len(table.hashes), bool)
    for shard in shards:
        for piece in chunks(shard, n - 1, chunk):
            table.mark(hasher(piece), found)
    np.testing.assert_array_equal(sought.shares(table, found), expected)
    np.testing.assert_array_equal(table.search(shards, hasher), found)


def test_planted_copies_are_found_and_nothing_else(tmp_path: Path):
    """A million random tokens; copies of 13 tokens at a chunk's border, and of 12, which is too
    little.
    """
    generator = np.random.default_rng(1)
    train, sought = generator.integers(1, 50_000, 2**20), generator.integers(1, 50_000, (50, 100))
    border = overlap.CHUNK
    train[border - 6 : border + 7] = sought[7, 20:33]
    train[border + 1000 : border + 1012] = sought[8, 20:32]
    train[:13], train[-13:] = sought[9, :13], sought[10, -13:]
    hasher = NgramHash()
    documents = DocumentNgrams.of(list(sought), hasher)
    table = NgramTable(documents.hashes)
    found = table.search([open_shard(write(tmp_path / "train.bin", train))], hasher)
    assert np.flatnonzero(documents.shares(table, found)).tolist() == [7, 9, 10]
    assert found.sum() == 3


@given(st.lists(st.integers(0, 2**32 - 1), max_size=60), st.integers(1, 14))
def test_a_hash_depends_on_its_tokens_alone(tokens: list[int], n: int):
    hashes = NgramHash(n)(np.array(tokens, np.uint32))
    alone = [int(NgramHash(n)(np.array(gram, np.uint32))[0]) for gram in ngrams(tokens, n)]
    assert hashes.tolist() == alone
    assert len(set(alone)) == len(set(ngrams(tokens, n)))


def test_no_hash_is_shared_by_permutations_and_repetitions():
    """What sums of powers are weak at, were the base or the numbers badly chosen."""
    generator = np.random.default_rng(1)
    rows = np.concatenate(
        [
            np.array([generator.permutation(13) for _ in range(30_000)]),
            generator.integers(0, 2, (8192, 13)),
        ]
    )
    grams = np.unique(rows, axis=0)
    hashes = NgramHash()(grams.ravel())[::13]
    assert len(np.unique(hashes)) == len(grams)


@given(st.lists(st.integers(0, 3), max_size=60))
def test_documents_are_what_lies_between_separators(tokens: list[int]):
    found = [document.tolist() for document in split(np.array(tokens, np.uint16), SEPARATOR)]
    assert found == documents_in(tokens)


def test_a_sample_is_spread_evenly_and_of_the_size_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(overlap, "STRETCH", 100)
    numbers = np.arange(1, 60_001)
    numbers[::50] = SEPARATOR
    shards = [
        open_shard(write(tmp_path / f"{part}.bin", numbers[part * 30_000 :][:30_000]))
        for part in range(2)
    ]
    documents = list(overlap._documents(shards, SEPARATOR, 3000, 60_000))
    firsts = np.array([document[0] for document in documents])
    assert 2000 < sum(map(len, documents)) <= 3000
    assert np.diff(firsts).min() > 0  # none twice
    assert np.histogram(firsts, 10, (0, 60_000))[0].min() >= 2
    assert not sample(shards, SEPARATOR, NgramHash(), 3000).whole
    assert sample(shards, SEPARATOR, NgramHash(), 60_000).whole
