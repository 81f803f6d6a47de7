"""The plan of a preparation: what to read, by which tokenizer, and into how many shards."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from groundup.data.encodings import PASSAGE, Reading
from groundup.data.shard_folder import TOKENIZER_FOLDER
from groundup.data.splits import validates
from groundup.errors import CorpusError
from groundup.files import read_json, write_json
from groundup.prepare.encoding import Layout, digest_of, encode_anyway, repaired, separator_of
from groundup.prepare.inputs import Part, find_parts, read_documents
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer

logger = logging.getLogger(__name__)

WORK = ".work"
PLAN = "plan.json"
DOWNLOADS = "downloads"
SAMPLE_BYTES = 2**18  # of the source, to judge how many tokens it has
FEW = 100  # documents, of which all may be in one split
PASSAGES, FINEST = 64, 256  # of a source that is cut finer, and their bytes at least


def default_validation(source: str) -> float:
    """Give the default share of documents for validation, which is smaller for hub datasets."""
    return 0.001 if source in {"fineweb-edu", "openwebtext"} or source.startswith("hf://") else 0.1


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
        validation: The share of the documents that is kept for validation, in [0, 1). Left out, it
            is 0.1, and 0.001 of a corpus of the web.
        deduplicate: Whether to keep only one of several equal documents.
        limit: The number of tokens after which to stop; 0 takes all.
        validation_corpus: A path whose documents are for validation, all others for training.
        separator: A text that ends documents; empty leaves the documents as they are.
    """

    source: str
    tokenizer: str = "gpt2"
    sample: str = ""
    column: str = "text"
    replace_errors: bool = False
    seed: int = 1337
    validation: float | None = None
    deduplicate: bool = False
    limit: int = 0
    validation_corpus: str = ""
    separator: str = ""

    def __post_init__(self) -> None:
        if self.validation is None:
            object.__setattr__(self, "validation", default_validation(self.source))
        elif not 0 <= self.validation < 1:
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
        return Reading(self.column, self.replace_errors, separator=self.separator)


@dataclass(frozen=True)
class Plan:
    """How a preparation is to be carried out.

    Args:
        preparation: What was asked for.
        inputs: SHA-256 of the list of parts.
        layout: Which split a document belongs to, and in which order the documents come.
        passage: The number of bytes after which a text is cut into documents.
        tokens_per_byte: The mean number of tokens per byte in the first documents.
        vocab_size: The number of tokens in the tokenizer's vocabulary.
        made_by: SHA-256 of the tokenizer.
        parts: The parts of the source.
    """

    preparation: Preparation
    inputs: str
    layout: Layout
    passage: int
    tokens_per_byte: float
    vocab_size: int
    made_by: str
    parts: tuple[Part, ...]

    @property
    def reading(self) -> Reading:
        """How the documents are read."""
        return replace(self.preparation.reading, passage=self.passage)

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
        """Read what `write` wrote.

        Raises:
            CorpusError: The file is damaged, or another version of groundup wrote it.
        """
        try:
            values = read_json(folder / PLAN)
            preparation, layout = Preparation(**values["preparation"]), Layout(**values["layout"])
            parts = tuple(map(Part.from_json, values["parts"]))
            return cls(**values | {"preparation": preparation, "layout": layout, "parts": parts})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{folder / PLAN} is damaged, or of another version of groundup"
            remedy = f"Delete {folder.parent} and prepare again"
            raise CorpusError(f"{what}: {type(error).__name__} {error}. {remedy}") from error


def make_plan(out: str, preparation: dict[str, Any]) -> dict[str, Any]:
    """Make the plan of a preparation, and save it and the tokenizer in the output folder.

    Args:
        out: The output folder.
        preparation: The fields of a `Preparation`.

    Raises:
        GroundupError: The source or the tokenizer can't be used.
    """
    wanted, folder = Preparation(**preparation), Path(out)
    parts = tuple(parts_of(wanted, announce=True))
    tokenizer = _tokenizer_of(wanted, parts)
    separator_of(tokenizer, wanted.tokenizer)
    if tokenizer.end_of_text is None and not isinstance(tokenizer, CharacterTokenizer):
        said = "tokenizer %s has no <|endoftext|> and states no other: newlines separate documents"
        logger.warning(said, wanted.tokenizer)
    downloads = folder / WORK / DOWNLOADS
    size, tokens = _sample(wanted, parts, downloads, tokenizer)
    passage, share = _fair_split(wanted, parts, downloads, tokens / size)
    layout, inputs = Layout(wanted.seed, share), inputs_of(parts)
    stated = tokens / size, tokenizer.vocab_size, tokenizer_sha256(tokenizer)
    plan = Plan(wanted, inputs, layout, passage, *stated, parts)
    with explained(folder):
        (folder / TOKENIZER_FOLDER).mkdir(exist_ok=True)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        plan.write(folder / WORK)
    return {}


def parts_of(preparation: Preparation, *, announce: bool = False) -> list[Part]:
    """Find the parts of a preparation's source, and of its validation corpus.

    Args:
        preparation: What to prepare.
        announce: Whether to warn of files that are left out, and to say what names decide.

    Raises:
        CorpusError: There is nothing to read.
    """
    held_out, reading = preparation.validation_corpus, preparation.reading
    without = Path(held_out) if held_out else None
    parts = find_parts(preparation.source, reading, preparation.sample, without, announce=announce)
    if not held_out:
        return parts
    training = [replace(part, split="train") for part in parts if part.split != "validation"]
    more = find_parts(held_out, reading, announce=announce)
    return training + [replace(part, split="validation") for part in more]


def inputs_of(parts: Iterable[Part]) -> str:
    """Hash what there is to read: which files, of what size, and when they were changed."""
    stated = [{k: v for k, v in asdict(part).items() if k != "split" or v} for part in parts]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn an error in writing a file into an error whose message is one line.

    Raises:
        CorpusError: The system can't write into `out`.
    """
    try:
        yield
    except BrokenPipeError:  # a reader has gone: nothing was refused
        raise
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
    preparation: Preparation, parts: Iterable[Part], downloads: Path, tokenizer: Tokenizer
) -> tuple[int, int]:
    """Bytes and tokens of the first documents."""
    for part in parts:
        size = tokens = 0
        for document in read_documents(part, preparation.reading, downloads):
            text = repaired(document.text)[:SAMPLE_BYTES]
            size, tokens = size + len(text.encode()), tokens + len(encode_anyway(tokenizer, text))
            if size >= SAMPLE_BYTES:
                break
        if tokens:
            return size, tokens
    raise CorpusError("the source is empty: it has no documents with any text")


def _fair_split(
    preparation: Preparation, parts: Sequence[Part], downloads: Path, tokens_per_byte: float
) -> tuple[int, float]:
    """Choose passages and a share of documents such that both splits get some of a small source.

    A document's digest decides its split, so of a few documents all may be in the same one. Then
    texts are cut into finer passages, and if that doesn't help, the share is moved to where it
    divides the documents that there are.

    Returns:
        The number of bytes after which a text is cut, and the share.
    """
    wanted, passage, digests = preparation.validation or 0.0, PASSAGE, set[int]()
    if not wanted or any(part.split for part in parts):
        return PASSAGE, wanted
    for finer in (True, False):
        digests, splits, size = set[int](), set[bool](), 0
        for data in _contents(parts, replace(preparation.reading, passage=passage), downloads):
            digest = digest_of(data)
            digests.add(int.from_bytes(digest[:8], "little"))
            splits.add(validates(digest, wanted))
            if len(splits) == 2 or len(digests) >= FEW:
                return passage, wanted
            size += len(data)
            if 0 < preparation.limit <= size * tokens_per_byte:
                break
        if finer:
            passage = min(PASSAGE, max(FINEST, size // PASSAGES))
    if len(digests) < 2:
        return PASSAGE, wanted
    place = min(max(1, round(wanted * len(digests))), len(digests) - 1)
    below, above = sorted(digests)[place - 1 : place + 1]
    return passage, (below + above) / 2 / 2.0**64


def _contents(parts: Sequence[Part], reading: Reading, downloads: Path) -> Iterator[bytes]:
    """The texts of all documents, as their digests are made of them."""
    for part in parts:
        for document in read_documents(part, reading, downloads):
            yield repaired(document.text).encode("utf-8")
