"""What a run reads: its corpus as tokens, by its tokenizer, split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.data.corpora import Corpus, load_corpus, split
from groundup.errors import CorpusError, RecipeError
from groundup.parallel.world import World
from groundup.recipe import Recipe
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.loading import load_tokenizer
from groundup.training.journal import Journal
from groundup.training.stopping import StopRequest


@dataclass(frozen=True)
class Surroundings:
    """What a run is given besides its recipe: the processes it shares, where it tells, who may stop it."""

    world: World
    journal: Journal
    stop: StopRequest


@dataclass(frozen=True)
class Text:
    """A corpus as tokens. bytes_per_token: of the validation split, which makes losses comparable over tokenizers."""

    corpus: Corpus
    tokenizer: Tokenizer
    training: np.ndarray
    validation: np.ndarray
    bytes_per_token: float


def read_corpus(name: str, folder: Path, around: Surroundings) -> Corpus:
    """The text, its path relative to where the run began; the main process first, which may have to download it."""
    around.journal.say(f"reading {name}")
    if not around.world.is_main:
        around.world.barrier()
    corpus = load_corpus(name, folder)
    if around.world.is_main:
        around.world.barrier()
    return corpus


def choose_tokenizer(recipe: Recipe, given: Tokenizer | None, folder: Path, around: Surroundings) -> Tokenizer | None:
    """That of the model to go on with, or the one that the recipe names, its path relative to `folder`.

    None where it is to be made of the corpus's characters. The main process loads first, which may have to download.
    Raises RecipeError where both are given and differ, TokenizerError and CorpusError.
    """
    name = recipe.data.tokenizer
    if name == "auto" or (name == "characters" and (given is None or isinstance(given, CharacterTokenizer))):
        return given
    named = None
    if name != "characters":
        path = folder / name
        if not around.world.is_main:
            around.world.barrier()
        try:
            named = load_tokenizer(path if name != "gpt2" and path.exists() else name, around.journal.say)
        finally:
            if around.world.is_main:  # whatever happened: the others meet it too, and say it themselves
                around.world.barrier()
    if given is not None and (named is None or named.identity != given.identity):
        raise RecipeError(f"data.tokenizer = {name}, but the model to start from has another: leave it out")
    return given or named


def read_text(corpus: Corpus, recipe: Recipe, tokenizer: Tokenizer | None) -> Text:
    """The corpus as tokens, split; None makes a tokenizer of its characters. Raises CorpusError."""
    tokenizer = tokenizer or CharacterTokenizer(corpus.text)
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    training, validation = split(tokenizer.encode(corpus.text).astype(dtype), recipe.data.validation_fraction)
    need = recipe.model.block_size + 1
    if len(training) < need or len(validation) < 2:
        raise CorpusError(
            f"corpus {corpus.name} is too short: {len(training):,} tokens for training and {len(validation):,} for "
            f"validation, but model.block_size = {recipe.model.block_size} needs {need:,} and 2. Lower "
            "model.block_size, or give more text"
        )
    return Text(corpus, tokenizer, training, validation, len(tokenizer.decode_bytes(validation)) / len(validation))
