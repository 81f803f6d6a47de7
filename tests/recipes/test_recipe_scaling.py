"""One dial: what `--size` changes, what it leaves, and who wins over it."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import groundup, write_text
from conftest import error_line
from groundup.errors import RecipeError
from groundup.recipes.files import Layer, load_recipe, overrides, packaged, packaged_names
from groundup.recipes.scaling import scaled
from groundup.recipes.schema import differences

SCALABLE = [name for name in packaged_names() if name != "bigram"]


@pytest.mark.parametrize("name", SCALABLE)
def test_the_recipes_own_size_changes_nothing(name: str) -> None:
    recipe = load_recipe(packaged(name))
    again = load_recipe(packaged(name), overrides(scaled(recipe, recipe.model.n_layer)))
    assert list(differences(recipe, again)) == []


@given(
    name=st.sampled_from(SCALABLE),
    n_layer=st.integers(1, 64),
    sharing=st.sampled_from([0, 1, 2, 3]),
)
def test_any_size_is_a_valid_recipe_of_the_same_proportions(
    name: str, n_layer: int, sharing: int
) -> None:
    recipe = load_recipe(packaged(name))
    shape = {
        "architecture": "modern",
        "n_head": 6,
        "n_embd": 96,
        "n_layer": 6,
        "n_inner": 300,
        "dropout": 0.0,
    }
    shape |= {"n_kv_head": 6 // sharing} if sharing else {}
    recipe = load_recipe(packaged(name), overrides({"model": shape}))
    larger = load_recipe(
        packaged(name), overrides({"model": shape}), overrides(scaled(recipe, n_layer))
    )
    model = larger.model
    assert model.n_layer == n_layer
    assert model.n_embd == 16 * model.n_head  # the width of a head stays
    assert abs(model.n_head - n_layer) <= max(1, sharing) / 2 or model.n_head == max(1, sharing)
    if sharing:
        assert model.n_head == sharing * model.n_kv_head
    assert model.n_inner == pytest.approx(300 / 96 * model.n_embd, abs=0.5)
    assert larger.train.batch_size == max(1, round(recipe.train.batch_size * n_layer / 6))
    noise = (larger.train.batch_size / recipe.train.batch_size) ** 0.5
    assert larger.optim.muon_learning_rate == pytest.approx(recipe.optim.muon_learning_rate * noise)
    width = (model.n_embd / 96) ** 0.5
    assert larger.optim.learning_rate == pytest.approx(recipe.optim.learning_rate * noise / width)


def test_what_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(RecipeError, match="--size 3: a bigram has no layers"):
        scaled(load_recipe(packaged("bigram")), 3)
    with pytest.raises(RecipeError, match="--size 0 is below 1"):
        scaled(load_recipe(packaged("shakespeare")), 0)


def test_a_flag_goes_over_the_size_and_the_size_over_a_file(tmp_path: Path) -> None:
    write_text(tmp_path)
    file = (
        "[model]\nn_layer = 2\nn_head = 2\nn_embd = 16\nblock_size = 8\n[train]\nbatch_size = "
        "4\nsteps = 1\n"
    )
    (tmp_path / "my.toml").write_text(file, "utf-8")
    words = [
        "train",
        "--config",
        "my.toml",
        "--corpus",
        "text.txt",
        "--size",
        4,
        "--model.n-head",
        8,
    ]
    finished = groundup(*words, "--train.threads", 1, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    recorded = tomllib.loads((tmp_path / "runs" / "my-1" / "recipe.toml").read_text("utf-8"))
    assert (
        recorded["model"]["n_layer"],
        recorded["model"]["n_head"],
        recorded["model"]["n_embd"],
    ) == (4, 8, 32)
    assert recorded["train"]["batch_size"] == 8
    refused = error_line(groundup("train", "--resume", "my-1", "--size", 4, folder=tmp_path))
    assert "--size can't be given with it" in refused


def test_a_contradiction_names_the_size_as_its_place() -> None:
    recipe = load_recipe(packaged("shakespeare"))
    slow = replace(recipe, optim=replace(recipe.optim, muon_learning_rate=1e-12))
    with pytest.raises(RecipeError, match=r"optim\.muon_learning_rate = .* \(--size 1\)"):
        load_recipe(packaged("shakespeare"), Layer(scaled(slow, 1), "--size 1"))
