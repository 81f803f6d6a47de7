"""Encodes documents into run files, which is the first half of a preparation.

A document's digest decides whether the document is for validation, in which shard it lies, and
where in that shard. So neither the order of the files nor the number of workers changes a shard;
added documents move no other document between the splits; and equal documents end up side by side.

A run file holds some of a part's documents, sorted by shard, so few that little memory is needed:

    for each shard the number of documents and of tokens before its own: [shards + 1, 2] uint64
    the documents, a row of DOCUMENT each
    the tokens of the documents
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.permutation import random_key
from groundup.data.splits import validates
from groundup.errors import CorpusError, TokenizerError
from groundup.files import open_whole
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer

DOCUMENT = np.dtype([("order", "<u8"), ("digest", "S16"), ("tokens", "<u4"), ("bytes", "<u4")])
BOUND = np.dtype("<u8")
SHARD_TOKENS = 2**25  # of a shard, about: what phase two holds in memory
RUN_TOKENS = 2**23  # of a run, about: what phase one holds in memory
TOKENS_OF_A_ROW = 128  # that take as much memory as what is kept of a document beside its tokens
DIGEST_BYTES = 16

ByNumber = dict[int, np.ndarray]  # the tokens of documents


@dataclass(frozen=True)
class Layout:
    """How documents are spread over the shards of both splits.

    Args:
        seed: Decides the order of the documents.
        validation: The share of the documents that is for validation.
        training_shards: The number of shards for training.
        validation_shards: The number of shards for validation.
    """

    seed: int
    validation: float
    training_shards: int
    validation_shards: int

    @property
    def shards(self) -> int:
        """The number of shards of both splits; those for training come first."""
        return self.training_shards + self.validation_shards

    def place_of(self, shard: int) -> tuple[str, int]:
        """Give a shard's split, and the shard's number in that split."""
        number = shard - self.training_shards
        return ("train", shard) if number < 0 else ("validation", number)

    def validates(self, digest: bytes) -> bool:
        """Tell whether the document with this digest belongs to the validation split."""
        return validates(digest, self.validation)

    def orders(self, digests: np.ndarray) -> np.ndarray:
        """Give each document a random number, by which all documents are sorted.

        Args:
            digests: [documents] S16.

        Returns:
            [documents] uint64.
        """
        return random_key(self.seed, np.frombuffer(digests.tobytes(), "<u8")[1::2])

    def shards_of(self, validates: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """Give the number of each document's shard.

        Each shard of a split holds a range of `orders`. The shards for training come first.

        Args:
            validates: Whether each document is for validation, [documents] bool.
            orders: What `orders` gives for the documents, [documents] uint64.

        Returns:
            [documents] int64.
        """
        counts = np.array([self.training_shards, self.validation_shards], np.uint64)
        shards = (orders >> np.uint64(32)) * np.where(validates, counts[1], counts[0])
        first = np.where(validates, self.training_shards, 0)
        return (shards >> np.uint64(32)).astype(np.int64) + first


def digest_of(data: bytes) -> bytes:
    """Identify a document's text by 16 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def separator_of(tokenizer: Tokenizer) -> int | None:
    """Give the token before each document: end-of-text, else the end of a line, else none."""
    if END_OF_TEXT in tokenizer.special_tokens:
        return tokenizer.special_tokens[END_OF_TEXT]
    try:
        ids = tokenizer.encode("\n")
    except TokenizerError:
        return None
    return int(ids[0]) if len(ids) == 1 else None


def repaired(text: str) -> str:
    """Replace lone surrogates, which JSON can hold but no tokenizer accepts, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def encode_anyway(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Encode a text, half by half if a sequence of like characters is too long to cut into words.

    A million spaces are such a sequence.

    Raises:
        TokenizerError: The text has what the tokenizer can't encode.
    """
    try:
        return tokenizer.encode(text)
    except TokenizerError:
        if len(text) < 2**16:
            raise
        middle = len(text) // 2
        halves = text[:middle], text[middle:]
        return np.concatenate([encode_anyway(tokenizer, half) for half in halves])


class RunWriter:
    """Collects documents, and writes a run file whenever there are enough documents to fill one.

    Args:
        folder: Where the run files go.
        name: What the names of the run files begin with.
        layout: How documents are spread over the shards.
        dtype: The type of the tokens.
    """

    def __init__(self, folder: Path, name: str, layout: Layout, dtype: np.dtype) -> None:
        self.folder, self.name, self.layout, self.dtype = folder, name, layout, dtype
        self.names: list[str] = []
        self._start()

    def _start(self) -> None:
        self.rows: list[tuple[bytes, int, int, bool]] = []
        self.tokens: list[np.ndarray] = []
        self.count = 0

    def add(self, tokens: np.ndarray, digest: bytes, size: int) -> None:
        """Add a document, and write a run file if there are enough documents to fill one.

        Args:
            tokens: The tokens of the document, [tokens].
            digest: What identifies the document.
            size: The size of the document in bytes.
        """
        self.rows.append((digest, len(tokens), size, self.layout.validates(digest)))
        self.tokens.append(tokens.astype(self.dtype))
        self.count += len(tokens) + TOKENS_OF_A_ROW
        if self.count >= RUN_TOKENS:
            self.flush()

    def flush(self) -> None:
        """Write the documents that were collected to a run file, if there are any."""
        if not self.rows:
            return
        digests, lengths, sizes, validates = map(np.array, zip(*self.rows, strict=True))
        documents = np.empty(len(digests), DOCUMENT)
        documents["digest"], documents["tokens"], documents["bytes"] = digests, lengths, sizes
        documents["order"] = self.layout.orders(documents["digest"])
        shards = self.layout.shards_of(validates, documents["order"])
        by_shard = np.argsort(shards, kind="stable")
        documents = documents[by_shard]
        bounds = np.zeros((self.layout.shards + 1, 2), BOUND)
        bounds[1:, 0] = np.cumsum(np.bincount(shards, minlength=self.layout.shards))
        ends = np.concatenate([[0], np.cumsum(documents["tokens"], dtype=np.uint64)])
        bounds[:, 1] = ends[bounds[:, 0].astype(np.int64)]
        self.names.append(f"{self.name}-{len(self.names):04d}.run")
        with open_whole(self.folder / self.names[-1], self.folder) as file:
            file.write(bounds.tobytes())
            file.write(documents.tobytes())
            for number in by_shard:
                file.write(self.tokens[number].data)
        self._start()


def read_shard(
    runs: list[Path], layout: Layout, shard: int, dtype: np.dtype
) -> Iterator[tuple[Any, np.ndarray, bool]]:
    """Read a shard's documents from the run files, in the order of the shard.

    At most about 2 * SHARD_TOKENS tokens are held in memory. If a shard has more, because its size
    was underestimated or it has many equal documents, the run files are read several times.

    Yields:
        A row of DOCUMENT, the document's tokens, and whether the document equals the one before.

    Raises:
        CorpusError: A run file ends early.
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
        tokens: ByNumber = {}
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
        bounds = self._read(16 * shard, BOUND, 4).reshape(2, 2).tolist()
        (self.first, self.first_token), (self.end, self.end_token) = bounds
        documents, _ = self._read(16 * layout.shards, BOUND, 2).tolist()
        self.table = 16 * (layout.shards + 1)
        self.body = self.table + documents * DOCUMENT.itemsize

    def __len__(self) -> int:
        return self.end - self.first

    def read_rows(self) -> np.ndarray:
        """[documents] DOCUMENT"""
        return self._read(self.table + self.first * DOCUMENT.itemsize, DOCUMENT, len(self))

    def read_tokens(self, rows: np.ndarray, begin: int, wanted: np.ndarray) -> ByNumber:
        """The tokens of the documents that are wanted, by their numbers, the first `begin`."""
        numbers = begin + np.flatnonzero(wanted[begin : begin + len(self)])
        if not len(numbers):
            return {}
        ends = np.cumsum(rows["tokens"][begin : begin + len(self)], dtype=np.int64)
        starts = ends - rows["tokens"][begin : begin + len(self)]
        place = self.body + self.first_token * self.dtype.itemsize
        tokens = self._read(place, self.dtype, self.end_token - self.first_token)
        found = {n: tokens[starts[n - begin] : ends[n - begin]] for n in numbers.tolist()}
        if len(numbers) < len(self):  # copies of a part don't keep the rest in memory
            found = {number: part.copy() for number, part in found.items()}
        return found

    def _read(self, offset: int, dtype: np.dtype, count: int) -> np.ndarray:
        with self.path.open("rb") as file:
            file.seek(offset)
            read = np.fromfile(file, dtype, count)
        if len(read) < count:
            raise CorpusError(f"{self.path} ends early: delete the output folder and prepare again")
        return read
