"""Random tokens and weights: what a recipe costs can be measured without its corpus."""

import numpy as np
import torch

from groundup.data.dataset import Dataset, TokenizedCorpus
from groundup.data.splits import Tokens, token_dtype
from groundup.errors import RecipeError
from groundup.machine.choice import choose_device
from groundup.machine.device import set_threads
from groundup.models.registry import Model, build
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe
from groundup.tokenizers.characters import CharacterTokenizer

TOKENS = 1_000_000
FIRST_CHARACTER = 0x10000  # above the surrogates, where there are a million in a row


def vocabulary_of(recipe: Recipe, vocab_size: int) -> int:
    """Return the size of the vocabulary to measure with.

    Args:
        recipe: The recipe.
        vocab_size: The size that was asked for; 0 takes what the recipe expects of its corpus.

    Raises:
        RecipeError: `vocab_size` is out of range, or is 0 and the recipe doesn't state one.
    """
    vocab_size = vocab_size or recipe.about.vocab_size
    if not 1 <= vocab_size <= TOKENS:
        raise RecipeError(
            f"--vocab-size {vocab_size} isn't the size of a vocabulary, and the recipe states "
            "none. The usual: 65 for the characters of Shakespeare, 50257 for GPT-2's tokens."
        )
    return vocab_size


def random_model(recipe: Recipe, vocab_size: int) -> Model:
    """Build a recipe's model with random weights, in eval mode, on the recipe's device.

    torch gets the recipe's threads.

    Args:
        recipe: The recipe.
        vocab_size: The size of the vocabulary; 0 takes what the recipe expects of its corpus.

    Raises:
        RecipeError: `vocab_size` is out of range, or is 0 and the recipe doesn't state one.
        MachineError: The device isn't here.
    """
    config = recipe.model_config(vocabulary_of(recipe, vocab_size))
    device = choose_device(recipe.train.device, flag="--train.device")
    set_threads(recipe.train.threads, World())
    torch.manual_seed(recipe.train.seed)
    return build(recipe.model.architecture, config).to(device).eval()


def synthetic_dataset(recipe: Recipe, vocab_size: int) -> Dataset:
    """Make a dataset of random tokens.

    Args:
        recipe: The recipe, which gives the seed and the context.
        vocab_size: The number of different tokens; 0 takes what the recipe expects of its corpus.

    Raises:
        RecipeError: `vocab_size` is out of range, or is 0 and the recipe doesn't state one.
    """
    vocab_size = vocabulary_of(recipe, vocab_size)
    length, name = max(TOKENS, 4 * recipe.model.block_size), "random tokens"
    random = np.random.default_rng(recipe.train.seed)
    tokens = random.integers(vocab_size, size=length).astype(token_dtype(vocab_size))
    tokenizer = CharacterTokenizer(chr(FIRST_CHARACTER + number) for number in range(vocab_size))
    training, validation = Tokens.of(tokens), Tokens.of(tokens[: length // 10])
    part = TokenizedCorpus(name, 1.0, "", training, validation, 4.0)
    return Dataset(name, "", tokenizer, (part,))
