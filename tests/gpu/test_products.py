"""The code as it is asks the device for tests for products of the dtypes that the goldens have."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from imagined_card.goldens import HEAD, PRODUCTS, READ, golden, plain, tensors
from imagined_card.sources import RECIPES, recipe_of
from testgpu import NAME, counted, register
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from commands import forked
from groundup.profiling.synthetic import synthetic_dataset
from groundup.recipes.files import load_recipe, packaged, parse_toml

VOCABULARY = 101  # larger than the width, and no other size
SMALL = f"""
train.device = "{NAME}"
train.precision = "auto"
train.compile = "off"
train.batch_size = 4
train.micro_batch_size = 2
model.block_size = 16
model.n_layer = 2
model.n_head = 2
model.n_embd = 32
"""
# Of the others bmm is attention's plain formula here, for which a card has a kernel of its own.
COMPARED = {"aten::mm", "aten::addmm", "aten::baddbmm", HEAD}
Dtypes = dict[str, list[str]]


class Products(TorchDispatchMode):
    """Notes the dtypes of the factors of each product, but for those that the head consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: dict[str, set[str]] = defaultdict(set)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, given = plain(func.name()), tree_leaves((args, kwargs))
        if name in COMPARED:
            factors = [each for each in given if isinstance(each, torch.Tensor)][PRODUCTS[name]]
            if name == HEAD or not any(VOCABULARY in each.shape for each in factors):
                self.dtypes[name] |= {str(each.dtype).removeprefix("torch.") for each in factors}
        return func(*args, **(kwargs or {}))


def step(name: str, answer: Path) -> None:
    """Do a small step of a golden's recipe in a process that has the device."""
    register()
    torch.backends.cuda.enable_flash_sdp(False)  # the device has the plain formula alone
    from groundup.training.session import Session
    from groundup.training.setup import build_trainer

    recipe = load_recipe(packaged(RECIPES[name]), parse_toml(SMALL, "a test"))
    trainer = build_trainer(recipe, synthetic_dataset(recipe, VOCABULARY), Session())
    with Products() as products, counted() as waits:
        trainer.train_step(0)
    dtypes = {name: sorted(found) for name, found in products.dtypes.items()}
    answer.write_text(json.dumps([dtypes, sum(waits.values())]), "utf-8")


def dtypes_of_golden(name: str) -> Dtypes:
    """The same of the imagined card's step."""
    vocabulary = recipe_of(name).about.vocab_size
    found: dict[str, set[str]] = defaultdict(set)
    for operation, given, *_ in golden(name)["operations"]:
        if (product := plain(operation)) in COMPARED:
            factors = tensors(given)[PRODUCTS[product]]
            if product == HEAD or not any(vocabulary in shape for _, shape in factors):
                found[product] |= {dtype for dtype, _ in factors}
    return {product: sorted(dtypes) for product, dtypes in found.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_products_have_the_dtypes_of_the_golden(name: str, tmp_path: Path) -> None:
    process = forked(step, name, tmp_path / "answer")
    process.start()
    process.join()
    dtypes, waits = json.loads((tmp_path / "answer").read_text("utf-8"))
    assert dtypes == dtypes_of_golden(name)
    assert waits == len(READ)
