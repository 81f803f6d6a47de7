"""Corpora by name: a text, a folder of shards, or a mixture of several of both."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from groundup.data.formats import NAMED, TEXT_SUFFIXES, Source, not_utf8, recognise
from groundup.data.permutation import PERIOD
from groundup.data.python_docs import python_docs
from groundup.data.shard_folder import ShardFolder, open_folder
from groundup.errors import CorpusError, RecipeError
from groundup.hub.cache import fetch
from groundup.hub.download import RemoteFile

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
INSTEAD = "train on the corpus that needs no network: --corpus python-docs"
TINY_SHAKESPEARE = RemoteFile(URL, "tinyshakespeare/input.txt", 1_115_394, SHA256, INSTEAD)


@dataclass(frozen=True)
class Corpus:
    """A text or a folder of shards, and the name that the user gave it.

    Args:
        name: A name or a path, as the user gave it.
        text: The whole text; empty where the corpus has shards.
        shards: The open folder of shards; None where the corpus is a text.
        weight: The share of the training tokens that come from this corpus, in (0, 1].
    """

    name: str
    text: str = ""
    shards: ShardFolder | None = None
    weight: float = 1.0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: of the shards, or of the text's UTF-8 bytes."""
        if self.shards is not None:
            return self.shards.fingerprint
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


def fingerprint_of(corpora: list[Corpus]) -> str:
    """Give the SHA-256 of a single corpus, or a SHA-256 of those of several corpora."""
    if len(corpora) == 1:
        return corpora[0].fingerprint
    together = "\n".join(corpus.fingerprint for corpus in corpora)
    return hashlib.sha256(together.encode("ascii")).hexdigest()


def open_corpora(name: str, folder: Path = Path()) -> list[Corpus]:
    """Open the corpus that a recipe names, or the corpora of a mixture with their weights.

    Texts are read whole; of shards only the headers and the index are read.

    Args:
        name: One of `NAMED`, a path, or a mixture of them: `a:0.7,b:0.3`.
        folder: The folder to look in for paths that the current folder doesn't have.

    Raises:
        RecipeError: The mixture can't be understood.
        CorpusError: A corpus is missing, empty or damaged.
    """
    shares = parse_mixture(name, lambda path: recognise(path, folder).exists)
    sources = [(recognise(share, folder), weight) for share, weight in shares]
    return [
        Corpus(source.name, shards=open_folder(source.path), weight=weight)
        if source.has_shards
        else replace(_read(source), weight=weight)
        for source, weight in sources
    ]


def load_corpus(name: str, folder: Path = Path()) -> Corpus:
    """Read a text: a named one, a file, or the text files of a folder joined by newlines.

    Args:
        name: One of `NAMED`, or a path.
        folder: The folder to look in for paths that the current folder doesn't have.

    Raises:
        CorpusError: There is no such text, it is empty, or it isn't UTF-8.
    """
    return _read(recognise(name, folder))


def _read(source: Source) -> Corpus:
    """Read a source as a text, whatever its name says of its format."""
    name, path = source.name, source.path
    if source.kind == "named":
        is_ours = name == "python-docs"
        return Corpus(name, python_docs() if is_ours else _text_of(fetch(TINY_SHAKESPEARE)))
    if not path.exists():
        is_like_shards = Path(name).parent.name == "data" and not Path(name).suffix
        known = f"{', '.join(NAMED)}."
        if is_like_shards:
            known += f" A folder of shards is made by: groundup prepare SOURCE --out {name}"
        what = f"corpus {name} is neither a file or folder nor a known name"
        raise CorpusError(f"{what}. Known: {known}")
    files = [path]
    if path.is_dir():
        texts = [file for file in source.files() if file.kind == "text" and not file.is_compressed]
        files = [file.path for file in texts]
        if not files:
            looked = " ".join(TEXT_SUFFIXES)
            raise CorpusError(f"folder {path} holds no text file. Looked for: {looked}")
    text = "\n".join(map(_text_of, files))
    if not text:
        raise CorpusError(f"corpus {name} is empty: 0 characters")
    return Corpus(name, text)


def _text_of(path: Path) -> str:
    """Read a file's text with its line endings as they are."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        remedy = f"Convert it, for example with: iconv -f LATIN1 -t UTF-8 {path.name}"
        raise not_utf8(str(path), error, remedy) from error
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}") from error


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
