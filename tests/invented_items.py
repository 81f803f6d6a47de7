"""Items in HellaSwag's format, with what its sources put into texts: brackets, titles, two spaces,
accents.
"""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from conftest import model_of, perturb
from groundup.models.config import GPTConfig
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.train import learn_tokenizer

WORDS = [
    "a man",
    "the roof",
    "she",
    "pulls",
    "[step]",
    "[title]",
    "Then",
    "[substeps]",
    "rope.",
    " ",
    "ČAJ",
    "don't",
    "5",
]


def invented(count: int, seed: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Items of random words, each third without ctx_a and ctx_b, each fourth with an empty
    ctx_b.
    """
    draw, items = random.Random(seed), []
    for number in range(count):
        first, second = (" ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(2))
        second = "" if number % 4 == 1 else second
        item = {
            "ind": 10 * number,
            "activity_label": draw.choice(["Roof repair", "Cooking [title]", "čtení"]),
            "ctx": f"{first} {second}".strip(),
            "label": draw.randrange(4),
            "endings": [
                first + " ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for first in "wxyz"
            ],  # never two alike
        }
        items.append(item | ({} if number % 3 == 2 else {"ctx_a": first, "ctx_b": second}) | fields)
    return items


def write_items(path: Path, items: list[dict[str, Any]]) -> Path:
    """The items as JSON lines."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return path


@cache
def tokenizer() -> Tokenizer:
    """Byte-level BPE of 340 tokens."""
    return learn_tokenizer([" ".join(WORDS) * 20 + " Roof repair: Cooking: "], 340)


@cache
def small_model(architecture: str = "gpt2", block_size: int = 256) -> Any:
    """A model in float64 with every tensor moved, in evaluation mode; its vocabulary is padded."""
    config = GPTConfig(block_size=block_size, vocab_size=352, n_layer=2, n_head=2, n_embd=16)
    model = model_of(architecture, config).double()
    perturb(model, seed=3, scale=0.3)
    return model.eval()
