"""Shards: what was written is read, in three formats, and what isn't whole or is another's is
refused by name.
"""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import flip_bit
from groundup.data import shard_folder
from groundup.data.formats import kind_of
from groundup.data.shard_file import DTYPES, HEADER, open_shard, write_shard_file
from groundup.data.shard_folder import open_folder
from groundup.errors import CorpusError
from shard_files import characters, documents, encoded, learned, write_shards

TOKENIZER = "ab" * 32


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shard of 1,000 tokens as it lies on the disk."""
    return written(
        tmp_path_factory.mktemp("whole") / "shard.bin", np.arange(1000, dtype="<u2")
    ).read_bytes()


def written(path: Path, tokens: np.ndarray, pieces: int = 1, vocab_size: int = 2**16) -> Path:
    """A shard of these tokens."""
    parts = np.array_split(tokens, pieces)
    write_shard_file(path, parts, tokens.dtype, vocab_size, TOKENIZER)
    return path


@given(
    itemsize=st.sampled_from([2, 4]),
    values=st.lists(st.integers(0, 2**16 - 1), max_size=50),
    pieces=st.integers(1, 4),
)
def test_what_was_written_is_read(
    itemsize: int, values: list[int], pieces: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("shard") / "shard.bin"
    shard = open_shard(written(path, np.array(values, DTYPES[itemsize]), pieces))
    assert shard.tokens.tolist() == values
    assert shard.tokens.dtype == DTYPES[itemsize]
    assert (shard.largest, shard.tokenizer) == (max(values, default=0), TOKENIZER)
    shard.verify()
    assert path.stat().st_size == 96 + itemsize * len(values)
    assert [file.name for file in path.parent.iterdir()] == ["shard.bin"]


def test_the_header_is_as_documented(whole: bytes) -> None:
    magic, version, itemsize, count, vocab_size, largest = struct.unpack_from("<8sIIQII", whole)
    assert (magic, version, itemsize, count, vocab_size, largest) == (
        b"groundup",
        1,
        2,
        1000,
        65536,
        999,
    )
    assert whole[32:64].hex() == TOKENIZER
    assert whole[96:] == np.arange(1000, dtype="<u2").tobytes()


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):  # the last piece is of a token that the vocabulary lacks
        written(tmp_path / "shard.bin", np.array([1, 2, 9], DTYPES[2]), pieces=3, vocab_size=9)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [8, 50, 95, 96, 1000, 2094, 2095])
def test_a_truncated_shard_names_both_sizes(length: int, whole: bytes, tmp_path: Path) -> None:
    """faults.md, 13."""
    (tmp_path / "cut.bin").write_bytes(whole[:length])
    with pytest.raises(CorpusError) as refusal:
        open_shard(tmp_path / "cut.bin")
    assert f"cut.bin {'is cut off: ' if length < 96 else 'has '}{length:,} bytes" in str(
        refusal.value
    )
    assert ("96" if length < 96 else "2,096") in str(refusal.value)


def test_another_version_and_an_odd_size_are_named(whole: bytes, tmp_path: Path) -> None:
    newer, odd = tmp_path / "newer.bin", tmp_path / "odd.bin"
    newer.write_bytes(whole[:8] + struct.pack("<I", 2) + whole[12:])
    odd.write_bytes(b"\x01\x02\x03")
    with pytest.raises(CorpusError, match=r"newer.bin says version 2"):
        open_shard(newer)
    with pytest.raises(CorpusError, match=r"odd.bin has 3 bytes.* 2 or 4 would be"):
        open_shard(odd)


@pytest.mark.parametrize("position", range(96, 2096, 400))
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_found(position: int, bit: int, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "shard.bin").write_bytes(whole)
    flip_bit(tmp_path / "shard.bin", position, bit)
    with pytest.raises(CorpusError, match=r"shard.bin is damaged: the SHA-256"):
        open_shard(tmp_path / "shard.bin").verify()


def test_nanogpts_and_llmcs_files_are_read(tmp_path: Path) -> None:
    """nanoGPT: ids.tofile. llm.c: 256 numbers of 4 bytes (magic, version, tokens), then the
    tokens.
    """
    tokens = np.arange(5000)
    tokens.astype(np.uint16).tofile(tmp_path / "val.bin")
    for name, magic, dtype in (
        ("a_train_000001.bin", 20240520, "<u2"),
        ("b_train_000002.bin", 20240801, "<u4"),
    ):
        header = np.zeros(256, dtype="<i4")
        header[:3] = magic, 1, len(tokens)
        (tmp_path / name).write_bytes(header.tobytes() + tokens.astype(dtype).tobytes())
    assert kind_of(tmp_path) == "foreign shards"
    folder = open_folder(tmp_path)
    assert [len(folder.shards[split]) for split in ("train", "validation")] == [2, 1]
    assert all(shard.tokens.tolist() == tokens.tolist() for shard in folder.all_shards())
    assert folder.tokenizer is None
    before = folder.fingerprint
    flip_bit(tmp_path / "val.bin", 3)
    assert open_folder(tmp_path).fingerprint != before
    (tmp_path / "b_train_000002.bin").write_bytes(
        (tmp_path / "b_train_000002.bin").read_bytes()[:-4]
    )
    with pytest.raises(CorpusError, match=re.escape("an llm.c file of 5,000 tokens")):
        open_folder(tmp_path)


def test_a_split_that_is_missing_is_named(tmp_path: Path) -> None:
    np.arange(9, dtype=np.uint16).tofile(tmp_path / "train.bin")
    with pytest.raises(CorpusError, match=r"1 shards for training and 0 for validation"):
        open_folder(tmp_path)


def test_a_folder_gives_its_streams_by_split(tmp_path: Path) -> None:
    tokenizer = learned()
    folder = open_folder(write_shards(tmp_path / "shards", tokenizer, documents()))
    training, validation = (folder.tokens(split, 300) for split in ("train", "validation"))
    assert (len(training.streams), len(validation.streams)) == (3, 1)
    assert validation.streams[0].tolist() == encoded(tokenizer, documents()[::10]).tolist()
    assert training.limit is None  # a small corpus was checked
    assert all(isinstance(stream.base, np.memmap) for stream in training.streams)


def test_what_the_index_and_the_headers_say_must_agree(tmp_path: Path) -> None:
    """A shard of another corpus, one of another tokenizer, one that is missing, and an index that
    is no index.
    """
    mine = write_shards(tmp_path / "mine", learned(), documents())
    other = write_shards(tmp_path / "other", characters(), documents(90))
    shard, index = mine / "train-00001.bin", mine / "index.json"
    good_shard, good_index = shard.read_bytes(), index.read_text("utf-8")

    shard.write_bytes((other / "train-00001.bin").read_bytes())
    with pytest.raises(CorpusError, match=r"train-00001.bin has .* it belongs to another corpus"):
        open_folder(mine)
    shard.write_bytes(good_shard[:32] + bytes(32) + good_shard[64:])
    with pytest.raises(
        CorpusError, match=r"train-00001.bin was made by the tokenizer 000000000000\.\.\."
    ):
        open_folder(mine)
    shard.unlink()
    with pytest.raises(CorpusError, match=r"train-00001.bin can't be read: No such file"):
        open_folder(mine)
    shard.write_bytes(good_shard)
    for damaged in (
        good_index[:-20],
        "[]",
        good_index.replace("sha256", "sha"),
        good_index.replace("fingerprint", "x"),
    ):
        index.write_text(damaged, "utf-8")
        with pytest.raises(CorpusError, match=r"index.json is damaged"):
            open_folder(mine)
    index.write_text(json.dumps(json.loads(good_index) | {"version": 2}), "utf-8")
    with pytest.raises(CorpusError, match=r"index.json says groundup shards, version 2"):
        open_folder(mine)


def test_a_flipped_bit_is_found_at_opening_or_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small corpus is verified whole; of a large one each window's ids are checked. faults.md,
    14.
    """
    path = write_shards(tmp_path / "shards", learned(), documents())
    # the 70th token becomes one above 32,767
    flip_bit(path / "train-00000.bin", HEADER.size + 2 * 70 + 1, 7)
    with pytest.raises(CorpusError, match=r"train-00000.bin is damaged: the SHA-256"):
        open_folder(path).tokens("train", 300)
    monkeypatch.setattr(shard_folder, "READ_WHOLE", 0)
    tokens = open_folder(path).tokens("train", 300)
    tokens.read(np.array([0, 1]), np.array([0, 70]), 70)
    with pytest.raises(
        CorpusError,
        match=r"train-00000.bin has token 32\d+ at position 70, but the vocabulary ends",
    ):
        tokens.read(np.array([1, 0]), np.array([70, 69]), 70)


def test_ids_above_the_vocabulary_are_found_by_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_folder, "READ_WHOLE", 0)
    path = write_shards(tmp_path / "shards", learned(), documents())
    with pytest.raises(
        CorpusError,
        match=r"train-00000.bin has token 299 at position 0, but the vocabulary ends at 298",
    ):
        open_folder(path).tokens("train", 299)
