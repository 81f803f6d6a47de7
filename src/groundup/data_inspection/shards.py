"""Reads shards from end to end, and says whether they are what their headers, their index and their
tokenizer say.
"""

import hashlib

import numpy as np

from groundup.data.shard_file import Shard
from groundup.data.shard_folder import INDEX, SPLITS, ShardFolder
from groundup.data_inspection.ngrams import chunks
from groundup.errors import CorpusError


def verify(folder: ShardFolder, vocab_size: int | None, separator: int | None) -> None:
    """Raises CorpusError, which names every shard that isn't what it should be.

    vocab_size: of the tokenizer, if it is known. separator: its token before each document.
    """
    problems = _contradictions(folder, vocab_size)
    for split in SPLITS:
        entries = (
            folder.index["splits"][split]["shards"]
            if folder.index
            else [{}] * len(folder.shards[split])
        )
        for shard, entry in zip(folder.shards[split], entries, strict=True):
            problems += [
                f"{shard.path.name} {problem}"
                for problem in _problems(shard, entry, vocab_size, separator)
            ]
    if problems:
        raise CorpusError(
            f"{folder.path} can't be trusted: {'; '.join(problems)}. Prepare it again, or copy it "
            "again from where it is whole"
        )


def _contradictions(folder: ShardFolder, vocab_size: int | None) -> list[str]:
    """Where the index contradicts itself, the headers or the tokenizer."""
    if not folder.index:
        return []
    index, problems = folder.index, []
    try:
        says = index["tokenizer"]
        if says["vocab_size"] != vocab_size:
            problems.append(
                f"{INDEX} says {says['vocab_size']} tokens in the vocabulary, its tokenizer has "
                f"{vocab_size}"
            )
        for split in SPLITS:
            for key in ("tokens", "documents"):
                total, stated = (
                    sum(entry[key] for entry in index["splits"][split]["shards"]),
                    index["splits"][split][key],
                )
                if total != stated:
                    problems.append(
                        f"{INDEX} says {stated:,} {key} for {split}, its shards have {total:,}"
                    )
            for shard in folder.shards[split]:
                if (shard.vocab_size, shard.tokenizer) != (says["vocab_size"], says["sha256"]):
                    problems.append(
                        f"{shard.path.name} was made by another tokenizer than {INDEX} says"
                    )
    except (KeyError, TypeError, ValueError) as error:
        problems.append(f"{INDEX} is damaged: {type(error).__name__} {error}")
    return problems


def _problems(
    shard: Shard, entry: dict, vocab_size: int | None, separator: int | None
) -> list[str]:
    """What is wrong with a shard's body. entry: what the index says of it, if anything."""
    digest, largest, documents = hashlib.sha256(), 0, 0
    for piece in chunks(shard):
        digest.update(piece.data)
        largest = max(largest, int(piece.max()))
        documents += np.count_nonzero(piece == separator) if separator is not None else 0
    if shard.sha256 is not None and digest.hexdigest() != shard.sha256:
        return [
            f"is damaged: the SHA-256 of its tokens is {digest.hexdigest()[:12]}..., not "
            f"{shard.sha256[:12]}..."
        ]
    problems = []
    if shard.largest is not None and largest != shard.largest:
        problems.append(f"has {largest} as its largest token, but its header says {shard.largest}")
    if vocab_size is not None and largest >= vocab_size:
        problems.append(f"has token {largest}, but the vocabulary ends at {vocab_size - 1}")
    if separator is not None and documents != entry.get("documents", documents):
        problems.append(f"has {documents:,} documents, but {INDEX} says {entry['documents']:,}")
    return problems
