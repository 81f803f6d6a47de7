"""groundup: GPT language models built from the ground up in PyTorch.

    from groundup import Bigram, GPT2, GPTConfig, ReadableGPT, load

Names are imported when they are first used, so that `import groundup` is instant and doesn't import
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.checkpoints.model_folder import load
    from groundup.errors import GroundupError
    from groundup.models.bigram import Bigram
    from groundup.models.config import GPTConfig, ModernConfig
    from groundup.models.gpt2 import GPT2
    from groundup.models.modern import Modern
    from groundup.models.readable import ReadableGPT
    from groundup.recipes.schema import Recipe
    from groundup.tokenizers.characters import CharacterTokenizer

__all__ = [
    "GPT2",
    "Bigram",
    "CharacterTokenizer",
    "GPTConfig",
    "GroundupError",
    "Modern",
    "ModernConfig",
    "ReadableGPT",
    "Recipe",
    "load",
]

__version__ = "0.1.0"

_HOMES = {
    "GPT2": "groundup.models.gpt2",
    "Bigram": "groundup.models.bigram",
    "CharacterTokenizer": "groundup.tokenizers.characters",
    "GPTConfig": "groundup.models.config",
    "GroundupError": "groundup.errors",
    "Modern": "groundup.models.modern",
    "ModernConfig": "groundup.models.config",
    "ReadableGPT": "groundup.models.readable",
    "Recipe": "groundup.recipes.schema",
    "load": "groundup.checkpoints.model_folder",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'groundup' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
