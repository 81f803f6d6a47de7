"""The plan of a preparation: what to read, by which tokenizer, and into how many shards."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.data.encodings import Reading
from groundup.data.shard_folder import TOKENIZER_FOLDER
from groundup.errors import CorpusError
from groundup.files import write_json
from groundup.prepare.encoding import SHARD_TOKENS, Layout, encode_anyway, repaired
from groundup.prepare.inputs import Part, find_parts, read_documents
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer

WORK = ".work"
PLAN = "plan.json"
DOWNLOADS = "downloads"
SAMPLE_BYTES = 2**18  # of the source, to judge how many tokens it has


@dataclass(frozen=True)
class Preparation:
    """What to prepare, and how.

    Args:
        source: A path, or the name of a corpus or of a dataset on the hub.
        tokenizer: A name or a path; `characters` makes one of the characters of the source.
        sample: The sample of FineWeb-Edu; empty takes the smallest.
        column: The column of rows that holds the text.
        replace_errors: Whether bytes that aren't UTF-8 become U+FFFD; otherwise they are an error.
        seed: Decides the order of the documents.
        validation: The share of the documents that is kept for validation, in [0, 1).
        deduplicate: Whether to keep only one of several equal documents.
        limit: The number of tokens after which to stop; 0 takes all.
    """

    source: str
    tokenizer: str = "gpt2"
    sample: str = ""
    column: str = "text"
    replace_errors: bool = False
    seed: int = 1337
    validation: float = 0.1
    deduplicate: bool = False
    limit: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            need = "a share of the documents, in [0, 1)"
            raise CorpusError(f"--validation {self.validation} must be {need}")
        if not 0 <= self.seed < 2**63:
            raise CorpusError(f"--seed {self.seed} must be a whole number from 0, below 2^63")
        if self.limit < 0:
            need = "a number of tokens, from 1; leave it out to take all"
            raise CorpusError(f"--tokens {self.limit} must be {need}")

    @property
    def reading(self) -> Reading:
        """How the documents are read."""
        return Reading(self.column, self.replace_errors)


@dataclass(frozen=True)
class Plan:
    """How a preparation is to be carried out.

    Args:
        preparation: What was asked for.
        inputs: SHA-256 of the list of parts.
        layout: How documents are spread over the shards.
        tokens_per_byte: The mean number of tokens per byte in the first documents.
        vocab_size: The number of tokens in the tokenizer's vocabulary.
        made_by: SHA-256 of the tokenizer.
        parts: The parts of the source.
    """

    preparation: Preparation
    inputs: str
    layout: Layout
    tokens_per_byte: float
    vocab_size: int
    made_by: str
    parts: tuple[Part, ...]

    @property
    def expected_tokens(self) -> float:
        """The expected number of tokens of both splits together."""
        expected = sum(part.size for part in self.parts) * self.tokens_per_byte
        return min(expected, self.preparation.limit or expected)

    def write(self, folder: Path) -> None:
        """Write `plan.json`."""
        write_json(folder / PLAN, asdict(self), indent=1, apart=folder)

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Read what `write` wrote."""
        values = json.loads((folder / PLAN).read_text("utf-8"))
        preparation, layout = Preparation(**values["preparation"]), Layout(**values["layout"])
        parts = tuple(map(Part.from_json, values["parts"]))
        return cls(**values | {"preparation": preparation, "layout": layout, "parts": parts})


def make_plan(out: str, preparation: dict[str, Any]) -> dict[str, Any]:
    """Make the plan of a preparation, and save it and the tokenizer in the output folder.

    Args:
        out: The output folder.
        preparation: The fields of a `Preparation`.

    Raises:
        GroundupError: The source or the tokenizer can't be used.
    """
    wanted, folder = Preparation(**preparation), Path(out)
    parts = tuple(find_parts(wanted.source, wanted.column, wanted.sample, announce=True))
    tokenizer = _tokenizer_of(wanted, parts)
    size, tokens = _sample(wanted, parts, folder, tokenizer)
    expected = sum(part.size for part in parts) * tokens / size
    expected = min(expected, wanted.limit or expected)
    held_out = round(expected * wanted.validation)
    training_shards = max(1, round((expected - held_out) / SHARD_TOKENS))
    validation_shards = max(1, round(held_out / SHARD_TOKENS)) if wanted.validation else 0
    layout = Layout(wanted.seed, wanted.validation, training_shards, validation_shards)
    inputs, made_by = inputs_of(parts), tokenizer_sha256(tokenizer)
    plan = Plan(wanted, inputs, layout, tokens / size, tokenizer.vocab_size, made_by, parts)
    with explained(folder):
        (folder / TOKENIZER_FOLDER).mkdir(exist_ok=True)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        plan.write(folder / WORK)
    return {}


def inputs_of(parts: Iterable[Part]) -> str:
    """Hash what there is to read: which files, of what size, and when they were changed."""
    return hashlib.sha256(json.dumps([asdict(part) for part in parts]).encode()).hexdigest()


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn an error in writing a file into an error whose message is one line.

    Raises:
        CorpusError: The system can't write into `out`.
    """
    try:
        yield
    except OSError as error:
        remedy = "What is done is kept: make room, and run the same command again to go on"
        raise CorpusError(f"can't write into {out}: {error.strerror or error}. {remedy}") from error


def _tokenizer_of(preparation: Preparation, parts: Iterable[Part]) -> Tokenizer:
    """The tokenizer that is named; `characters` is made of those that the source has."""
    if preparation.tokenizer != "characters":
        return load_tokenizer(preparation.tokenizer)
    if any(part.remote for part in parts):
        what = f"reads the whole source first, so not {preparation.source}"
        raise CorpusError(f"--tokenizer characters {what}: take gpt2")
    characters: set[str] = {"\n"}  # it comes between documents
    for part in parts:
        for document in read_documents(part, preparation.reading):
            characters |= set(repaired(document.text))
    return CharacterTokenizer(characters)


def _sample(
    preparation: Preparation, parts: Iterable[Part], folder: Path, tokenizer: Tokenizer
) -> tuple[int, int]:
    """Bytes and tokens of the first documents."""
    for part in parts:
        size = tokens = 0
        for document in read_documents(part, preparation.reading, folder / WORK / DOWNLOADS):
            text = repaired(document.text)[:SAMPLE_BYTES]
            size, tokens = size + len(text.encode()), tokens + len(encode_anyway(tokenizer, text))
            if size >= SAMPLE_BYTES:
                break
        if tokens:
            return size, tokens
    raise CorpusError("the source is empty: it has no documents with any text")
