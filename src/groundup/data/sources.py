"""What a run's corpus is made of: a text, a folder of shards, or a mixture of several of both."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundup.data.corpora import NAMED, Corpus, find_path, load_corpus
from groundup.data.mixture import parse_mixture
from groundup.data.shard_folder import ShardFolder, is_shard_folder, open_folder
from groundup.errors import CorpusError, RecipeError
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.load import load_tokenizer


@dataclass(frozen=True)
class Source:
    """One corpus and its share of the tokens that a run learns from."""

    name: str
    weight: float
    content: Corpus | ShardFolder

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what it holds."""
        return self.content.fingerprint


@dataclass(frozen=True)
class Sources:
    """All that a run reads, under the name that its recipe has for it."""

    name: str
    parts: tuple[Source, ...]

    @classmethod
    def of(cls, corpus: Corpus) -> "Sources":
        """One text."""
        return cls(corpus.name, (Source(corpus.name, 1.0, corpus),))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the corpus; of a mixture, that of its corpora's in their order."""
        if len(self.parts) == 1:
            return self.parts[0].fingerprint
        return hashlib.sha256(
            "\n".join(part.fingerprint for part in self.parts).encode("ascii")
        ).hexdigest()

    @property
    def folders(self) -> list[tuple[str, ShardFolder]]:
        """The shards among them, with their names."""
        return [
            (part.name, part.content)
            for part in self.parts
            if isinstance(part.content, ShardFolder)
        ]


def open_sources(name: str, folder: Path) -> Sources:
    """Open what a recipe calls its corpus, paths relative to here or to `folder`; shards aren't
    read yet.

    Raises RecipeError for a mixture that can't be understood, CorpusError.
    """
    shares = parse_mixture(name, lambda path: path in NAMED or find_path(path, folder).exists())
    return Sources(
        name, tuple(Source(share.name, share.weight, _open(share.name, folder)) for share in shares)
    )


def _open(name: str, folder: Path) -> Corpus | ShardFolder:
    path = find_path(name, folder)
    return (
        open_folder(path)
        if name not in NAMED and is_shard_folder(path)
        else load_corpus(name, folder)
    )


def tokenizer_of_shards(sources: Sources, report: Callable[[str], None]) -> Tokenizer | None:
    """The tokenizer that all prepared shards of a run state; None where there are none. Raises
    CorpusError.
    """
    prepared = [(name, shards) for name, shards in sources.folders if shards.tokenizer]
    if not prepared:
        return None
    (first_name, first), *others = prepared
    for name, shards in others:
        if shards.index["tokenizer"]["sha256"] != first.index["tokenizer"]["sha256"]:
            raise CorpusError(
                f"corpus {name} was made by {_maker(shards)}, and {first_name} by "
                f"{_maker(first)}: a mixture has one tokenizer. Prepare one of them again"
            )
    assert first.tokenizer is not None
    tokenizer = load_tokenizer(first.tokenizer, report)
    if tokenizer_sha256(tokenizer) != first.index["tokenizer"]["sha256"]:
        raise CorpusError(
            f"{first.tokenizer} is not {_maker(first)}, which made the shards beside it: it was "
            "changed. Prepare the corpus again"
        )
    return tokenizer


def check_maker(sources: Sources, tokenizer: Tokenizer | None, what: str) -> None:
    """Raises RecipeError where `tokenizer`, in words `what`, can't have made the shards; None knows
    characters only.
    """
    for name, shards in sources.folders:
        if tokenizer is None and not shards.index:
            raise RecipeError(
                f"corpus {name} has .bin files that don't say which tokenizer made them, and "
                f"{what} names none. Name it, GPT-2's for instance: --data.tokenizer gpt2"
            )
        found = "" if tokenizer is None else tokenizer_sha256(tokenizer)
        if shards.index and shards.index["tokenizer"]["sha256"] != found:
            other = f"is another one ({found[:12]}...)" if found else "makes one of characters"
            raise RecipeError(
                f"corpus {name} was made by {_maker(shards)}, but {what} {other}: leave "
                "data.tokenizer out, or prepare the corpus with the other one"
            )


def _maker(shards: ShardFolder) -> str:
    return (
        f"the tokenizer {shards.index['tokenizer']['name']} "
        f"({shards.index['tokenizer']['sha256'][:12]}...)"
    )
