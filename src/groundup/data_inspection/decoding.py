"""Shards back to documents: what can be known of shards that come without an index."""

import codecs
from array import array
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from groundup.data.shard_file import Shard
from groundup.data_inspection.ngrams import chunks
from groundup.data_inspection.statistics import Statistics
from groundup.tokenizers.base import Tokenizer


def examine_shards(
    shards: list[Shard], tokenizer: Tokenizer, separator: int | None
) -> tuple[Statistics, int]:
    """What the documents hold, and how many of them equal an earlier one.

    Without a separator all of a shard is one document. One of more tokens than are read at once is
    examined in pieces, and counts as several. Every token must be in the vocabulary.
    """
    statistics, digests = Statistics(), array("Q")
    for shard in shards:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for first, tokens, ends in _pieces(shard, separator):
            text = decoder.decode(tokenizer.decode_bytes(tokens.tolist()), final=ends)
            if text:
                data = text.encode("utf-8")
                statistics.examine(text, data, f"{shard.path.name}, token {first:,}")
                digests.append(int.from_bytes(blake2b(data, digest_size=8).digest(), "little"))
    ordered = np.sort(np.frombuffer(digests, np.uint64)) if digests else np.empty(0, np.uint64)
    return statistics, int((ordered[1:] == ordered[:-1]).sum())


def _pieces(shard: Shard, separator: int | None) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Documents without their separators: position of the first token, [tokens], whether the
    document ends there.
    """
    first, kept = 0, np.empty(0, shard.tokens.dtype)
    for chunk in chunks(shard):
        tokens = np.concatenate([kept, chunk])
        borders = (
            np.flatnonzero(tokens == separator) if separator is not None else np.empty(0, np.int64)
        )
        start = 0
        for border in map(int, borders):
            yield first + start, tokens[start:border], True
            start = border + 1
        kept, first = tokens[start:], first + start
        if len(kept) >= len(chunk):  # a document as long as that isn't held whole
            yield first, kept, False
            first, kept = first + len(kept), kept[:0]
    yield first, kept, True
