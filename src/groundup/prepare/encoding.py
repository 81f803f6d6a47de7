"""Documents into runs: the first half of a preparation. What comes out is a function of the
documents alone.

A document's digest decides everything about it: whether it validates, in which shard it lies, and
where in it. So neither the order of the files nor the number of workers changes a shard; adding
documents moves none between the splits; and documents that are equal end up side by side.

A run is a file of a part's documents, sorted by shard, as many as fit into little memory:

the places where the documents of each shard begin, in documents and in tokens: [shards + 1, 2]
uint64 the documents, a row of DOCUMENT each their tokens
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from groundup.data.permutation import random_key
from groundup.errors import CorpusError, TokenizerError
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer

DOCUMENT = np.dtype([("order", "<u8"), ("digest", "S16"), ("tokens", "<u4"), ("bytes", "<u4")])
SHARD_TOKENS = 2**25  # of a shard, about: what phase two holds in memory
RUN_TOKENS = 2**23  # of a run, about: what phase one holds in memory
TOKENS_OF_A_ROW = 128  # that take as much memory as what is kept of a document beside its tokens
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Layout:
    """How documents are spread. validation: their share; training_shards, validation_shards: how
    many there will be.
    """

    seed: int
    validation: float
    training_shards: int
    validation_shards: int

    @property
    def shards(self) -> int:
        """Of both splits; those for training come first."""
        return self.training_shards + self.validation_shards

    def validates(self, digest: bytes) -> bool:
        """Whether a document is for validation: whatever the seed, whatever other documents there
        are.
        """
        return int.from_bytes(digest[:8], "little") < self.validation * 2.0**64

    def orders(self, digests: np.ndarray) -> np.ndarray:
        """The documents' places among all, as random numbers: [documents] S16 ->
        [documents] uint64
        """
        return random_key(self.seed, np.frombuffer(digests.tobytes(), "<u8")[1::2])

    def shards_of(self, validates: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """The documents' shards, each a stretch of the order: [documents] bool and uint64 ->
        [documents] int64
        """
        high = orders >> np.uint64(32)
        shards = np.where(
            validates, np.uint64(self.validation_shards), np.uint64(self.training_shards)
        )
        return (high * shards >> np.uint64(32)).astype(np.int64) + np.where(
            validates, self.training_shards, 0
        )


def digest_of(data: bytes) -> bytes:
    """What identifies a document's text, in 16 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


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
    """The text with U+FFFD for each half of a surrogate pair, which JSON can bring and no tokenizer
    takes.
    """
    return (
        text
        if text.isascii()
        else text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
    )


def encode_anyway(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The text's tokens; a run that is too long to be cut into words (a million spaces) is encoded
    half by half.
    """
    try:
        return tokenizer.encode(text)
    except TokenizerError:
        if len(text) < 2**16:
            raise
        middle = len(text) // 2
        return np.concatenate(
            [encode_anyway(tokenizer, text[:middle]), encode_anyway(tokenizer, text[middle:])]
        )


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
        self.count += len(tokens) + TOKENS_OF_A_ROW
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
        path = self.folder / self.names[-1]
        temporary = path.with_name(f"{path.name}.{uuid4().hex}.part")
        with temporary.open("wb") as file:
            file.write(bounds.tobytes())
            file.write(documents.tobytes())
            for number in by_shard:
                file.write(self.tokens[number].data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._start()


def read_shard(
    runs: list[Path], layout: Layout, shard: int, dtype: np.dtype
) -> Iterator[tuple[Any, np.ndarray, bool]]:
    """A shard's documents in their order: a row of DOCUMENT, its tokens, and whether it equals the
    one before.

    Holds the rows, and about SHARD_TOKENS tokens: what is larger, because it was guessed too small
    or is one document many times over, is read again for each stretch of it. Raises CorpusError.
    """
    pieces = [_Piece(path, layout, shard, dtype) for path in runs]
    rows = np.concatenate([np.empty(0, DOCUMENT), *(piece.read_rows() for piece in pieces)])
    ends = np.cumsum([len(piece) for piece in pieces])
    order = np.lexsort((rows["digest"], rows["order"]))
    stretches = np.cumsum(rows["tokens"][order], dtype=np.int64) // (2 * SHARD_TOKENS)
    before = None
    for stretch in np.split(order, np.flatnonzero(np.diff(stretches)) + 1):
        wanted = np.zeros(len(rows), dtype=bool)
        wanted[stretch] = True
        tokens: dict[int, np.ndarray] = {}
        for piece, end in zip(pieces, ends, strict=True):
            tokens |= piece.read_tokens(rows, end - len(piece), wanted)
        for number in stretch.tolist():
            row = rows[number]
            yield row, tokens[number], row["digest"] == before
            before = row["digest"]


class _Piece:
    """What a run has for one shard."""

    def __init__(self, path: Path, layout: Layout, shard: int, dtype: np.dtype) -> None:
        self.path, self.dtype = path, dtype
        pair = np.dtype("<u8")
        (self.first, self.token), (self.end, self.token_end) = (
            self._read(16 * shard, pair, 4).reshape(2, 2).tolist()
        )
        documents, _ = self._read(16 * layout.shards, pair, 2).tolist()
        self.table = 16 * (layout.shards + 1)
        self.body = self.table + documents * DOCUMENT.itemsize

    def __len__(self) -> int:
        return self.end - self.first

    def read_rows(self) -> np.ndarray:
        """[documents] DOCUMENT"""
        return self._read(self.table + self.first * DOCUMENT.itemsize, DOCUMENT, len(self))

    def read_tokens(
        self, rows: np.ndarray, begin: int, wanted: np.ndarray
    ) -> dict[int, np.ndarray]:
        """The tokens of those of its documents that are wanted, by their numbers, which begin with
        `begin`.
        """
        numbers = begin + np.flatnonzero(wanted[begin : begin + len(self)])
        if not len(numbers):
            return {}
        lengths = rows["tokens"][begin : begin + len(self)].astype(np.int64)
        ends = np.cumsum(lengths)
        tokens = self._read(
            self.body + self.token * self.dtype.itemsize, self.dtype, self.token_end - self.token
        )
        if len(numbers) < len(self):  # a part of it, that doesn't keep the rest
            return {
                n: tokens[ends[n - begin] - lengths[n - begin] : ends[n - begin]].copy()
                for n in numbers.tolist()
            }
        return {
            n: tokens[ends[n - begin] - lengths[n - begin] : ends[n - begin]]
            for n in numbers.tolist()
        }

    def _read(self, offset: int, dtype: np.dtype, count: int) -> np.ndarray:
        with self.path.open("rb") as file:
            file.seek(offset)
            read = np.fromfile(file, dtype, count)
        if len(read) < count:
            raise CorpusError(f"{self.path} ends early: delete the output folder and prepare again")
        return read
