"""What the data doctor says: figures in, findings out, each with what it means. Its thresholds live
here.
"""

import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.data.hellaswag_items import Item
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


@dataclass(frozen=True)
class Finding:
    """A line of the report: what was looked at, what it is, and what that means. facts: the
    figures, for programs.
    """

    level: Literal["ok", "note", "warning"]
    what: str
    value: str
    meaning: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """A split's figures; None for what isn't known."""

    name: str
    tokens: int
    documents: int | None = None
    bytes: int | None = None
    duplicates: int | None = None
    statistics: Statistics | None = None


def verified(folder: ShardFolder, has_tokenizer: bool) -> Finding:
    """What reading the shards from end to end has shown."""
    count = len(folder.all_shards())
    size = sum(shard.tokens.nbytes for shard in folder.all_shards())
    checked = ["SHA-256, header and index agree"] if folder.index else []
    checked += ["every token is in the vocabulary"] if has_tokenizer else []
    value = f"{count:,} of {count:,} verified, {size / 1e6:,.1f} MB"
    return Finding("ok", "shards", value, "; ".join(checked), {"shards": count, "bytes": size})


def unknown() -> Finding:
    """Shards alone don't say what they are made of."""
    return Finding(
        "note",
        "without an index",
        "not known: documents, bytes, duplicates, lines, characters",
        "these shards say nothing but their tokens; with --tokenizer NAME they are decoded",
    )


def sizes(train: Split, validation: Split) -> list[Finding]:
    """Documents, tokens, and bytes per token."""
    both = (train, validation)
    rows = [
        _counts(
            "tokens",
            {split.name: split.tokens for split in both},
            "warning" if not train.tokens else "ok",
        )
    ]
    if train.documents is not None and validation.documents is not None:
        rows.insert(0, _counts("documents", {split.name: split.documents or 0 for split in both}))
    ratios = {
        split.name: split.bytes / split.tokens for split in both if split.bytes and split.tokens
    }
    if ratios:
        low, high = min(ratios.values()), max(ratios.values())
        apart = high > low * (1 + BYTES_APART)
        meaning = (
            "the splits are of different kinds of text: compare losses per byte" if apart else ""
        )
        value = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        rows.append(Finding("note" if apart else "ok", "bytes per token", value, meaning, ratios))
    return rows


def _counts(what: str, counts: dict[str, int], level: Literal["ok", "warning"] = "ok") -> Finding:
    value = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return Finding(
        level, what, value, "there is nothing to train on" if level == "warning" else "", counts
    )


def duplicates(train: Split, validation: Split, index: dict[str, Any]) -> list[Finding]:
    """Documents that equal another one."""
    if train.duplicates is None or validation.duplicates is None or train.documents is None:
        return []
    facts = {split.name: split.duplicates or 0 for split in (train, validation)}
    count = sum(facts.values())
    documents = train.documents + (validation.documents or 0)
    value = ", ".join(f"{name} {number:,}" for name, number in facts.items())
    if index.get("preparation", {}).get("deduplicate"):
        return [Finding("ok", "duplicates", value, "left out, each but the first", facts)]
    if not count:
        return [
            Finding("ok", "duplicates", "none", "no two documents of a split are the same", facts)
        ]
    share = count / max(1, documents)
    meaning = f"{_percent(share)} of the documents are copies, which are learned more than once"
    meaning += "; groundup prepare --deduplicate leaves them out" if index else ""
    return [
        Finding(
            "warning" if share > WARNED_DUPLICATES else "note", "duplicates", value, meaning, facts
        )
    ]


def texts(train: Split, validation: Split) -> list[Finding]:
    """Long lines, damage, and characters that only validation has."""
    if train.statistics is None or validation.statistics is None:
        return []
    return [
        _long_lines([*train.statistics.longest_lines, *validation.statistics.longest_lines]),
        *_damage(train.statistics),
        *_damage(validation.statistics, " in validation"),
        *([] if train.statistics.damage or validation.statistics.damage else [_no_damage()]),
        _unseen(train.statistics, validation.statistics),
    ]


def _long_lines(lines: list[LongLine]) -> Finding:
    lines = sorted(lines, key=lambda line: -line.characters)[:5]
    facts = {"lines": [vars(line) for line in lines]}
    if not lines:
        return Finding("ok", "longest lines", "none", "", facts)
    value = (
        ", ".join(f"{line.characters:,}" for line in lines)
        + f" characters; the first in {lines[0].origin}"
    )
    if lines[0].characters < LONG_LINE:
        return Finding("ok", "longest lines", value, "", facts)
    return Finding(
        "note",
        "longest lines",
        value,
        "often encoded data, minified code or lost line breaks",
        facts,
    )


def _no_damage() -> Finding:
    return Finding(
        "ok",
        "encoding damage",
        "none",
        "no U+FFFD, surrogates, control characters, byte-order marks, mojibake",
    )


def _damage(statistics: Statistics, where: str = "") -> list[Finding]:
    rows = []
    for kind, damage in statistics.damage.items():
        share = damage.documents / max(1, statistics.documents)
        value = f"{damage.count:,} in {damage.documents:,} documents; the first in {damage.example}"
        meaning = f"{_percent(share)} of the documents; {_CAUSES[kind]}"
        level = "warning" if share > WARNED_DAMAGE else "note"
        rows.append(
            Finding(level, f"{kind}{where}", value, meaning, vars(damage) | {"share": share})
        )
    return rows


_CAUSES = {
    "replacement characters": "U+FFFD stands where bytes were not UTF-8 and the text is lost",
    "lone surrogates": "halves of pairs from JSON escapes, written as U+FFFD",
    "NUL characters": "binary data, or UTF-16 read as something else",
    "control characters": "binary data, terminal codes, or CP1252 read as Latin-1",
    "byte-order marks": "files that were joined without taking them off",
    "mojibake": "UTF-8 that was read as Latin-1 or CP1252, such as Ã© for é",
}


def _unseen(train: Statistics, validation: Statistics) -> Finding:
    unseen = sorted(validation.characters - train.characters)
    facts = {"characters": "".join(unseen)}
    if not unseen:
        return Finding("ok", "characters unseen in training", "none", "", facts)
    shown = " ".join(_written_out(character) for character in unseen[:SHOWN]) + (
        " ..." if len(unseen) > SHOWN else ""
    )
    meaning = "validation has them and training doesn't: what they cost can't be learned"
    return Finding(
        "note", "characters unseen in training", f"{len(unseen):,}: {shown}", meaning, facts
    )


def _written_out(character: str) -> str:
    """A character and its code point; the code point alone where it can't be seen, or would join
    the one before.
    """
    code = f"U+{ord(character):04X}"
    visible = (
        character.isprintable() and not character.isspace() and not unicodedata.combining(character)
    )
    return f"{character} ({code})" if visible else code


def validation_size(validation: Split) -> list[Finding]:
    """Whether a loss on this split says anything: its standard error, were its tokens
    independent.
    """
    if not validation.tokens:
        meaning = (
            "nothing tells whether a model learns or memorises: prepare with a larger share for "
            "validation"
        )
        return [Finding("warning", "validation", "empty", meaning, {"tokens": 0})]
    error = TOKEN_DEVIATION / validation.tokens**0.5
    facts = {
        "tokens": validation.tokens,
        "standard_error": error,
        "documents": validation.documents,
    }
    level = "warning" if error > WARNED_ERROR else "note" if error > NOTED_ERROR else "ok"
    meaning = "of a loss in nats per token, at best: tokens of one document aren't independent"
    if level != "ok":
        meaning += "; smaller differences say nothing"
    rows = [
        Finding(
            level,
            "validation: uncertainty",
            f"± {error:.4f} on {validation.tokens:,} tokens",
            meaning,
            facts,
        )
    ]
    if validation.documents is not None and validation.documents < FEW_DOCUMENTS:
        meaning = "a few documents stand for no corpus: prepare with a larger share for validation"
        rows.append(
            Finding(
                "warning", "validation: documents", f"only {validation.documents:,}", meaning, facts
            )
        )
    return rows


def document_overlap(overlap: DocumentOverlap) -> Finding:
    """Validation documents that training has."""
    what = "validation in training"
    facts = vars(overlap)
    if not overlap.checked:
        return Finding(
            "note", what, "not checked", f"no validation document has {overlap.n} tokens", facts
        )
    some, most = overlap.any / overlap.checked, overlap.most / overlap.checked
    value = f"{_percent(most)} mostly, {_percent(some)} in part, of {overlap.checked:,} documents"
    value += "" if overlap.whole else f" (a sample of {overlap.tokens:,} tokens)"
    level = "warning" if most > WARNED_OVERLAP else "note" if overlap.any else "ok"
    meaning = f"documents of which half the {overlap.n}-grams, or at least one, occur in training"
    if level == "warning":
        meaning += "; the validation loss measures memory too: leave out near copies"
    return Finding(level, what, value, meaning, facts)


def item_overlap(overlap: ItemOverlap) -> Finding:
    """HellaSwag's items that the corpus has."""
    found, both = len(overlap.in_training), [*overlap.in_training, *overlap.in_validation]
    facts = {
        "n": overlap.n,
        "items": overlap.items,
        "training": [item.number for item in overlap.in_training],
        "validation": [item.number for item in overlap.in_validation],
        "unknown": overlap.unknown,
    }
    value = (
        f"{found:,} of {overlap.items:,} items in training, {len(overlap.in_validation):,} in "
        "validation"
    )
    if overlap.unknown:
        value += f"; {overlap.unknown:,} have characters that the tokenizer lacks"
    if not both:
        return Finding(
            "ok",
            "HellaSwag",
            value,
            f"no {overlap.n}-gram of a context with its right ending occurs",
            facts,
        )
    level = "warning" if found / overlap.items > WARNED_ITEMS else "note"
    meaning = f"a {overlap.n}-gram occurs of " + _examples(both[:3])
    return Finding(level, "HellaSwag", value, meaning, facts)


def _examples(items: list[Item]) -> str:
    return ", ".join(f"item {item.number} ({item.text[:40].strip()!r}...)" for item in items)


def no_items(has_tokenizer: bool) -> Finding:
    """HellaSwag wasn't looked for, and how it would be."""
    how = (
        "give its validation items: --hellaswag hellaswag_val.jsonl"
        if has_tokenizer
        else "needs --tokenizer NAME"
    )
    return Finding("note", "HellaSwag", "not checked", how)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if 0 < share < 0.1 else f"{100 * share:.0f}%"
