"""Finds out whether the training split has texts of the validation split or of HellaSwag."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.data.choice_items import Item
from groundup.data.hellaswag_items import read_items
from groundup.data.shard_folder import ShardFolder
from groundup.data_inspection.ngrams import DocumentNgrams, NgramHash, NgramTable, sample
from groundup.errors import TokenizerError
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class DocumentOverlap:
    """Validation documents that share n-grams with the training split.

    Args:
        n: The number of tokens of an n-gram.
        checked: The number of validation documents that were looked for and have an n-gram.
        any: The number of checked documents of which at least one n-gram occurs in training.
        most: The number of checked documents of which half the n-grams or more occur in training.
        whole: Whether the whole validation split was looked for and not only a sample.
        tokens: The number of validation tokens that were looked for.
    """

    n: int
    checked: int
    any: int
    most: int
    whole: bool
    tokens: int


@dataclass(frozen=True)
class ItemOverlap:
    """HellaSwag's items that share an n-gram with a split.

    Args:
        n: The number of tokens of an n-gram.
        items: The number of items that were looked for.
        in_training: The items that share an n-gram with the training split.
        in_validation: The items that share an n-gram with the validation split.
        unknown: The number of items with characters that the tokenizer lacks.
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
    """Look in the training split for n-grams of the validation split and of HellaSwag's items.

    Args:
        folder: The open folder of shards.
        n: The number of tokens of an n-gram.
        separator: The token between documents, if there is one.
        tokenizer: The tokenizer of the shards. Without a tokenizer items can't be looked for.
        hellaswag: A file of HellaSwag's validation items, if there is one.

    Returns:
        The overlap of the documents, and that of the items, or None if no items were looked for.

    Raises:
        CorpusError: A file can't be read, or `hellaswag` has no items.
    """
    hasher, items = NgramHash(n), read_items(hellaswag) if hellaswag and tokenizer else []
    validation = sample(folder.shards["validation"], separator, hasher)
    variants = [_variants(item, tokenizer) for item in items] if tokenizer else []
    of_items = DocumentNgrams.of((tokens for pair in variants for tokens in pair), hasher)
    table = NgramTable(np.concatenate([validation.hashes, of_items.hashes]))
    found = table.search(folder.shards["train"], hasher)
    shares = validation.shares(table, found)
    shares = shares[~np.isnan(shares)]
    some, most = int((shares > 0).sum()), int((shares >= 0.5).sum())
    looked_for = validation.whole, validation.tokens
    documents = DocumentOverlap(n, len(shares), some, most, *looked_for)
    if not items:
        return documents, None
    unknown = sum(not len(first) for first, _ in variants)
    in_training = _found_in(items, of_items, table, found)
    found = table.search(folder.shards["validation"], hasher)
    in_validation = _found_in(items, of_items, table, found)
    return documents, ItemOverlap(n, len(items), in_training, in_validation, unknown)


def _variants(item: Item, tokenizer: Tokenizer) -> list[np.ndarray]:
    """An item's tokens, at the beginning of a text and after a space: BPE's first tokens differ."""
    try:
        return [tokenizer.encode(item.text), tokenizer.encode(f" {item.text}")]
    except TokenizerError:
        return [np.empty(0, np.int64)] * 2


def _found_in(
    items: list[Item], ngrams: DocumentNgrams, table: NgramTable, found: np.ndarray
) -> list[Item]:
    """The items of which either variant shares an n-gram."""
    hits = np.nan_to_num(ngrams.shares(table, found)).reshape(-1, 2).max(axis=1) > 0
    return [item for item, hit in zip(items, hits, strict=True) if hit]
