"""Corpora by name: a text, a folder of shards, or a mixture of several of both."""

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shlex import quote

from groundup.data.documents import documents_in
from groundup.data.encodings import Reading
from groundup.data.formats import COLUMNAR, NAMED, Source, recognise
from groundup.data.permutation import PERIOD
from groundup.data.python_docs import python_docs
from groundup.data.shard_folder import ShardFolder, open_folder
from groundup.errors import CorpusError, RecipeError
from groundup.files import HERE
from groundup.hub.cache import fetch
from groundup.hub.download import RemoteFile
from groundup.tokenizers.base import END_OF_TEXT

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
INSTEAD = "train on the corpus that needs no network: --corpus python-docs"
TINY_SHAKESPEARE = RemoteFile(URL, "tinyshakespeare/input.txt", 1_115_394, SHA256, INSTEAD)
WHOLE = Reading(passage=0)  # texts aren't cut

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """A text or a folder of shards, and the name that the user gave it.

    Args:
        name: A name or a path, as the user gave it.
        text: The whole text; empty where the corpus has shards.
        shards: The open folder of shards; None where the corpus is a text.
        weight: The share of the training tokens that come from this corpus, in (0, 1].
        validation: A text for validation, where one is given or names of files say it; if empty,
            a share of the text is for validation, or the shards' own split.
    """

    name: str
    text: str = ""
    shards: ShardFolder | None = None
    weight: float = 1.0
    validation: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: of the shards, or of the text's UTF-8 bytes."""
        digest = hashlib.sha256(self.text.encode("utf-8")).hexdigest()
        digest = self.shards.fingerprint if self.shards else digest
        if not self.validation:
            return digest
        return hashlib.sha256(f"{digest}\n{self.validation}".encode()).hexdigest()


def fingerprint_of(corpora: list[Corpus]) -> str:
    """Give the SHA-256 of a single corpus, or a SHA-256 of those of several corpora."""
    if len(corpora) == 1:
        return corpora[0].fingerprint
    together = "\n".join(corpus.fingerprint for corpus in corpora)
    return hashlib.sha256(together.encode("ascii")).hexdigest()


def open_corpora(
    name: str, folders: Sequence[Path] = HERE, reading: Reading = WHOLE, validation: str = ""
) -> list[Corpus]:
    """Open the corpus that a recipe names, or the corpora of a mixture with their weights.

    Texts are read whole; of shards only the headers and the index are read.

    Args:
        name: One of `NAMED`, a path, or a mixture of them: `a:0.7,b:0.3`.
        folders: The folders that relative paths may be relative to, the first ones before others.
        reading: Which column of rows holds the text.
        validation: The name of a text for validation; empty holds out a part of each corpus.

    Raises:
        RecipeError: The mixture can't be understood, or has a corpus for validation.
        CorpusError: A corpus is missing, empty or damaged.
    """
    shares = parse_mixture(name, lambda path: recognise(path, folders).exists)
    sources = [(recognise(share, folders), weight) for share, weight in shares]
    held_out = recognise(validation, folders) if validation else None
    if tuple(folders) != HERE:
        _check_found([source for source, _ in sources] + ([held_out] if held_out else []), folders)
    without = held_out.path if held_out else None
    corpora = [
        Corpus(source.name, shards=open_folder(source.path), weight=weight)
        if source.has_shards
        else replace(_read(source, reading, without), weight=weight)
        for source, weight in sources
    ]
    if held_out is None:
        return corpora
    what = f"data.validation_corpus = {validation}"
    if len(corpora) > 1:
        raise RecipeError(f"{what}, but {name} is a mixture: each corpus holds out its own part")
    if held_out.has_shards:
        raise RecipeError(f"{what} has shards: give a text, or rows")
    read = _read(held_out, reading)
    return [replace(corpora[0], validation="\n".join(filter(None, (read.text, read.validation))))]


def _check_found(sources: Sequence[Source], folders: Sequence[Path]) -> None:
    """Check that the texts of a recorded recipe are in one of the folders where they may be."""
    places = dict.fromkeys(str(folder.absolute()) for folder in folders)
    for source in sources:
        if source.kind != "named" and not source.exists:
            raise CorpusError(f"the run's text {source.name} isn't in {' or in '.join(places)}")


def load_corpus(name: str, folder: Path = Path(), column: str = WHOLE.column) -> Corpus:
    """Read a text: a named one, or the texts of a file or folder joined by newlines.

    Args:
        name: One of `NAMED`, or a path.
        folder: The folder to look in for paths that the current folder doesn't have.
        column: The column of rows (JSON, CSV, parquet, Arrow) that holds the text.

    Raises:
        CorpusError: There is no such text, it is empty, or it isn't UTF-8.
    """
    return _read(recognise(name, (*HERE, folder)), replace(WHOLE, column=column))


def _read(source: Source, reading: Reading, without: Path | None = None) -> Corpus:
    """Read the texts of a source, and say what is left out of it, and what has been joined."""
    name = source.name
    if source.kind == "named":
        is_ours = name == "python-docs"
        return Corpus(name, python_docs() if is_ours else _fetched(TINY_SHAKESPEARE))
    if not source.exists:
        is_like_shards = Path(name).parent.name == "data" and not Path(name).suffix
        known = f"{', '.join(NAMED)}."
        if is_like_shards:
            known += f" A folder of shards is made by: groundup prepare SOURCE --out {quote(name)}"
        what = f"corpus {name} is neither a file or folder nor a known name"
        raise CorpusError(f"{what}. Known: {known}")
    listing = source.listing(without)
    listing.announce(name)
    texts, rows = {"": list[str](), "train": list[str](), "validation": list[str]()}, 0
    for file in listing.files:
        found = [one.text for one in documents_in(str(file.path), file.kind, reading)]
        texts[file.split] += found
        rows += len(found) if file.kind in COLUMNAR else 0
    text, validation = "\n".join(texts[""] + texts["train"]), "\n".join(texts["validation"])
    if not text:
        raise CorpusError(f"corpus {name} is empty: 0 characters")
    if rows:
        apart = "groundup prepare keeps them apart"
        said = "%s: %s texts from the column %r, joined by newlines (%s)"
        logger.info(said, name, f"{rows:,}", reading.column, apart)
    if markers := text.count(END_OF_TEXT):
        remedy = f"groundup prepare {quote(name)} --separator '{END_OF_TEXT}' --out FOLDER"
        said = "%s: %s times %s is learned as text. To end documents there: %s"
        logger.warning(said, name, f"{markers:,}", END_OF_TEXT, remedy)
    return Corpus(name, text, validation=validation)


def _fetched(file: RemoteFile) -> str:
    """The text of a file that may have to be downloaded."""
    return fetch(file).read_bytes().decode("utf-8")


def parse_mixture(given: str, exists: Callable[[str], bool]) -> list[tuple[str, float]]:
    """Split `a:0.7,b:0.3` into names and weights; the weights are scaled so that they sum to 1.

    Args:
        given: The value of `data.corpus` in a recipe.
        exists: Tells whether there is a corpus, file or folder of a name. If there is one whose
            name is all of `given`, it is the only corpus.

    Raises:
        RecipeError: A name has no weight, or occurs twice, or a weight can't be used.
    """
    pieces = [piece.strip().rpartition(":") for piece in given.split(",")]
    weights = [_number(weight) if name else None for name, _, weight in pieces]
    if exists(given) or all(weight is None for weight in weights):
        return [(given, 1.0)]
    what = f"data.corpus = {given}"
    for (name, _, said), weight in zip(pieces, weights, strict=True):
        if weight is None:
            lacks = f"{name + ':' if name else ''}{said or 'an empty name'} without a weight"
            form = "NAME:WEIGHT,NAME:WEIGHT, as in a:0.7,b:0.3"
            raise RecipeError(f"{what} has {lacks}: a mixture is {form}")
        if not (math.isfinite(weight) and weight > 0):
            remedy = "choose a finite one above 0"
            raise RecipeError(f"{what} gives {name} the weight {said}: {remedy}")
    numbers, names = [weight or 0.0 for weight in weights], [name for name, _, _ in pieces]
    total = math.fsum(numbers)
    shares = [(name, weight / total) for name, weight in zip(names, numbers, strict=True)]
    for name, share in shares:
        if names.count(name) > 1:
            raise RecipeError(f"{what} names {name} twice: give it one weight")
        if share < 1 / PERIOD:
            need = f"at least 1 in {PERIOD:,}: raise its weight, or leave it out"
            too_little = f"{name} {share:.2g} of the tokens"
            raise RecipeError(f"{what} gives {too_little}, but a share has to be {need}")
    return shares


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
