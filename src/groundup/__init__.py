"""groundup: GPT language models built from the ground up in PyTorch.

    import groundup

    model, tokenizer = groundup.load("gpt2")

The names in `__all__` are the public ones: later versions add names, and remove none. Each name is
imported when it is first used, so that `import groundup` is instant and doesn't import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as in _HOMES, for type checkers and editors
    from groundup.checkpoints.find import find_model
    from groundup.checkpoints.model_folder import LoadedModel, load, load_model, save
    from groundup.data.corpora import load_corpus
    from groundup.errors import GroundupError
    from groundup.evaluation.invented import invented_items
    from groundup.evaluation.task import evaluate
    from groundup.generation.engine import Engine
    from groundup.generation.settings import SamplingSettings
    from groundup.generation.writer import Precision
    from groundup.inspection.reading import Inspection, inspect
    from groundup.ladder.rungs import RUNGS, Rung, build_rung
    from groundup.models.bigram import Bigram
    from groundup.models.cache import KVCache
    from groundup.models.config import GPTConfig, ModernConfig, parameter_count
    from groundup.models.correspondence import gpt2_from_readable, readable_from_gpt2
    from groundup.models.gpt2 import GPT2
    from groundup.models.modern import Modern
    from groundup.models.readable import ReadableGPT
    from groundup.models.sampling import keep_min_p, keep_top_k, keep_top_p, next_token
    from groundup.optim.muon import orthogonalise
    from groundup.recipes.files import load_recipe
    from groundup.recipes.schema import Recipe
    from groundup.tokenizers.bytepair import BytePairTokenizer
    from groundup.tokenizers.characters import CharacterTokenizer
    from groundup.tokenizers.load import load_tokenizer
    from groundup.tokenizers.readable_bytepair import ReadableBytePair
    from groundup.tokenizers.train import learn_tokenizer

__all__ = ["GPT2", "RUNGS", "Bigram", "BytePairTokenizer", "CharacterTokenizer", "Engine"]
__all__ += ["GPTConfig", "GroundupError", "Inspection", "KVCache", "LoadedModel", "Modern"]
__all__ += ["ModernConfig", "Precision", "ReadableBytePair", "ReadableGPT", "Recipe", "Rung"]
__all__ += ["SamplingSettings", "build_rung", "evaluate", "find_model", "gpt2_from_readable"]
__all__ += ["inspect", "invented_items", "keep_min_p", "keep_top_k", "keep_top_p"]
__all__ += ["learn_tokenizer", "load", "load_corpus", "load_model", "load_recipe", "load_tokenizer"]
__all__ += ["next_token", "orthogonalise", "parameter_count", "readable_from_gpt2", "save"]

__version__ = "0.1.0"

_HOMES = {
    "checkpoints.find": ("find_model",),
    "checkpoints.model_folder": ("LoadedModel", "load", "load_model", "save"),
    "data.corpora": ("load_corpus",),
    "errors": ("GroundupError",),
    "evaluation.invented": ("invented_items",),
    "evaluation.task": ("evaluate",),
    "generation.engine": ("Engine",),
    "generation.settings": ("SamplingSettings",),
    "generation.writer": ("Precision",),
    "inspection.reading": ("Inspection", "inspect"),
    "ladder.rungs": ("RUNGS", "Rung", "build_rung"),
    "models.bigram": ("Bigram",),
    "models.cache": ("KVCache",),
    "models.config": ("GPTConfig", "ModernConfig", "parameter_count"),
    "models.correspondence": ("gpt2_from_readable", "readable_from_gpt2"),
    "models.gpt2": ("GPT2",),
    "models.modern": ("Modern",),
    "models.readable": ("ReadableGPT",),
    "models.sampling": ("keep_min_p", "keep_top_k", "keep_top_p", "next_token"),
    "optim.muon": ("orthogonalise",),
    "recipes.files": ("load_recipe",),
    "recipes.schema": ("Recipe",),
    "tokenizers.bytepair": ("BytePairTokenizer",),
    "tokenizers.characters": ("CharacterTokenizer",),
    "tokenizers.load": ("load_tokenizer",),
    "tokenizers.readable_bytepair": ("ReadableBytePair",),
    "tokenizers.train": ("learn_tokenizer",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"groundup.{module}"), name)
    raise AttributeError(f"module 'groundup' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
