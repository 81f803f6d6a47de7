"""Reads shards from end to end, to verify the tokens and to see what texts they decode to."""

import codecs
import hashlib
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from groundup.data.shard_file import COPY_AGAIN, Shard
from groundup.data.shard_folder import INDEX, ShardFolder
from groundup.data.splits import SPLITS
from groundup.data_inspection.ngrams import chunks, separators
from groundup.data_inspection.statistics import Statistics
from groundup.errors import CorpusError
from groundup.tokenizers.base import Tokenizer


def verify(folder: ShardFolder, vocab_size: int | None, separator: int | None) -> None:
    """Check that shards are what their headers, their index and their tokenizer say.

    Args:
        folder: The open folder of shards.
        vocab_size: The size of the tokenizer's vocabulary, if it is known.
        separator: The tokenizer's token before each document, if there is one.

    Raises:
        CorpusError: A shard is damaged, or the shards contradict their headers, the index or the
            tokenizer. The error names every problem.
    """
    problems = _contradictions(folder, vocab_size)
    for split in SPLITS:
        shards = folder.shards[split]
        entries = folder.index["splits"][split]["shards"] if folder.index else [{}] * len(shards)
        for shard, entry in zip(shards, entries, strict=True):
            found = _problems(shard, entry, vocab_size, separator)
            problems += [f"{shard.path.name} {problem}" for problem in found]
    if problems:
        raise CorpusError(f"{folder.path} can't be trusted: {'; '.join(problems)}. {COPY_AGAIN}")


def _contradictions(folder: ShardFolder, vocab_size: int | None) -> list[str]:
    """Where the index contradicts itself, the headers or the tokenizer."""
    if not folder.index:
        return []
    index, problems = folder.index, []
    try:
        says = index["tokenizer"]
        if says["vocab_size"] != vocab_size:
            stated = f"{says['vocab_size']} tokens in the vocabulary"
            problems.append(f"{INDEX} says {stated}, its tokenizer has {vocab_size}")
        for split in SPLITS:
            listed = index["splits"][split]
            for key in ("tokens", "documents"):
                total = sum(entry[key] for entry in listed["shards"])
                if total != listed[key]:
                    stated = f"{listed[key]:,} {key} for {split}"
                    problems.append(f"{INDEX} says {stated}, its shards have {total:,}")
            for shard in folder.shards[split]:
                if (shard.vocab_size, shard.tokenizer) != (says["vocab_size"], says["sha256"]):
                    other = f"another tokenizer than {INDEX} says"
                    problems.append(f"{shard.path.name} was made by {other}")
    except (KeyError, TypeError, ValueError) as error:
        problems.append(f"{INDEX} is damaged: {type(error).__name__} {error}")
    return problems


def _problems(
    shard: Shard, entry: dict[str, Any], vocab_size: int | None, separator: int | None
) -> list[str]:
    """What is wrong with a shard's body; `entry` is what the index says of it, if anything."""
    digest, largest, documents = hashlib.sha256(), 0, 0
    for piece in chunks(shard):
        digest.update(piece.data)
        largest = max(largest, int(piece.max()))
        documents += len(separators(piece, separator))
    found, problems = digest.hexdigest(), []
    if shard.sha256 is not None and found != shard.sha256:
        wrong = f"{found[:12]}..., not {shard.sha256[:12]}..."
        return [f"is damaged: the SHA-256 of its tokens is {wrong}"]
    if shard.largest is not None and largest != shard.largest:
        problems.append(f"has {largest} as its largest token, but its header says {shard.largest}")
    if vocab_size is not None and largest >= vocab_size:
        problems.append(f"has token {largest}, but the vocabulary ends at {vocab_size - 1}")
    if separator is not None and documents != entry.get("documents", documents):
        problems.append(f"has {documents:,} documents, but {INDEX} says {entry['documents']:,}")
    return problems


def examine_shards(
    shards: list[Shard], tokenizer: Tokenizer, separator: int | None
) -> tuple[Statistics, int]:
    """Decode shards that come without an index, to see what their documents hold.

    Without a separator a whole shard is one document. A document of more tokens than are read at
    once is examined in pieces, and each piece counts as a document.

    Args:
        shards: The shards, whose tokens must all be in the vocabulary.
        tokenizer: The tokenizer that made the shards.
        separator: The tokenizer's token before each document, if there is one.

    Returns:
        The statistics of the documents, and the number of documents that equal an earlier one.
    """
    statistics, digests = Statistics(), array("Q")
    for shard in shards:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for first, tokens, ends in _pieces(shard, separator):
            text = decoder.decode(tokenizer.decode_bytes(tokens.tolist()), final=ends)
            if text:
                data = text.encode("utf-8")
                statistics.examine(text, data, f"{shard.path.name}, token {first:,}")
                digest = hashlib.blake2b(data, digest_size=8).digest()
                digests.append(int.from_bytes(digest, "little"))
    ordered = np.sort(np.frombuffer(digests, np.uint64)) if digests else np.empty(0, np.uint64)
    return statistics, int((ordered[1:] == ordered[:-1]).sum())


def _pieces(shard: Shard, separator: int | None) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Documents without their separators.

    Each is the position of the first token, [tokens], and whether the document ends there.
    """
    first, kept = 0, np.empty(0, shard.tokens.dtype)
    for chunk in chunks(shard):
        tokens, start = np.concatenate([kept, chunk]), 0
        for border in separators(tokens, separator).tolist():
            yield first + start, tokens[start:border], True
            start = border + 1
        kept, first = tokens[start:], first + start
        if len(kept) >= len(chunk):  # a document as long as that isn't held whole
            yield first, kept, False
            first, kept = first + len(kept), kept[:0]
    yield first, kept, True
