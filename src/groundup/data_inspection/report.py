"""Puts together all findings about a folder of shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.data.hellaswag_items import cached_items
from groundup.data.shard_folder import INDEX, ShardFolder, damaged, open_folder
from groundup.data.splits import SPLITS
from groundup.data_inspection import findings
from groundup.data_inspection.contamination import find_overlap
from groundup.data_inspection.findings import Finding, Split
from groundup.data_inspection.ngrams import NGRAM, chunks, separators
from groundup.data_inspection.shards import examine_shards, verify
from groundup.data_inspection.statistics import Statistics
from groundup.errors import CorpusError
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.load import load_tokenizer

SHORT_TOKEN = 2.0  # bytes: where tokens are characters, about, 13 of them are in every text
NGRAM_OF_CHARACTERS = 60  # about ten words, as 13 longer tokens are


@dataclass(frozen=True)
class Report:
    """What was found in a folder of shards."""

    path: Path
    findings: list[Finding]

    @property
    def warnings(self) -> int:
        """How many of the findings are warnings."""
        return sum(finding.level == "warning" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as values that JSON knows."""
        rows = [vars(row) for row in self.findings]
        return {"folder": str(self.path), "warnings": self.warnings, "findings": rows}


def report_on(
    path: Path, hellaswag: Path | None = None, tokenizer: str | None = None, thorough: bool = False
) -> Report:
    """Inspect a folder of shards.

    Args:
        path: The folder.
        hellaswag: A file of HellaSwag's validation items; left out, the one in groundup's cache if
            it is there.
        tokenizer: The tokenizer that made the shards, for shards without an index.
        thorough: Whether to read every shard and verify it.

    Raises:
        GroundupError: The folder can't be read, or its files are damaged or contradict each other.
    """
    if not path.exists():
        remedy = "Give a folder that groundup prepare made, or one with .bin files"
        raise CorpusError(f"{path} doesn't exist. {remedy}")
    folder = open_folder(path)
    if folder.index and tokenizer is not None:
        what = f"{path} has a tokenizer of its own, so --tokenizer {tokenizer} isn't needed"
        raise CorpusError(f"{what}: leave it out")
    name = folder.tokenizer or tokenizer
    loaded = load_tokenizer(name) if name is not None else None
    stated = folder.index["tokenizer"]["sha256"] if folder.index else None
    if stated and loaded is not None and tokenizer_sha256(loaded) != stated:
        what = f"{folder.tokenizer} isn't what made the shards beside it: it was changed"
        raise CorpusError(f"{what}. Prepare them again")
    return inspect(folder, loaded, hellaswag, thorough)


def inspect(
    folder: ShardFolder,
    tokenizer: Tokenizer | None,
    hellaswag: Path | None = None,
    thorough: bool = False,
) -> Report:
    """Inspect a folder of shards that `open_folder` opened, and return the findings.

    Args:
        folder: The open folder.
        tokenizer: The tokenizer that made the shards, if it is known.
        hellaswag: A file of HellaSwag's validation items; left out, the one in groundup's cache if
            it is there.
        thorough: Whether to read every shard and verify it. Shards without an index are verified
            anyway if their tokenizer is known.

    Raises:
        CorpusError: A shard or the index is damaged.
    """
    separator = tokenizer.end_of_text if tokenizer else None
    rows: list[Finding] = []
    # foreign shards say nothing of their largest token
    if thorough or (tokenizer and not folder.index):
        verify(folder, tokenizer.vocab_size if tokenizer else None, separator)
        rows.append(findings.verified(folder, tokenizer is not None))
    train, validation = (_split(folder, split, tokenizer, separator) for split in SPLITS)
    rows += findings.sizes(train, validation)
    if train.bytes is None:
        rows.append(findings.unknown())
    rows += findings.duplicates(train, validation, folder.index)
    rows += findings.texts(train, validation)
    rows += findings.validation_size(validation)
    items = hellaswag or (cached_items() if cached_items().is_file() else None)
    is_short = train.bytes is not None and train.tokens and train.bytes / train.tokens < SHORT_TOKEN
    n = NGRAM_OF_CHARACTERS if is_short else NGRAM
    overlap, of_items = find_overlap(folder, n, separator, tokenizer, items)
    has_tokenizer = tokenizer is not None
    rows.append(findings.document_overlap(overlap))
    rows.append(findings.item_overlap(of_items) if of_items else findings.no_items(has_tokenizer))
    return Report(folder.path, rows)


def _split(
    folder: ShardFolder, name: str, tokenizer: Tokenizer | None, separator: int | None
) -> Split:
    """A split's figures, from the index or from what its shards decode to."""
    shards = folder.shards[name]
    tokens = sum(len(shard.tokens) for shard in shards)
    if not folder.index:
        if tokenizer is None:
            return Split(name, tokens)
        statistics, duplicates = examine_shards(shards, tokenizer, separator)
        pieces = (piece for shard in shards for piece in chunks(shard))
        is_separated = any(len(separators(piece, separator)) for piece in pieces)
        # one text without a separator is no document
        documents = statistics.documents if is_separated else None
        return Split(name, tokens, documents, statistics.size, duplicates, statistics)
    try:
        split = folder.index["splits"][name]
        documents, size, copies = (int(split[key]) for key in ("documents", "bytes", "duplicates"))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder.path / INDEX, error) from error
    gathered = folder.index.get("statistics", {}).get(name)
    where = f"{folder.path / INDEX}, statistics.{name}"
    statistics = Statistics.from_json(gathered, where) if gathered is not None else None
    return Split(name, tokens, documents, size, copies, statistics)
