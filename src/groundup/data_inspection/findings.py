"""Turns figures about shards into findings, which say what the figures mean for training.

The thresholds are in this module.
"""

import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.data.shard_folder import ShardFolder
from groundup.data_inspection.contamination import DocumentOverlap, ItemOverlap
from groundup.data_inspection.statistics import LongLine, Statistics

# nats: the standard deviation of one token's loss, about, for a language model on text
TOKEN_DEVIATION = 3.0
NOTED_ERROR, WARNED_ERROR = 0.005, 0.02  # nats: 360,000 and 22,500 tokens
FEW_DOCUMENTS = 10
WARNED_DUPLICATES = WARNED_DAMAGE = 0.01  # of the documents
WARNED_OVERLAP = 0.01  # of the validation documents, mostly in training
WARNED_ITEMS = 0.005  # of HellaSwag's: the standard error of an accuracy on its 10,042 items
LONG_LINE = 100_000  # characters
BYTES_APART = 0.1  # relative: bytes per token of both splits
SHOWN = 20  # characters, and 3 items
ENLARGE = "prepare with a larger share for validation"

Level = Literal["ok", "note", "warning"]


@dataclass(frozen=True)
class Finding:
    """A line of the report on a folder of shards.

    Args:
        level: `ok`, `note` for what is worth knowing, or `warning`.
        what: What was looked at.
        value: What was found.
        meaning: What the value means for training.
        facts: The figures, for programs.
    """

    level: Level
    what: str
    value: str
    meaning: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """The figures of the training or the validation split; None for each that isn't known."""

    name: str
    tokens: int
    documents: int | None = None
    bytes: int | None = None
    duplicates: int | None = None
    statistics: Statistics | None = None


def verified(folder: ShardFolder, has_tokenizer: bool) -> Finding:
    """Report how many shards were read and verified, and what was checked."""
    count = len(folder.all_shards())
    size = sum(shard.tokens.nbytes for shard in folder.all_shards())
    checked = ["SHA-256, header and index agree"] if folder.index else []
    checked += ["every token is in the vocabulary"] if has_tokenizer else []
    value = f"{count:,} of {count:,} verified, {size / 1e6:,.1f} MB"
    return Finding("ok", "shards", value, "; ".join(checked), {"shards": count, "bytes": size})


def unknown() -> Finding:
    """Report what isn't known about shards that have neither an index nor a tokenizer."""
    value = "not known: documents, bytes, duplicates, lines, characters"
    meaning = "these shards say nothing but their tokens; with --tokenizer NAME they are decoded"
    return Finding("note", "without an index", value, meaning)


def sizes(train: Split, validation: Split) -> list[Finding]:
    """Report the number of documents, of tokens and of bytes per token in each split."""
    both = (train, validation)
    rows = []
    if train.documents is not None and validation.documents is not None:
        counts = {split.name: split.documents or 0 for split in both}
        rows.append(Finding("ok", "documents", _listed(counts), "", counts))
    counts = {split.name: split.tokens for split in both}
    level, meaning = ("ok", "") if train.tokens else ("warning", "there is nothing to train on")
    rows.append(Finding(level, "tokens", _listed(counts), meaning, counts))
    known = [split for split in both if split.bytes and split.tokens]
    ratios = {split.name: (split.bytes or 0) / split.tokens for split in known}
    if ratios:
        are_apart = max(ratios.values()) > min(ratios.values()) * (1 + BYTES_APART)
        level, meaning = "ok", ""
        if are_apart:
            level = "note"
            meaning = "the splits are of different kinds of text: compare losses per byte"
        value = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        rows.append(Finding(level, "bytes per token", value, meaning, ratios))
    return rows


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def duplicates(train: Split, validation: Split, index: dict[str, Any]) -> list[Finding]:
    """Report how many documents are copies of another document, where the numbers are known."""
    if train.duplicates is None or validation.duplicates is None or train.documents is None:
        return []
    what, facts = "duplicates", {split.name: split.duplicates for split in (train, validation)}
    count = train.duplicates + validation.duplicates
    value = _listed({name: number or 0 for name, number in facts.items()})
    if index.get("preparation", {}).get("deduplicate"):
        return [Finding("ok", what, value, "left out, each but the first", facts)]
    if not count:
        return [Finding("ok", what, "none", "no two documents of a split are the same", facts)]
    share = count / max(1, train.documents + (validation.documents or 0))
    meaning = f"{_percent(share)} of the documents are copies, which are learned more than once"
    meaning += "; groundup prepare --deduplicate leaves them out" if index else ""
    level = "warning" if share > WARNED_DUPLICATES else "note"
    return [Finding(level, what, value, meaning, facts)]


def texts(train: Split, validation: Split) -> list[Finding]:
    """Report the longest lines, encoding damage, and characters that only validation has.

    Without the statistics of both splits nothing is reported.
    """
    learned, held_out = train.statistics, validation.statistics
    if learned is None or held_out is None:
        return []
    rows = [_long_lines([*learned.longest_lines, *held_out.longest_lines])]
    rows += [*_damage(learned), *_damage(held_out, " in validation")]
    if len(rows) == 1:
        meaning = "no U+FFFD, surrogates, control characters, byte-order marks, mojibake"
        rows.append(Finding("ok", "encoding damage", "none", meaning))
    return [*rows, _unseen(learned, held_out)]


def _long_lines(lines: list[LongLine]) -> Finding:
    what, lines = "longest lines", sorted(lines, key=lambda line: -line.characters)[:5]
    facts = {"lines": [vars(line) for line in lines]}
    if not lines:
        return Finding("ok", what, "none", "", facts)
    lengths = ", ".join(f"{line.characters:,}" for line in lines)
    value = f"{lengths} characters; the first in {lines[0].origin}"
    if lines[0].characters < LONG_LINE:
        return Finding("ok", what, value, "", facts)
    meaning = "often encoded data, minified code or lost line breaks"
    return Finding("note", what, value, meaning, facts)


def _damage(statistics: Statistics, where: str = "") -> list[Finding]:
    rows = []
    for kind, damage in statistics.damage.items():
        share = damage.documents / max(1, statistics.documents)
        value = f"{damage.count:,} in {damage.documents:,} documents; the first in {damage.example}"
        meaning = f"{_percent(share)} of the documents; {_CAUSES[kind]}"
        level, facts = "warning" if share > WARNED_DAMAGE else "note", vars(damage)
        rows.append(Finding(level, f"{kind}{where}", value, meaning, facts | {"share": share}))
    return rows


_CAUSES = {
    "literal markers": "learned as text; end documents there: prepare --separator '<|endoftext|>'",
    "replacement characters": "U+FFFD stands where bytes were not UTF-8 and the text is lost",
    "lone surrogates": "halves of pairs from JSON escapes, written as U+FFFD",
    "NUL characters": "binary data, or UTF-16 read as something else",
    "control characters": "binary data, terminal codes, or CP1252 read as Latin-1",
    "byte-order marks": "files that were joined without taking them off",
    "mojibake": "UTF-8 that was read as Latin-1 or CP1252, such as Ã© for é",
}


def _unseen(train: Statistics, validation: Statistics) -> Finding:
    what, unseen = "characters unseen in training", sorted(validation.characters - train.characters)
    facts = {"characters": "".join(unseen)}
    if not unseen:
        return Finding("ok", what, "none", "", facts)
    shown = " ".join(map(_written_out, unseen[:SHOWN])) + (" ..." if len(unseen) > SHOWN else "")
    meaning = "validation has them and training doesn't: what they cost can't be learned"
    return Finding("note", what, f"{len(unseen):,}: {shown}", meaning, facts)


def _written_out(character: str) -> str:
    """A character and its code point; the code point alone where the character can't be seen.

    That is also where it would join the character before.
    """
    code, is_combining = f"U+{ord(character):04X}", unicodedata.combining(character)
    is_visible = character.isprintable() and not character.isspace() and not is_combining
    return f"{character} ({code})" if is_visible else code


def validation_size(validation: Split) -> list[Finding]:
    """Report how uncertain a loss on the validation split is, and whether documents are too few.

    The uncertainty is the standard error that the loss would have if all tokens were independent.
    """
    tokens, documents = validation.tokens, validation.documents
    if not tokens:
        meaning = f"nothing tells whether a model learns or memorises: {ENLARGE}"
        return [Finding("warning", "validation", "empty", meaning, {"tokens": 0})]
    error = TOKEN_DEVIATION / tokens**0.5
    facts = {"tokens": tokens, "standard_error": error, "documents": documents}
    level = "warning" if error > WARNED_ERROR else "note" if error > NOTED_ERROR else "ok"
    meaning = "of a loss in nats per token, at best: tokens of one document aren't independent"
    meaning += "" if level == "ok" else "; smaller differences say nothing"
    value = f"± {error:.4f} on {tokens:,} tokens"
    rows = [Finding(level, "validation: uncertainty", value, meaning, facts)]
    if documents is not None and documents < FEW_DOCUMENTS:
        meaning = f"a few documents stand for no corpus: {ENLARGE}"
        what = "validation: documents"
        rows.append(Finding("warning", what, f"only {documents:,}", meaning, facts))
    return rows


def document_overlap(overlap: DocumentOverlap) -> Finding:
    """Report how many validation documents share n-grams with the training split."""
    what, facts = "validation in training", vars(overlap)
    if not overlap.checked:
        meaning = f"no validation document has {overlap.n} tokens"
        return Finding("note", what, "not checked", meaning, facts)
    some, most = overlap.any / overlap.checked, overlap.most / overlap.checked
    value = f"{_percent(most)} mostly, {_percent(some)} in part, of {overlap.checked:,} documents"
    value += "" if overlap.whole else f" (a sample of {overlap.tokens:,} tokens)"
    level = "warning" if most > WARNED_OVERLAP else "note" if overlap.any else "ok"
    meaning = f"documents of which half the {overlap.n}-grams, or at least one, occur in training"
    if level == "warning":
        meaning += "; the validation loss measures memory too: leave out near copies"
    return Finding(level, what, value, meaning, facts)


def item_overlap(overlap: ItemOverlap) -> Finding:
    """Report how many of HellaSwag's items share n-grams with the training or validation split."""
    found, held_out = overlap.in_training, overlap.in_validation
    facts = {
        "n": overlap.n,
        "items": overlap.items,
        "training": [item.number for item in found],
        "validation": [item.number for item in held_out],
        "unknown": overlap.unknown,
    }
    value = f"{len(found):,} of {overlap.items:,} items in training, "
    value += f"{len(held_out):,} in validation"
    if overlap.unknown:
        value += f"; {overlap.unknown:,} have characters that the tokenizer lacks"
    level = "warning" if len(found) / overlap.items > WARNED_ITEMS else "note"
    first = [*found, *held_out][:3]
    examples = ", ".join(f"item {item.number} ({item.text[:40].strip()!r}...)" for item in first)
    meaning = f"a {overlap.n}-gram occurs of {examples}"
    if not found and not held_out:
        level = "ok"
        meaning = f"no {overlap.n}-gram of a context with its right ending occurs"
    return Finding(level, "HellaSwag", value, meaning, facts)


def no_items(has_tokenizer: bool) -> Finding:
    """Report that HellaSwag's items weren't looked for, and what the user must give for that."""
    give_items = "give its validation items: --hellaswag hellaswag_val.jsonl"
    how = give_items if has_tokenizer else "needs --tokenizer NAME"
    return Finding("note", "HellaSwag", "not checked", how)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if 0 < share < 0.1 else f"{100 * share:.0f}%"
