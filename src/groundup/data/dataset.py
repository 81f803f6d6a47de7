"""What a run reads: its corpora as tokens, by one tokenizer, split."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from groundup.data.corpora import Corpus, split
from groundup.data.mixture import Mixture, seed_of
from groundup.data.sampler import BatchSource, Sampler
from groundup.data.shard_folder import ShardFolder
from groundup.data.sources import Source, Sources
from groundup.data.tokens import Tokens, check_range
from groundup.data.windows import whole_windows
from groundup.errors import CorpusError, RecipeError
from groundup.recipes.schema import Recipe
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer

SAMPLE = 2**20  # tokens that stand for a corpus

Result = TypeVar("Result")


@dataclass(frozen=True)
class Part:
    """A corpus as tokens. weight: its share of what is learned. bytes_per_token: of its validation
    split.
    """

    name: str
    weight: float
    fingerprint: str
    training: Tokens
    validation: Tokens
    bytes_per_token: float


@dataclass(frozen=True)
class Text:
    """All that a run learns from: one corpus, or several in their shares.

    document_start: the token that documents begin with, None where the training tokens have no such
    documents.
    """

    name: str
    fingerprint: str
    tokenizer: Tokenizer
    parts: tuple[Part, ...]
    document_start: int | None = None

    @property
    def training_tokens(self) -> int:
        """In all corpora."""
        return sum(len(part.training) for part in self.parts)

    @property
    def validation_tokens(self) -> int:
        """In all corpora."""
        return sum(len(part.validation) for part in self.parts)

    @property
    def bytes_per_token(self) -> float:
        """Of the validation splits, which makes losses comparable over tokenizers."""
        return self.mean([part.bytes_per_token for part in self.parts])

    def mean(self, values: list[float]) -> float:
        """The mean of a value for each corpus, by their shares."""
        return sum(part.weight * value for part, value in zip(self.parts, values, strict=True))

    def batches_of(self, recipe: Recipe) -> BatchSource:
        """The training batches by the recipe's shape, seed and treatment of documents. Raises
        RecipeError.
        """
        place = recipe.model.block_size, recipe.train.batch_size
        seeds = [seed_of(recipe.train.seed, number) for number in range(len(self.parts))]
        if len(self.parts) == 1:
            seeds = [recipe.train.seed]
        starts = [self._starts(part, recipe) for part in self.parts]
        samplers = tuple(
            Sampler(part.training, *place, seed, begin)
            for part, seed, begin in zip(self.parts, seeds, starts, strict=True)
        )
        if len(samplers) == 1:
            return samplers[0]
        return Mixture(samplers, tuple(part.weight for part in self.parts), recipe.train.seed)

    def _starts(self, part: Part, recipe: Recipe) -> tuple[np.ndarray, ...] | None:
        """Where windows begin that keep documents whole; None where the recipe cuts them."""
        if recipe.data.documents == "cut":
            return None
        if END_OF_TEXT not in self.tokenizer.special_tokens:
            raise RecipeError(
                f"data.documents = whole needs a tokenizer with {END_OF_TEXT}, which says where "
                f"documents begin, but that of {self.name} has none. Choose cut, or another "
                "--data.tokenizer"
            )
        if self.document_start is None:
            raise RecipeError(
                f"data.documents = whole, but {self.name} has no {END_OF_TEXT} that says where "
                "documents begin: make shards of it with groundup prepare, or choose cut"
            )
        return whole_windows(part.training, self.document_start, recipe.model.block_size)


def read_text(sources: Sources, recipe: Recipe, tokenizer: Tokenizer | None) -> Text:
    """The corpora as tokens, split; None makes a tokenizer of all their characters. Raises
    CorpusError.
    """
    if tokenizer is None:
        texts = [part.content.text for part in sources.parts if isinstance(part.content, Corpus)]
        tokenizer = CharacterTokenizer(set[str]().union(*texts))
    parts = tuple(_read_part(source, recipe, tokenizer) for source in sources.parts)
    start = tokenizer.special_tokens.get(END_OF_TEXT)
    if start is not None and not any(
        start in stream[:SAMPLE] for part in parts for stream in part.training.streams
    ):
        start = None
    return Text(sources.name, sources.fingerprint, tokenizer, parts, start)


def _read_part(source: Source, recipe: Recipe, tokenizer: Tokenizer) -> Part:
    """One corpus as tokens. Raises CorpusError."""
    if isinstance(source.content, ShardFolder):
        splits = [
            source.content.tokens(name, tokenizer.vocab_size) for name in ("train", "validation")
        ]
    else:
        dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
        tokens = tokenizer.encode(source.content.text).astype(dtype)
        splits = [
            Tokens.of(part, source.name) for part in split(tokens, recipe.data.validation_fraction)
        ]
    training, validation = splits
    check_length(source.name, training, validation, recipe.model.block_size)
    size = bytes_per_token(source.content, validation, tokenizer)
    return Part(source.name, source.weight, source.fingerprint, training, validation, size)


def check_length(name: str, training: Tokens, validation: Tokens, block_size: int) -> None:
    """There must be a window to learn from and a token to predict. Raises CorpusError."""
    need, found = (
        block_size + 1,
        [max(map(len, tokens.streams), default=0) for tokens in (training, validation)],
    )
    if found[0] < need or found[1] < 2:
        several = (
            "in its longest shards " if len(training.streams) + len(validation.streams) > 2 else ""
        )
        raise CorpusError(
            f"corpus {name} is too short: {several}{found[0]:,} tokens for training and "
            f"{found[1]:,} for validation, but model.block_size = {block_size} needs {need:,} and "
            "2. Lower model.block_size, or give more text"
        )


def bytes_per_token(
    content: Corpus | ShardFolder, validation: Tokens, tokenizer: Tokenizer
) -> float:
    """Of the validation split: as the index says, or by decoding it, of foreign shards a first
    million of tokens.
    """
    if isinstance(content, ShardFolder) and content.index:
        counts = content.index["splits"]["validation"]
        return counts["bytes"] / counts["tokens"]
    tokens = validation.streams[0]
    if isinstance(content, ShardFolder):
        longest = max(
            range(len(validation.streams)), key=lambda number: len(validation.streams[number])
        )
        tokens = validation.streams[longest][:SAMPLE]
        check_range(tokens, validation.names[longest], tokenizer.vocab_size)
    special = np.array(list(tokenizer.special_tokens.values()), dtype=np.int64)
    return len(tokenizer.decode_bytes(tokens[~np.isin(tokens, special)])) / len(tokens)
