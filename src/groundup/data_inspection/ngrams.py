"""Looks in the training split for n-grams of the texts that a model is measured on.

Brown et al. (2020, appendix C) compare n-grams of 13 words. Here an n-gram is 13 tokens, which are
about ten words, so that shards needn't be decoded. This works because the same tokenizer cuts the
same text into the same tokens, except for one or two tokens at the edges of the text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from groundup.data.shard_file import Shard
from groundup.errors import CorpusError

NGRAM = 13
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
MIX = np.uint64(0xD6E8FEB86659FD93)
# tokens read at once: what is computed from them stays in the processor's cache, about
CHUNK = 2**18
SAMPLE = 2**20  # tokens of a larger split that are looked for
STRETCH = 2**14  # tokens of each of the places that a sample is made of
PIECE = 1024  # tokens: a document's length where nothing separates documents


def chunks(shard: Shard, overlap: int = 0, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Read a shard's tokens piece by piece.

    The file is read, because a mapped file's pages would count as this process's memory.

    Args:
        shard: The open shard.
        overlap: The number of tokens at the end of a piece that the next piece repeats.
        size: The number of new tokens of a piece.

    Yields:
        [tokens] of the shard's type.

    Raises:
        CorpusError: The file can't be read.
    """
    tokens = shard.tokens
    try:
        with shard.path.open("rb") as file:
            file.seek(shard.offset)
            left, kept = len(tokens), np.empty(0, tokens.dtype)
            while left:
                read = np.fromfile(file, tokens.dtype, min(size, left))
                if not len(read):
                    raise OSError(0, f"it ends {left:,} tokens too early")
                yield (piece := np.concatenate([kept, read]))
                left, kept = left - len(read), piece[max(0, len(piece) - overlap) :]
    except OSError as error:
        raise CorpusError(f"shard {shard.path} can't be read: {error.strerror}") from error


class NgramHash:
    """A hash of every n consecutive tokens, from sums of powers.

    The hash of the n tokens from token_i on is the sum of (token_(i+k) + 1) BASE^k for k < n,
    modulo 2^64, whose bits are then mixed.
    """

    def __init__(self, n: int = NGRAM) -> None:
        self.n = n
        self._powers, self._inverses = np.empty(0, np.uint64), np.empty(0, np.uint64)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Hash [tokens], integers of at least 0, and return [tokens - n + 1] uint64."""
        count = len(tokens) - self.n + 1
        if count <= 0:
            return np.empty(0, np.uint64)
        if len(self._powers) < len(tokens):
            self._powers = _powers(BASE, len(tokens))
            self._inverses = _powers(pow(BASE, -1, 2**64), len(tokens))
        sums = np.zeros(len(tokens) + 1, np.uint64)
        terms = (tokens.astype(np.uint64) + np.uint64(1)) * self._powers[: len(tokens)]
        np.cumsum(terms, out=sums[1:])
        return _mixed((sums[self.n :] - sums[:count]) * self._inverses[:count])


def _powers(base: int, count: int) -> np.ndarray:
    """base^0, base^1 ... modulo 2^64: [count] uint64."""
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Other numbers for the same ones, of which the upper bits depend on all, as in splitmix64."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= MIX
    hashes ^= hashes >> np.uint64(32)
    return hashes


class NgramTable:
    """The hashes of n-grams to look for; one pair of n-grams in about 2^64 has equal hashes."""

    def __init__(self, hashes: np.ndarray) -> None:
        ordered = np.sort(hashes)  # np.unique takes a hundred times as long
        self.hashes = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
        bits = max(10, len(self.hashes).bit_length() + 6)
        self._shift = np.uint64(64 - bits)
        # a bit for what a hash begins with: rules out 63 of 64
        self._filter = np.zeros(2 ** (bits - 3), np.uint8)
        places = (self.hashes >> self._shift).view(np.int64)
        np.bitwise_or.at(self._filter, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))

    def mark(self, hashes: np.ndarray, found: np.ndarray) -> None:
        """Set found[i] to True where self.hashes[i] is one of `hashes`."""
        places = (hashes >> self._shift).view(np.int64)
        candidates = (self._filter.take(places >> 3) >> (places & 7).astype(np.uint8)) & 1
        found[self._places(np.sort(hashes[candidates.view(bool)]))] = True

    def _places(self, hashes: np.ndarray) -> np.ndarray:
        """Where the hashes are that the table has."""
        if not len(self.hashes):
            return np.empty(0, np.int64)
        places = np.searchsorted(self.hashes, hashes)
        places[places == len(self.hashes)] = 0
        return places[self.hashes[places] == hashes]

    def search(self, shards: Iterable[Shard], hasher: NgramHash) -> np.ndarray:
        """Tell which n-grams of the table occur in some shards: [n-grams] bool.

        The shards are read once, in constant memory.
        """
        found = np.zeros(len(self.hashes), bool)
        for shard in shards:
            for piece in chunks(shard, hasher.n - 1):
                self.mark(hasher(piece), found)
        return found


@dataclass(frozen=True)
class DocumentNgrams:
    """The n-grams to look for, of one or more documents.

    Args:
        hashes: The hashes of the n-grams of all documents, one document after the other.
        counts: How many n-grams each document has, [documents].
        tokens: The number of tokens of all documents together.
        whole: Whether the documents are a whole split and not only a sample.
    """

    hashes: np.ndarray
    counts: np.ndarray
    tokens: int = 0
    whole: bool = True

    @classmethod
    def of(
        cls, documents: Iterable[np.ndarray], hasher: NgramHash, whole: bool = True
    ) -> "DocumentNgrams":
        """Hash the n-grams of documents, each [tokens]."""
        hashes, tokens = [np.empty(0, np.uint64)], 0
        for document in documents:
            hashes.append(hasher(document))
            tokens += len(document)
        counts = np.array([len(part) for part in hashes[1:]], np.int64)
        return cls(np.concatenate(hashes), counts, tokens, whole)

    def shares(self, table: NgramTable, found: np.ndarray) -> np.ndarray:
        """Return the share of each document's n-grams that a search in a table found.

        Args:
            table: A table that has all n-grams of the documents.
            found: For each n-gram of the table whether it was found, as `search` returned it.

        Returns:
            [documents]; NaN for a document that is too short to have an n-gram.
        """
        hit = np.empty(0, bool)
        if len(self.hashes):
            hit = found[np.searchsorted(table.hashes, self.hashes)]
        totals, ends = np.concatenate([[0], np.cumsum(hit)]), np.cumsum(self.counts)
        with np.errstate(invalid="ignore"):
            return (totals[ends] - totals[ends - self.counts]) / self.counts


def sample(
    shards: list[Shard], separator: int | None, hasher: NgramHash, most: int = SAMPLE
) -> DocumentNgrams:
    """Hash the n-grams of a split's documents: of all, or of a sample of about `most` tokens.

    A sample is made of evenly spread stretches of 2^14 tokens; a document that continues beyond the
    end of a stretch is cut there. Where no separator is found, 1,024 tokens count as a document.
    """
    total = sum(len(shard.tokens) for shard in shards)
    documents = _documents(shards, separator, most, total)
    return DocumentNgrams.of(documents, hasher, total <= most)


def _documents(
    shards: list[Shard], separator: int | None, most: int, total: int
) -> Iterator[np.ndarray]:
    for shard in shards:
        size = len(shard.tokens)
        parts, length = 1, size
        if total > most:
            parts, length = max(1, round(most / STRETCH * size / total)), min(size, STRETCH)
        for number in range(parts):
            first = number * (size - length) // max(1, parts - 1)
            stretch = np.array(shard.tokens[first : first + length])
            yield from split(stretch, separator, cut=first > 0)


def split(tokens: np.ndarray, separator: int | None, cut: bool = False) -> Iterator[np.ndarray]:
    """Cut consecutive tokens into documents, without their separators.

    Args:
        tokens: [tokens].
        separator: The token before each document, if there is one.
        cut: Whether to leave out the tokens before the first separator.

    Yields:
        [tokens] of a document.
    """
    borders = separators(tokens, separator)
    if not len(borders):
        yield from (tokens[first : first + PIECE] for first in range(0, len(tokens), PIECE))
        return
    if borders[0] > 0 and not cut:
        yield tokens[: borders[0]]
    for first, last in zip(borders, [*borders[1:], len(tokens)], strict=True):
        if last > first + 1:
            yield tokens[first + 1 : last]


def separators(tokens: np.ndarray, separator: int | None) -> np.ndarray:
    """Find the positions of a separator, or none if `separator` is None: [separators] int64."""
    return np.empty(0, np.int64) if separator is None else np.flatnonzero(tokens == separator)
