"""Small models with a tokenizer each, for other programs to read."""

from pathlib import Path

import torch

from conftest import model_of, perturb, some_text
from groundup.checkpoints import model_folder
from groundup.models.config import GPTConfig
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.train import learn_tokenizer

# Spaces, line ends, a zero byte, backslashes, combining marks, the sign that stands for a space
# elsewhere, emoji.
TRICKY = "x .\n y ,  \n\t\0\"'\\n\\x41`/<unk>|[]é\u0301ß中文字\u00a0\u2028\ufeff😀👩\u200d🚀▁Ġ !"


def tokenizer_of(kind: str) -> Tokenizer:
    """A tokenizer that knows `some_text` and `TRICKY`."""
    text = some_text() + TRICKY
    return CharacterTokenizer(text) if kind == "characters" else learn_tokenizer([text], 320)


def model_for(
    architecture: str, tokenizer: Tokenizer, *, n_embd: int = 64, padding: int = 0, seed: int = 0
) -> Model:
    """A model whose every tensor was moved, so far that what it writes varies."""
    torch.manual_seed(seed)
    shape = GPTConfig(
        block_size=64, vocab_size=tokenizer.vocab_size + padding, n_layer=2, n_head=4, n_embd=n_embd
    )
    model = model_of(architecture, shape)
    perturb(model, seed, scale=0.3)
    return model.eval()


def saved(
    folder: Path, architecture: str, kind: str, *, n_embd: int = 64, padding: int = 0
) -> tuple[Model, Tokenizer]:
    """The model and its tokenizer, in `folder` too."""
    tokenizer = tokenizer_of(kind)
    model = model_for(architecture, tokenizer, n_embd=n_embd, padding=padding)
    model_folder.save(folder, model, tokenizer)
    return model, tokenizer
