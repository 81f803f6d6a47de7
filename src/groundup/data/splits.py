"""The two splits of a corpus, training and validation: their tokens, and where a text is cut.

The tokens of a split are one stream or many, in memory or on disk.
"""

from dataclasses import dataclass

import numpy as np

from groundup.errors import CorpusError

SPLITS = ("train", "validation")


def token_dtype(vocab_size: int) -> np.dtype:
    """Choose the smallest little-endian unsigned type that holds every token of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


@dataclass(frozen=True)
class Tokens:
    """Streams of tokens: one for a text, or one for each shard; no window crosses their ends.

    Args:
        streams: [tokens] unsigned each, in memory or mapped into memory from a file.
        names: The names of the streams, for messages.
        limit: The size of the vocabulary, if ids are to be checked when they are read; None if all
            ids are known to be in the vocabulary.
    """

    streams: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    limit: int | None = None

    @classmethod
    def of(cls, tokens: np.ndarray, name: str = "text") -> "Tokens":
        """Make a single stream of [tokens]."""
        return cls((tokens,), (name,))

    def __len__(self) -> int:
        return sum(map(len, self.streams))

    def read(self, streams: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Read windows.

        Args:
            streams: The index of each window's stream, [n].
            starts: Where each window starts in its stream, [n].
            length: The number of tokens of a window.

        Returns:
            [n, length] int64.

        Raises:
            CorpusError: An id is out of range.
        """
        windows = np.empty((len(starts), length), dtype=np.int64)
        places = zip(streams.tolist(), starts.tolist(), strict=True)
        rows = [self.streams[stream][start : start + length] for stream, start in places]
        if rows:  # faster than one index for each stream: rows are few, streams many
            np.concatenate(rows, out=windows.reshape(-1))
        if self.limit is not None and windows.size and windows.max() >= self.limit:
            row, place = map(int, np.argwhere(windows >= self.limit)[0])
            token, name = windows[row, place], self.names[streams[row]]
            raise out_of_range(token, name, int(starts[row]) + place, self.limit)
        return windows


def out_of_range(token: int, name: str, position: int, limit: int) -> CorpusError:
    """Make the error for an id that the vocabulary lacks."""
    has, ends = f"token {token} at position {position:,}", f"the vocabulary ends at {limit - 1}"
    why = "it was made by another tokenizer, or is damaged"
    return CorpusError(f"{name} has {has}, but {ends}: {why}")


def check_range(tokens: np.ndarray, name: str, limit: int, at_once: int = 2**24) -> None:
    """Check that all ids in [tokens] are below `limit`, piece by piece.

    Raises:
        CorpusError: An id isn't below `limit`; the error names the first such id.
    """
    for first in range(0, len(tokens), at_once):
        piece = tokens[first : first + at_once]
        if piece.max() >= limit:
            place = int(np.argmax(piece >= limit))
            raise out_of_range(int(piece[place]), name, first + place, limit)


def cut_text(tokens: np.ndarray, validation_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut the [tokens] of a text into training and validation, which is the end of the text."""
    boundary = int(len(tokens) * (1 - validation_fraction))
    return tokens[:boundary], tokens[boundary:]


def validates(digest: bytes, validation_fraction: float) -> bool:
    """Tell by a document's digest whether the document is kept for validation.

    The digest is 8 or more uniformly distributed bytes. A document stays in its split when other
    documents are added.
    """
    return int.from_bytes(digest[:8], "little") < validation_fraction * 2.0**64


def check_length(name: str, training: Tokens, validation: Tokens, block_size: int) -> None:
    """Check that a corpus is long enough to learn from and to be measured on.

    A stream of the training split must hold a window of block_size + 1 tokens, and a stream of the
    validation split must hold 2 tokens, so that one can be predicted from the other.

    Raises:
        CorpusError: A split of the corpus `name` is too short.
    """
    need = block_size + 1
    both = training.streams, validation.streams
    longest, longest_held_out = (max(map(len, streams), default=0) for streams in both)
    if longest < need or longest_held_out < 2:
        has = "in its longest shards " if sum(map(len, both)) > 2 else ""
        has += f"{longest:,} tokens for training and {longest_held_out:,} for validation"
        needs = f"model.block_size = {block_size} needs {need:,} and 2"
        remedy = "Lower model.block_size, or give more text"
        if longest_held_out < 2:
            remedy = "Give a text for it with --data.validation-corpus, or hold out more: "
            remedy += "--data.validation-fraction of a text, prepare --validation 0.1 of shards"
        raise CorpusError(f"corpus {name} is too short: {has}, but {needs}. {remedy}")
