"""Encodes documents into run files, which is the first half of a preparation.

A document's digest decides whether the document is for validation, in which shard it lies, and
where in that shard. So neither the order of the files nor the number of workers changes a shard;
added documents move no other document between the splits; and equal documents end up side by side.

A run file holds some of a part's documents, those for training first, each split in the order of
its shards, so few that little memory is needed:

    the number of documents of each split: [2] uint64
    the documents, a row of DOCUMENT each
    the tokens of the documents

A shard is a range of that order, so how many there are is decided when all tokens are counted.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.permutation import random_key
from groundup.data.splits import validates
from groundup.errors import CorpusError, TokenizerError
from groundup.files import open_whole
from groundup.tokenizers.base import END_OF_TEXT, TOKENIZER_CONFIG_FILE, Tokenizer

# `end` is that of the document's tokens among those of its run
DOCUMENT = np.dtype(
    [("order", "<u8"), ("digest", "S16"), ("end", "<u8"), ("tokens", "<u4"), ("bytes", "<u4")]
)
TABLE = 16  # where a run has its rows, after the two counts
SHARD_TOKENS = 2**25  # of a shard, about
HELD_TOKENS = 2**26  # what phase two holds in memory at most
RUN_TOKENS = 2**23  # of a run, about: what phase one holds in memory
TOKENS_OF_A_ROW = 128  # that take as much memory as what is kept of a document beside its tokens
DIGEST_BYTES = 16

ByNumber = dict[int, np.ndarray]  # the tokens of documents


@dataclass(frozen=True)
class Layout:
    """Which split a document belongs to, and where in it the document comes.

    Args:
        seed: Decides the order of the documents.
        validation: The share of the documents that is for validation.
    """

    seed: int
    validation: float

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


@dataclass(frozen=True)
class ShardPlace:
    """One of a split's shards, which share the order of all documents evenly.

    Args:
        split: `train` or `validation`.
        number: The shard's number in its split.
        of: The number of shards in the split.
    """

    split: str
    number: int
    of: int

    @property
    def orders(self) -> tuple[int, int]:
        """The range of `Layout.orders` that the shard holds."""
        low, high = self.number << 32, (self.number + 1) << 32
        return -(-low // self.of) << 32, -(-high // self.of) << 32


def number_of_shards(tokens: int) -> int:
    """Give the number of shards for so many tokens: one for each SHARD_TOKENS, about."""
    return max(1, round(tokens / SHARD_TOKENS))


def digest_of(data: bytes) -> bytes:
    """Identify a document's text by 16 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def separator_of(tokenizer: Tokenizer, name: str = "") -> int:
    """Give the token before each document: end-of-text, else the end of a line.

    Args:
        tokenizer: The tokenizer.
        name: What the user calls the tokenizer, for messages.

    Raises:
        TokenizerError: The tokenizer has neither.
    """
    if tokenizer.end_of_text is not None:
        return tokenizer.end_of_text
    try:
        ids = tokenizer.encode("\n")
    except TokenizerError:
        ids = []
    if len(ids) != 1:
        what = f"tokenizer {name} has no {END_OF_TEXT}, states no other end of a text"
        remedy = f"State one as eos_token in {TOKENIZER_CONFIG_FILE}, or take another --tokenizer"
        raise TokenizerError(f"{what}, and has no one token for the end of a line. {remedy}")
    return int(ids[0])


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
        layout: In which order the documents come.
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

    def add(self, tokens: np.ndarray, digest: bytes, size: int, validates: bool) -> None:
        """Add a document, and write a run file if there are enough documents to fill one.

        Args:
            tokens: The tokens of the document, [tokens].
            digest: What identifies the document.
            size: The size of the document in bytes.
            validates: Whether the document belongs to the validation split.
        """
        self.rows.append((digest, len(tokens), size, validates))
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
        in_order = np.lexsort((documents["order"], validates))
        documents = documents[in_order]
        documents["end"] = np.cumsum(documents["tokens"], dtype=np.uint64)
        counts = np.array([(~validates).sum(), validates.sum()], "<u8")
        self.names.append(f"{self.name}-{len(self.names):04d}.run")
        with open_whole(self.folder / self.names[-1], self.folder) as file:
            file.write(counts.tobytes())
            file.write(documents.tobytes())
            for number in in_order:
                file.write(self.tokens[number].data)
        self._start()


def read_shard(
    runs: list[Path], place: ShardPlace, dtype: np.dtype
) -> Iterator[tuple[Any, np.ndarray, bool]]:
    """Read a shard's documents from the intermediate files, in the order of the shard.

    At most about HELD_TOKENS tokens are held in memory. If a shard has more, because it has many
    equal documents, the run files are read several times.

    Yields:
        What is known of a document (order, digest, length, bytes), the document's tokens, and
            whether the document equals the one before.

    Raises:
        CorpusError: A run file ends early.
    """
    pieces = [_Piece(path, place, dtype) for path in runs]
    rows = np.concatenate([np.empty(0, DOCUMENT), *(piece.read_rows() for piece in pieces)])
    ends = np.cumsum([len(piece) for piece in pieces])
    order = np.lexsort((rows["digest"], rows["order"]))
    stretches = np.cumsum(rows["tokens"][order], dtype=np.int64) // HELD_TOKENS
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

    def __init__(self, path: Path, place: ShardPlace, dtype: np.dtype) -> None:
        self.path, self.dtype = path, dtype
        training, validation = self._read(0, np.dtype("<u8"), 2).tolist()
        self.body = TABLE + (training + validation) * DOCUMENT.itemsize
        first, end = (0, training) if place.split == "train" else (training, training + validation)
        low, high = place.orders
        try:
            rows = np.memmap(path, DOCUMENT, "r", TABLE, end) if end > first else []
        except ValueError as error:
            raise self._ends_early() from error

        def place_of(order: int, after: int) -> int:
            return bisect_left(range(end), order, after, end, key=lambda at: int(rows[at]["order"]))

        self.first = place_of(low, first)
        self.end = place_of(high, self.first)
        self.first_token = int(rows[self.first - 1]["end"]) if 0 < self.first < self.end else 0
        self.end_token = int(rows[self.end - 1]["end"]) if self.first < self.end else 0

    def __len__(self) -> int:
        return self.end - self.first

    def read_rows(self) -> np.ndarray:
        """[documents] DOCUMENT"""
        return self._read(TABLE + self.first * DOCUMENT.itemsize, DOCUMENT, len(self))

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
            raise self._ends_early()
        return read

    def _ends_early(self) -> CorpusError:
        return CorpusError(f"{self.path} ends early: delete the output folder and prepare again")
