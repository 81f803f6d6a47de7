"""What the golden files are made of: the models, and the hashes of the code behind them."""

import ast
import hashlib
from pathlib import Path
from typing import Any

from groundup.recipes.files import load_recipe, packaged, parse_toml
from groundup.recipes.schema import Recipe

WHAT = (
    "What training steps would do on an imagined card: tensors without numbers, CUDA's own rules, "
    "a card of 24 GB and compute capability 8.6 that doesn't exist. CUDA was not run."
)
HERE = Path(__file__).parent
PARTS = ("card.c", "attention.py", "imagined.py", "record.py", "sources.py", "watch.py")
RECORDER = [HERE / name for name in PARTS]
GOLDEN = HERE.parent / "golden"
REMAKE = "python tests/gpu/imagined_card/remake_card.py FOLDER"
ATTENTION = "attention"  # a golden file that is of no model
# the golden file: the recipe that it is of
RECIPES = {"gpt2-124m": "gpt2-124m-classic", "modern-124m": "gpt2-124m"}
CHANGED = """
train.device = "cuda"
train.precision = "auto"
train.batch_size = 16
train.micro_batch_size = 8
"""


def recipe_of(name: str, compiled: str = "off") -> Recipe:
    """The recipe of a golden file: a packaged one, with two micro-steps of eight sequences."""
    changed = f'{CHANGED}train.compile = "{compiled}"\n'
    return load_recipe(packaged(RECIPES[name]), parse_toml(changed, "the imagined card"))


def digest_of_recipe(name: str) -> str:
    """The SHA-256 of what a recipe says of the model, the optimizer and the length of a step."""
    recipe = recipe_of(name)
    return digest_of(repr((recipe.model, recipe.optim, recipe.train)))


def digest(path: Path) -> str:
    """The SHA-256 of a file's code. Comments, docstrings and the layout don't count."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        text = _plain(_without_docstrings(ast.parse(text)))
    return digest_of(text)


def digest_of(text: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _plain(value: Any) -> str:
    """A syntax tree as text. What is empty is left out: which fields there are varies by Python."""
    if isinstance(value, list):
        return f"[{' '.join(map(_plain, value))}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = [(name, _plain(part)) for name, part in ast.iter_fields(value)]
    said = [f"{name}={part}" for name, part in fields if part not in ("None", "[]")]
    return f"{type(value).__name__}({' '.join(said)})"
