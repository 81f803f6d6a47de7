"""What a training run learns from: corpora as tokens, cut into training and validation."""

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from groundup.data.corpora import Corpus, fingerprint_of
from groundup.data.mixture import Mixture, seed_of
from groundup.data.sampler import Sampler
from groundup.data.shard_folder import ShardFolder
from groundup.data.splits import SPLITS, Tokens, check_length, check_range, cut_text, token_dtype
from groundup.data.windows import whole_windows
from groundup.errors import CorpusError, RecipeError
from groundup.recipes.schema import Recipe
from groundup.tokenizers.agreement import disagreement, special_difference
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer, tokenizer_sha256
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer

logger = logging.getLogger(__name__)

SAMPLE = 2**20  # tokens that stand for a corpus


@dataclass(frozen=True)
class TokenizedCorpus:
    """One corpus as tokens.

    Args:
        name: The corpus's name, as the user gave it.
        weight: The share of the training tokens that come from this corpus.
        fingerprint: SHA-256 of the corpus.
        training: The tokens of the training split.
        validation: The tokens of the validation split.
        bytes_per_token: The mean number of UTF-8 bytes per token in the validation split.
    """

    name: str
    weight: float
    fingerprint: str
    training: Tokens
    validation: Tokens
    bytes_per_token: float


@dataclass(frozen=True)
class Dataset:
    """All that a training run learns from: one corpus, or several, each with its share.

    Args:
        name: The name of the corpus, or of the mixture as the recipe has it.
        fingerprint: SHA-256 of the corpora.
        tokenizer: The tokenizer that made all tokens.
        parts: The corpora as tokens.
        document_start: The token that documents begin with; None where the training tokens don't
            have it.
    """

    name: str
    fingerprint: str
    tokenizer: Tokenizer
    parts: tuple[TokenizedCorpus, ...]
    document_start: int | None = None

    @property
    def training_tokens(self) -> int:
        """The number of training tokens in all corpora."""
        return sum(len(part.training) for part in self.parts)

    @property
    def validation_tokens(self) -> int:
        """The number of validation tokens in all corpora."""
        return sum(len(part.validation) for part in self.parts)

    @cached_property
    def validation_fingerprint(self) -> str:
        """SHA-256 of the validation tokens of all corpora."""
        digest = hashlib.sha256()
        for stream in (stream for part in self.parts for stream in part.validation.streams):
            digest.update(f"{len(stream)} {stream.dtype} ".encode())
            digest.update(np.ascontiguousarray(stream).data)
        return digest.hexdigest()

    @property
    def bytes_per_token(self) -> float:
        """The mean number of UTF-8 bytes per token in the validation splits, weighted by shares."""
        return self.mean([part.bytes_per_token for part in self.parts])

    def mean(self, values: list[float]) -> float:
        """Average one value for each corpus, weighted by the shares of the corpora."""
        return sum(part.weight * value for part, value in zip(self.parts, values, strict=True))

    def sampler(self, recipe: Recipe) -> Sampler | Mixture:
        """Make the sampler of training batches, by the recipe's sizes, seed and data.documents.

        Raises:
            RecipeError: The recipe keeps documents whole, but no token says where they begin.
        """
        block_size, batch_size = recipe.model.block_size, recipe.train.batch_size
        seed = recipe.train.seed
        starts = [self._starts(part, recipe) for part in self.parts]
        if len(self.parts) == 1:
            return Sampler(self.parts[0].training, block_size, batch_size, seed, starts[0])
        samplers = tuple(
            Sampler(part.training, block_size, batch_size, seed_of(seed, place), starts[place])
            for place, part in enumerate(self.parts)
        )
        return Mixture(samplers, tuple(part.weight for part in self.parts), seed)

    def _starts(self, part: TokenizedCorpus, recipe: Recipe) -> tuple[np.ndarray, ...] | None:
        """Where windows begin that keep documents whole; None where the recipe cuts them."""
        if recipe.data.documents == "cut":
            return None
        if self.tokenizer.end_of_text is None:
            need = f"a tokenizer with {END_OF_TEXT}, which says where documents begin"
            lacks = f"that of {self.name} has none. Choose cut, or another --data.tokenizer"
            raise RecipeError(f"data.documents = whole needs {need}, but {lacks}")
        if self.document_start is None:
            lacks = f"{self.name} has no {END_OF_TEXT} that says where documents begin"
            remedy = "make shards of it with groundup prepare, or choose cut"
            raise RecipeError(f"data.documents = whole, but {lacks}: {remedy}")
        return whole_windows(part.training, self.document_start, recipe.model.block_size)


def make_dataset(corpora: list[Corpus], recipe: Recipe, tokenizer: Tokenizer | None) -> Dataset:
    """Encode the corpora and cut them into training and validation.

    Args:
        corpora: The open corpora of `recipe.data.corpus`.
        recipe: The recipe, whose validation share and block size are used.
        tokenizer: The tokenizer; None makes one of all characters in the texts.

    Raises:
        CorpusError: A corpus is too short, or its shards are damaged.
        TokenizerError: A text has what the tokenizer can't encode.
    """
    if tokenizer is None:
        texts = (text for corpus in corpora for text in (corpus.text, corpus.validation))
        tokenizer = CharacterTokenizer(set[str]().union(*texts))
    parts = tuple(_tokenize(corpus, recipe, tokenizer) for corpus in corpora)
    start = tokenizer.end_of_text
    streams = [stream for part in parts for stream in part.training.streams]
    start = start if start is None or any(start in one[:SAMPLE] for one in streams) else None
    name = corpora[0].name if len(corpora) == 1 else recipe.data.corpus
    return Dataset(name, fingerprint_of(corpora), tokenizer, parts, start)


def _tokenize(corpus: Corpus, recipe: Recipe, tokenizer: Tokenizer) -> TokenizedCorpus:
    vocab_size, shards = tokenizer.vocab_size, corpus.shards

    def encoded(text: str) -> np.ndarray:
        return tokenizer.encode(text).astype(token_dtype(vocab_size))

    if shards is not None:
        training, validation = (shards.tokens(name, vocab_size) for name in SPLITS)
    else:
        share = 0.0 if corpus.validation else recipe.data.validation_fraction
        splits = cut_text(encoded(corpus.text), share)
        training, validation = (Tokens.of(part, corpus.name) for part in splits)
    if corpus.validation:
        shards, validation = None, Tokens.of(encoded(corpus.validation), corpus.name)
    check_length(corpus.name, training, validation, recipe.model.block_size)
    size = bytes_per_token(shards, validation, tokenizer)
    stated = corpus.name, corpus.weight, corpus.fingerprint
    return TokenizedCorpus(*stated, training, validation, size)


def bytes_per_token(shards: ShardFolder | None, validation: Tokens, tokenizer: Tokenizer) -> float:
    """Compute the mean number of UTF-8 bytes per token in the validation split.

    The index of groundup's own shards states the counts. Other tokens are decoded: all tokens of a
    text, or the first 2^20 tokens of the longest shard of another program.

    Raises:
        CorpusError: A shard of another program has a token that the tokenizer lacks.
    """
    if shards is not None and shards.index:
        counts = shards.index["splits"]["validation"]
        return counts["bytes"] / counts["tokens"]
    tokens = validation.streams[0]
    if shards is not None:
        place = max(range(len(validation.streams)), key=lambda at: len(validation.streams[at]))
        tokens = validation.streams[place][:SAMPLE]
        check_range(tokens, validation.names[place], tokenizer.vocab_size)
    special = np.array(list(tokenizer.special_tokens.values()), dtype=np.int64)
    return len(tokenizer.decode_bytes(tokens[~np.isin(tokens, special)])) / len(tokens)


def tokenizer_of_shards(corpora: list[Corpus]) -> Tokenizer | None:
    """Load the tokenizer of the shards of `groundup prepare`, or return None without such shards.

    Raises:
        CorpusError: Two corpora were made by tokenizers whose ids differ, or one was changed.
    """
    opened = [(corpus.name, corpus.shards) for corpus in corpora if corpus.shards]
    prepared = [(name, shards) for name, shards in opened if shards.index]
    if not prepared:
        return None
    (first_name, first), *others = prepared
    tokenizer = _tokenizer_beside(first)
    for name, shards in others:
        if differ := _disagreement(shards, tokenizer):
            what = f"{_tokenizer_named(shards)}, and {first_name} by {_tokenizer_named(first)}"
            remedy = "a mixture has one tokenizer. Prepare one of them again"
            raise CorpusError(f"corpus {name} was made by {what}: {differ}, and {remedy}")
    return tokenizer


def check_tokenizer(corpora: list[Corpus], tokenizer: Tokenizer | None, what: str) -> None:
    """Check that the shards among the corpora can have been made by a tokenizer.

    Special tokens that the tokenizer of the shards has not, or has besides, are logged.

    Args:
        corpora: The corpora; texts among them aren't checked.
        tokenizer: The tokenizer; None stands for one that is made of the characters of texts, which
            can't have made shards.
        what: The tokenizer in words, for the message.

    Raises:
        RecipeError: A document gets other ids by the tokenizer than by that of the shards, or these
            state none and `tokenizer` is None.
        CorpusError: The tokenizer of the shards was changed.
    """
    for name, shards in ((corpus.name, corpus.shards) for corpus in corpora):
        if shards is None or (tokenizer is not None and not shards.index):
            continue
        if not shards.index:
            says = f".bin files that don't say which tokenizer made them, and {what} names none"
            remedy = "Name it, GPT-2's for instance: --data.tokenizer gpt2"
            raise RecipeError(f"corpus {name} has {says}. {remedy}")
        made = f"corpus {name} was made by {_tokenizer_named(shards)}"
        remedy = "prepare the corpus with that one"
        if what.startswith("data.tokenizer"):
            remedy = f"leave data.tokenizer out (--data.tokenizer auto), or {remedy}"
        if tokenizer is None:
            raise RecipeError(f"{made}, but {what} makes one of characters: {remedy}")
        digest = tokenizer_sha256(tokenizer)
        if shards.index["tokenizer"]["sha256"] == digest:
            continue
        beside = _tokenizer_beside(shards)
        if differ := disagreement(beside, tokenizer):
            other = f"is another one ({digest[:12]}...)"
            raise RecipeError(f"{made}, but {what} {other}: {remedy}. Of the two, {differ}")
        others = special_difference(beside, tokenizer)
        logger.info(f"{made}, {what} gives the same ids. Other special tokens: {others}")


def _disagreement(shards: ShardFolder, tokenizer: Tokenizer) -> str:
    """Why documents would get other ids than in the shards; empty where they get the same."""
    if shards.index["tokenizer"]["sha256"] == tokenizer_sha256(tokenizer):
        return ""
    return disagreement(_tokenizer_beside(shards), tokenizer)


def _tokenizer_beside(shards: ShardFolder) -> Tokenizer:
    """The tokenizer in the folder of shards, which made them. Raises CorpusError."""
    assert shards.tokenizer is not None
    tokenizer = load_tokenizer(shards.tokenizer)
    if tokenizer_sha256(tokenizer) != shards.index["tokenizer"]["sha256"]:
        what = f"{_tokenizer_named(shards)}, which made the shards beside it"
        remedy = "it was changed. Prepare the corpus again"
        raise CorpusError(f"{shards.tokenizer} is not {what}: {remedy}")
    return tokenizer


def _tokenizer_named(shards: ShardFolder) -> str:
    stated = shards.index["tokenizer"]
    return f"the tokenizer {stated['name']} ({stated['sha256'][:12]}...)"
