"""Byte-level BPE from first principles: how it is learned, how a text is encoded and read back.

The tests of the fast tokenizers require the same pairs in the same order and the same ids.
"""

from collections import Counter
from itertools import pairwise

import regex

from groundup.errors import TokenizerError

# GPT-2's words (Radford et al. 2019, section 2.2): no pair crosses from one to the next.
WORDS = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

Pair = tuple[int, int]
Words = Counter[tuple[int, ...]]  # how often each word occurs, as its tokens


class ReadableBytePair:
    """Tokens 0 to 255 are the bytes; token 256 + i is the i-th pair that was learned.

    The source is Sennrich et al. (2016).
    """

    def __init__(self, merges: list[Pair]) -> None:
        self.merges = merges
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.bytes_of = [bytes([byte]) for byte in range(256)]
        for left, right in merges:
            self.bytes_of.append(self.bytes_of[left] + self.bytes_of[right])

    @property
    def vocab_size(self) -> int:
        return len(self.bytes_of)

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "ReadableBytePair":
        """Learn the most frequent pair of tokens, merge it in the whole text, and repeat.

        Of equally frequent pairs the pair whose left token has the lowest id is merged; if the left
        tokens are equal too, the pair whose right token has the lowest id.

        Args:
            text: What the pairs are learned from.
            vocab_size: The number of tokens to reach. Learning stops earlier when every word is a
                single token.

        Raises:
            TokenizerError: `vocab_size` is less than 256.
        """
        if vocab_size < 256:
            need = "at least 256: a token for each byte"
            raise TokenizerError(f"vocab_size = {vocab_size} must be {need}")
        words = Counter(tuple(word) for word in split_words(text))
        merges: list[Pair] = []
        while 256 + len(merges) < vocab_size:
            counts = count_pairs(words)
            if not counts:
                break
            best = min(counts, key=lambda pair: (-counts[pair], pair))
            words = merge_in_all(words, best, 256 + len(merges))
            merges.append(best)
        return cls(merges)

    def encode(self, text: str) -> list[int]:
        """Encode a text: in each word the pair that was learned first is merged first."""
        return [token for word in split_words(text) for token in self.encode_word(word)]

    def encode_word(self, word: bytes) -> tuple[int, ...]:
        """Encode the bytes of one word."""
        tokens = tuple(word)
        while known := [self.ranks[pair] for pair in pairwise(tokens) if pair in self.ranks]:
            rank = min(known)
            tokens = merge(tokens, self.merges[rank], 256 + rank)
        return tokens

    def decode_bytes(self, tokens: list[int]) -> bytes:
        """Return the bytes that tokens stand for."""
        return b"".join(self.bytes_of[token] for token in tokens)

    def decode(self, tokens: list[int]) -> str:
        """Decode tokens; bytes that aren't UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")


def split_words(text: str) -> list[bytes]:
    """Cut a text into words, in UTF-8.

    Raises:
        TokenizerError: The text has half of a surrogate pair, which UTF-8 can't hold.
    """
    try:
        return [word.encode("utf-8") for word in WORDS.findall(text)]
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.object[error.start]!r} is a lone surrogate: not a character"
        ) from None


def count_pairs(words: Words) -> Counter[Pair]:
    """Count each pair of neighbouring tokens in words, as often as the words occur."""
    counts: Counter[Pair] = Counter()
    for tokens, number in words.items():
        for pair in pairwise(tokens):
            counts[pair] += number
    return counts


def merge_in_all(words: Words, pair: Pair, token: int) -> Words:
    """Replace a pair of neighbouring tokens in all words by one token."""
    return Counter({merge(tokens, pair, token): number for tokens, number in words.items()})


def merge(tokens: tuple[int, ...], pair: Pair, token: int) -> tuple[int, ...]:
    """Replace each occurrence of a pair of tokens, from left to right, by one token."""
    merged, place = [], 0
    while place < len(tokens):
        is_pair = tokens[place : place + 2] == pair
        merged.append(token if is_pair else tokens[place])
        place += 2 if is_pair else 1
    return tuple(merged)
