"""What training steps would do on the imagined card: bfloat16 products, flash attention, one wait.

The goldens are made without a GPU (imagined_card/remake_card.py), and here they are only read. CUDA
was never run for them.
"""

import math
from pathlib import Path
from typing import Any

import pytest
from imagined_card.goldens import FLASH, HEAD, PRODUCTS, READ, golden, plain, tensors
from imagined_card.remake_card import NAMES
from imagined_card.sources import (
    ATTENTION,
    GOLDEN,
    RECIPES,
    RECORDER,
    REMAKE,
    digest,
    digest_of_recipe,
    recipe_of,
)
from torch.utils.flop_counter import flop_registry

import groundup
from groundup.profiling.operations import operations_per_token

SOURCE = Path(groundup.__file__).parent
CARD_BYTES = 24 * 2**30
every_model = pytest.mark.parametrize("name", RECIPES)
every_golden = pytest.mark.parametrize("name", NAMES)


def operations_of(operation: str, shapes: list[list[int]]) -> float:
    """The floating-point operations of one call; the head counts forward and backward."""
    if operation.startswith(FLASH):
        products = 5 if operation.endswith("backward") else 2
        return 2.0 * products * math.prod(shapes[0]) * shapes[0][-2]
    if operation == HEAD:
        (tokens, width), (vocab_size, _) = shapes
        return 6.0 * tokens * width * vocab_size
    return 2.0 * math.prod(shapes[0]) * shapes[1][-1]


def products(found: dict[str, Any]) -> list[tuple[str, set[str], float]]:
    """The matrix products of a step: operation, dtypes of the factors, operations in all."""
    rows = []
    for name, given, _, count in found["operations"]:
        if (operation := plain(name)) in PRODUCTS:
            factors = tensors(given)[PRODUCTS[operation]]
            cost = count * operations_of(operation, [shape for _, shape in factors])
            rows.append((f"{name}: {given}", {dtype for dtype, _ in factors}, cost))
    return rows


def whole_step(name: str) -> float:
    """The floating-point operations of a step by the formula that `bench` states an MFU with."""
    recipe = recipe_of(name)
    config = recipe.model_config(recipe.about.vocab_size)
    return recipe.tokens_per_step * operations_per_token(recipe.model.architecture, config)


def wide_products(name: str, found: dict[str, Any]) -> list[str]:
    """The products above 1% of a step's operations that aren't of bfloat16 alone."""
    least = whole_step(name) / 100
    return [
        said for said, dtypes, cost in products(found) if cost > least and dtypes != {"bfloat16"}
    ]


@every_model
def test_no_large_product_is_computed_in_float32(name: str) -> None:
    assert wide_products(name, golden(name)) == []


@every_model
def test_a_head_in_float32_would_be_seen(name: str) -> None:
    found = golden(name)
    (head,) = (row for row in found["operations"] if row[0] == HEAD)
    head[1] = head[1].replace("bfloat16", "float32")
    assert len(wide_products(name, found)) == 1


@every_model
def test_the_products_are_all_of_a_steps(name: str) -> None:
    """Beside the formula's there are the logits and the scores that are computed twice, and Muon's
    products; no operation that torch counts is left out.
    """
    found = golden(name)
    known = {plain(operation) for operation, *_ in found["operations"]}
    counted = {str(operation).replace(".", "::") for operation in flop_registry}
    assert known & counted <= PRODUCTS.keys()
    assert HEAD in known
    once = [cost for said, _, cost in products(found) if not _is_in_the_head(said)]
    muon = 1.2 if recipe_of(name).optim.optimizer == "muon" else 1.0
    assert 1.0 <= sum(once) / whole_step(name) <= 1.05 * muon


def _is_in_the_head(said: str) -> bool:
    """Whether a product is one of those that make up the backward pass of the head's operation."""
    return "50257" in said and not said.startswith(HEAD)


@every_model
def test_attention_is_flash(name: str) -> None:
    chosen = {row[0] for row in golden(name)["operations"] if "scaled_dot_product" in row[0]}
    assert chosen == {FLASH, f"{FLASH}_backward"}


@pytest.mark.parametrize("way", ["each head alone", "grouped"])
@pytest.mark.parametrize("what", ["training", "training with dropout", "a prompt", "one token"])
def test_attention_in_bfloat16_is_flash_without_a_mask(way: str, what: str) -> None:
    assert golden(ATTENTION)["kernels"][f"bfloat16, {way}, {what}"] == [FLASH]


def test_which_attention_is_the_plain_formula() -> None:
    """Its scores are whole: grouped queries in float32, or with a mask, have no kernel here."""
    kernels = golden(ATTENTION)["kernels"]
    plain_ones = {name for name, which in kernels.items() if which == ["aten::bmm"]}
    masked = "bfloat16, grouped, two tokens after it"
    assert plain_ones == {masked, *(name for name in kernels if name.startswith("float32, group"))}


@pytest.mark.parametrize(("name", "blocks"), [("gpt2-124m", 1), ("modern-124m", 2)])
def test_the_compiler_gets_whole_graphs_once(name: str, blocks: int) -> None:
    """One graph for all blocks, one more for the last RMSNorm, and one for a whole objective."""
    found = golden(name)
    for how, graphs in (("compiled_by_blocks", blocks), ("compiled_whole", 1)):
        compiled = found[how]
        assert compiled["graphs"] == graphs
        assert compiled["frames"] == {"total": graphs, "ok": graphs}
        assert compiled["graph_breaks"] == {}
        assert compiled["compiled_again"] == 0


@every_model
def test_a_step_waits_once_and_could_be_a_cuda_graph(name: str) -> None:
    found = golden(name)
    for part in (found, found["compiled_by_blocks"], found["compiled_whole"]):
        assert part["waits_of_steps"] == [READ] * 4
    assert found["parameters_stay"]
    assert found["optimizer_states_stay"]
    assert found["bytes_between_steps"] == found["bytes_between_later_steps"]


@pytest.mark.parametrize(("name", "least"), [("gpt2-124m", 12), ("modern-124m", 8)])
def test_what_lives_is_what_must(name: str, least: int) -> None:
    """Between steps: weights and AdamW's two means, or Muon's one. In a step the gradients, too."""
    found = golden(name)
    parameters = found["parameters"]
    assert least <= found["bytes_between_steps"] / parameters <= 12.01
    gradients = found["bytes_between_steps"] + 4 * parameters
    assert gradients < found["peak_bytes_of_a_step"] < CARD_BYTES


@every_golden
def test_a_golden_says_that_cuda_was_not_run(name: str) -> None:
    found = golden(name)
    assert "imagined card" in found["what"]
    assert "CUDA was not run" in found["what"]


def test_every_golden_is_made_by_the_command() -> None:
    stems = {file.stem for file in GOLDEN.glob("*.json")}
    assert stems == {f"imagined-card-{name}" for name in NAMES}
    assert set(NAMES) == {ATTENTION, *RECIPES}


def outdated(name: str) -> list[str]:
    """What a golden was made of that is another now."""
    found = golden(name)
    recorder = {path.name: digest(path) for path in RECORDER}
    sources = {each: SOURCE / each for each in found["sources"]}
    now = {each: digest(path) if path.is_file() else "" for each, path in sources.items()}
    changed = [each for each in now if now[each] != found["sources"][each]]
    changed += [each for each in recorder if recorder[each] != found["recorder"].get(each)]
    is_of_a_recipe = name in RECIPES
    if is_of_a_recipe and digest_of_recipe(name) != found["recipe"]:
        changed.append(f"the recipe {RECIPES[name]}")
    return changed


def how_to_remake(changed: list[str]) -> str:
    """The line that says what to do."""
    return f"the imagined card's golden is of other code: {', '.join(changed)}. Run {REMAKE}"


@every_golden
def test_whether_a_golden_is_of_this_code_is_said(name: str) -> None:
    if changed := outdated(name):
        pytest.skip(how_to_remake(changed))


@pytest.mark.long
@every_golden
def test_a_golden_is_of_this_code(name: str) -> None:
    changed = outdated(name)
    assert not changed, how_to_remake(changed)


def test_only_code_counts_as_a_change(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    digests = []
    for text in (
        'def twice(x: int) -> int:\n    """Return 2 x."""\n    return 2 * x\n',
        '"""A file."""\n\n\ndef twice(x: int) -> int:\n    return (2 *\n            x)  # so\n',
        'def twice(x: int) -> int:\n    """Return 2 x."""\n    return 3 * x\n',
    ):
        file.write_text(text, "utf-8")
        digests.append(digest(file))
    assert digests[0] == digests[1] != digests[2]
