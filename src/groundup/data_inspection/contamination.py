"""Two questions to the training split, in one pass over it: does it hold validation's texts, or
HellaSwag's?
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.data.hellaswag_items import Item, read_items
from groundup.data.shard_folder import ShardFolder
from groundup.data_inspection.ngrams import NgramHash, NgramTable, Sought, sample
from groundup.errors import TokenizerError
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class DocumentOverlap:
    """Of the validation documents that were looked for, those that share an n-gram with training,
    or most of them.

    n: tokens of an n-gram. checked: documents long enough to have one. whole: whether all of the
    split was looked for; tokens: how much of it.
    """

    n: int
    checked: int
    any: int
    most: int
    whole: bool
    tokens: int


@dataclass(frozen=True)
class ItemOverlap:
    """HellaSwag's items that share an n-gram with a split. unknown: those with characters that the
    tokenizer lacks.
    """

    n: int
    items: int
    in_training: list[Item]
    in_validation: list[Item]
    unknown: int


def find_overlap(
    folder: ShardFolder,
    n: int,
    separator: int | None,
    tokenizer: Tokenizer | None,
    hellaswag: Path | None,
) -> tuple[DocumentOverlap, ItemOverlap | None]:
    """Look for n-grams of the validation split and of HellaSwag's items. Raises CorpusError for a
    file without items.

    Items need the tokenizer of the shards; separator: its token between documents.
    """
    hasher, items = NgramHash(n), read_items(hellaswag) if hellaswag and tokenizer else []
    validation = sample(folder.shards["validation"], separator, hasher)
    variants = [_variants(item, tokenizer) for item in items] if tokenizer else []
    sought = Sought.of((tokens for pair in variants for tokens in pair), hasher)
    table = NgramTable(np.concatenate([validation.hashes, sought.hashes]))
    found = table.search(folder.shards["train"], hasher)
    shares = validation.shares(table, found)
    shares = shares[~np.isnan(shares)]
    documents = DocumentOverlap(
        n,
        len(shares),
        int((shares > 0).sum()),
        int((shares >= 0.5).sum()),
        validation.whole,
        validation.tokens,
    )
    if not items:
        return documents, None
    unknown = sum(not len(pair[0]) for pair in variants)
    in_training = _hit(items, sought, table, found)
    in_validation = _hit(items, sought, table, table.search(folder.shards["validation"], hasher))
    return documents, ItemOverlap(n, len(items), in_training, in_validation, unknown)


def _variants(item: Item, tokenizer: Tokenizer) -> list[np.ndarray]:
    """An item's tokens, at the beginning of a text and after a space: BPE's first tokens differ."""
    try:
        return [tokenizer.encode(item.text), tokenizer.encode(f" {item.text}")]
    except TokenizerError:
        return [np.empty(0, np.int64)] * 2


def _hit(items: list[Item], sought: Sought, table: NgramTable, found: np.ndarray) -> list[Item]:
    """The items of which either variant shares an n-gram."""
    hits = np.nan_to_num(sought.shares(table, found)).reshape(-1, 2).max(axis=1) > 0
    return [item for item, hit in zip(items, hits, strict=True) if hit]
