"""Random tokens: what a recipe costs can be measured without its corpus."""

import numpy as np

from groundup.data.dataset import Part, Text
from groundup.data.tokens import Tokens
from groundup.errors import RecipeError
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.training.journal import Journal
from groundup.training.session import Surroundings
from groundup.training.stopping import StopRequest

TOKENS = 1_000_000
FIRST_CHARACTER = 0x10000  # above the surrogates, where there are a million in a row


def synthetic_text(recipe: Recipe, vocab_size: int) -> Text:
    """Random tokens of that vocabulary, or of the one that the recipe expects. Raises
    RecipeError.
    """
    vocab_size = vocab_size or recipe.about.vocab_size
    if not 1 <= vocab_size <= TOKENS:
        raise RecipeError(
            f"--vocab-size {vocab_size} isn't the size of a vocabulary, and the recipe states "
            "none. The usual: 65 for the characters of Shakespeare, 50257 for GPT-2's tokens."
        )
    length = max(TOKENS, 4 * recipe.model.block_size)
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    tokens = (
        np.random.default_rng(recipe.train.seed).integers(vocab_size, size=length).astype(dtype)
    )
    tokenizer = CharacterTokenizer(chr(FIRST_CHARACTER + number) for number in range(vocab_size))
    name, whole = "random tokens", Tokens.of(tokens)
    return Text(
        name, "", tokenizer, (Part(name, 1.0, "", whole, Tokens.of(tokens[: length // 10]), 4.0),)
    )


def alone(journal: Journal) -> Surroundings:
    """One process that nobody stops."""
    return Surroundings(World(), journal, StopRequest())
