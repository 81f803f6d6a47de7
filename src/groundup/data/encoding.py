"""Documents into runs: the first half of a preparation. What comes out is a function of the documents alone.

A document's digest decides everything about it: whether it validates, in which shard it lies, and where in it.
So neither the order of the files nor the number of workers changes a shard; adding documents moves none between the
splits; and documents that are equal end up side by side.

A run is a file of a part's documents, sorted by shard, as many as fit into little memory:

    the places where the documents of each shard begin, in documents and in tokens: [shards + 1, 2] uint64
    the documents, a row of DOCUMENT each
    their tokens
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from groundup.data.permutation import random_key
from groundup.errors import TokenizerError
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer

DOCUMENT = np.dtype([("order", "<u8"), ("digest", "S16"), ("tokens", "<u4"), ("bytes", "<u4")])
RUN_TOKENS = 2**23  # of a run, about: what phase one holds in memory
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Layout:
    """How documents are spread. validation: their share; training_shards, validation_shards: how many there will be."""

    seed: int
    validation: float
    training_shards: int
    validation_shards: int

    @property
    def shards(self) -> int:
        """Of both splits; those for training come first."""
        return self.training_shards + self.validation_shards

    def validates(self, digest: bytes) -> bool:
        """Whether a document is for validation: whatever the seed, whatever other documents there are."""
        return int.from_bytes(digest[:8], "little") < self.validation * 2.0**64

    def orders(self, digests: np.ndarray) -> np.ndarray:
        """The documents' places among all, as random numbers: [documents] S16 -> [documents] uint64"""
        return random_key(self.seed, np.frombuffer(digests.tobytes(), "<u8")[1::2])

    def shards_of(self, validates: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """The documents' shards, each a stretch of the order: [documents] bool and uint64 -> [documents] int64"""
        high = orders >> np.uint64(32)
        shards = np.where(validates, np.uint64(self.validation_shards), np.uint64(self.training_shards))
        return (high * shards >> np.uint64(32)).astype(np.int64) + np.where(validates, self.training_shards, 0)


def digest_of(data: bytes) -> bytes:
    """What identifies a document's text, in 16 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest type of a shard that holds every token."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def separator_of(tokenizer: Tokenizer) -> int | None:
    """The token before each document: end-of-text, else the end of a line, else none."""
    if END_OF_TEXT in tokenizer.special_tokens:
        return tokenizer.special_tokens[END_OF_TEXT]
    try:
        ids = tokenizer.encode("\n")
    except TokenizerError:
        return None
    return int(ids[0]) if len(ids) == 1 else None


def repaired(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which JSON can bring and no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def encode_anyway(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The text's tokens; a run that is too long to be cut into words (a million spaces) is encoded half by half."""
    try:
        return tokenizer.encode(text)
    except TokenizerError:
        if len(text) < 2**16:
            raise
        middle = len(text) // 2
        return np.concatenate([encode_anyway(tokenizer, text[:middle]), encode_anyway(tokenizer, text[middle:])])


class RunWriter:
    """Collects documents and writes a run whenever there are enough."""

    def __init__(self, folder: Path, name: str, layout: Layout, dtype: np.dtype) -> None:
        self.folder, self.name, self.layout, self.dtype = folder, name, layout, dtype
        self.names: list[str] = []
        self._start()

    def _start(self) -> None:
        self.rows: list[tuple[bytes, int, int, bool]] = []
        self.tokens: list[np.ndarray] = []
        self.count = 0

    def add(self, tokens: np.ndarray, digest: bytes, size: int) -> bool:
        """A document of `size` bytes; whether it validates."""
        validates = self.layout.validates(digest)
        self.rows.append((digest, len(tokens), size, validates))
        self.tokens.append(tokens.astype(self.dtype))
        self.count += len(tokens)
        if self.count >= RUN_TOKENS:
            self.flush()
        return validates

    def flush(self) -> None:
        """Write what there is."""
        if not self.rows:
            return
        digests, lengths, sizes, validates = map(np.array, zip(*self.rows, strict=True))
        documents = np.empty(len(digests), DOCUMENT)
        documents["digest"], documents["tokens"], documents["bytes"] = digests, lengths, sizes
        documents["order"] = self.layout.orders(documents["digest"])
        shards = self.layout.shards_of(validates, documents["order"])
        by_shard = np.argsort(shards, kind="stable")
        documents = documents[by_shard]
        bounds = np.zeros((self.layout.shards + 1, 2), dtype="<u8")
        bounds[1:, 0] = np.cumsum(np.bincount(shards, minlength=self.layout.shards))
        ends = np.concatenate([[0], np.cumsum(documents["tokens"], dtype=np.uint64)])
        bounds[:, 1] = ends[bounds[:, 0].astype(np.int64)]
        self.names.append(f"{self.name}-{len(self.names):04d}.run")
        with (self.folder / self.names[-1]).open("wb") as file:
            file.write(bounds.tobytes())
            file.write(documents.tobytes())
            for number in by_shard:
                file.write(self.tokens[number].data)
            file.flush()
            os.fsync(file.fileno())
        self._start()


def read_shard(runs: list[Path], layout: Layout, shard: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """A shard's documents from all runs, in no order: [documents] DOCUMENT, and their tokens, [tokens]."""
    bounds = [_read_bounds(path, layout) for path in runs]
    sizes = np.array([pair[shard + 1] - pair[shard] for pair in bounds]).reshape(-1, 2)
    documents, tokens = np.empty(sizes[:, 0].sum(), DOCUMENT), np.empty(sizes[:, 1].sum(), dtype)
    ends = sizes.cumsum(axis=0)
    for path, bound, (rows, count), (row_end, end) in zip(runs, bounds, sizes, ends, strict=True):
        table = bound.nbytes
        with path.open("rb") as file:
            file.seek(table + bound[shard, 0] * DOCUMENT.itemsize)
            _read_into(file, documents[row_end - rows : row_end])
            file.seek(table + bound[-1, 0] * DOCUMENT.itemsize + bound[shard, 1] * dtype.itemsize)
            _read_into(file, tokens[end - count : end])
    return documents, tokens


def _read_bounds(path: Path, layout: Layout) -> np.ndarray:
    with path.open("rb") as file:
        return np.fromfile(file, "<u8", 2 * (layout.shards + 1)).reshape(-1, 2).astype(np.int64)


def _read_into(file: BinaryIO, array: np.ndarray) -> None:
    read = file.readinto(memoryview(array.view(np.uint8)))  # type: ignore[attr-defined]
    assert read == array.nbytes, f"{file.name} ends early"


def shuffled(documents: np.ndarray, tokens: np.ndarray) -> Iterator[tuple[Any, np.ndarray, bool]]:
    """Documents in their order, each a row of DOCUMENT, its tokens, and whether it equals the one before."""
    ends = np.cumsum(documents["tokens"], dtype=np.int64)
    before = None
    for number in np.lexsort((documents["digest"], documents["order"])):
        row = documents[number]
        yield row, tokens[ends[number] - int(row["tokens"]) : ends[number]], row["digest"] == before
        before = row["digest"]
