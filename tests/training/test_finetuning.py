"""Fine-tuning: a model of transformers goes on with a text of ours, in its own shape or a shorter
context.
"""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commands import groundup, metrics, trained, write_text
from conftest import error_line
from groundup import GPT2, GPTConfig, Modern, ModernConfig, load
from groundup.checkpoints import model_folder
from groundup.models.config import ModelConfig
from groundup.recipes.files import load_recipe, overrides
from groundup.recipes.schema import Recipe, shape_of
from shard_files import learned

transformers = pytest.importorskip("transformers")

FAST = [
    *(
        "--corpus",
        "text.txt",
        "--train.compile",
        "off",
        "--train.threads",
        "1",
        "--train.precision",
        "float32",
    ),
    *("--eval.every", "20", "--eval.sample-length", "0", "--eval.tokens", "2048"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text, and `theirs`: a GPT-2 made by transformers, with a byte-level tokenizer beside it."""
    path, tokenizer = tmp_path_factory.mktemp("finetuning"), learned()
    write_text(path)
    shape = {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "n_positions": 48,
        "vocab_size": tokenizer.vocab_size,
    }
    torch.manual_seed(0)
    config = transformers.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)
    transformers.GPT2LMHeadModel(config).save_pretrained(path / "theirs")
    tokenizer.save(path / "theirs")
    return path


def test_its_loss_falls_in_its_own_shape_and_cropped(folder: Path) -> None:
    for name, flags, block_size in (("whole", [], 48), ("cropped", ["--model.block-size", 24], 24)):
        rates = ("--optim.learning-rate", 3e-3, "--steps", 40)
        finished = trained(
            "finetune", "--init", "theirs", *FAST, *rates, *flags, "--name", name, folder=folder
        )
        assert "starting from theirs: gpt2, " in finished.stdout
        run = folder / "runs" / name
        losses = [line["validation_loss"] for line in metrics(run, "evaluation")]
        assert losses[-1] < losses[0] - 0.5, losses
        section = tomllib.loads((run / "recipe.toml").read_text("utf-8"))["model"]
        shape = {
            "architecture": "gpt2",
            "block_size": block_size,
            "n_layer": 2,
            "n_head": 2,
            "n_embd": 32,
        }
        assert {key: section[key] for key in shape} == shape
        settings = json.loads((run / "checkpoints" / "best" / "config.json").read_text("utf-8"))
        # the recipe's dropout
        assert (settings["n_positions"], settings["resid_pdrop"]) == (block_size, 0.1)
        assert isinstance(load(run)[0], GPT2)
    again = trained(
        "finetune", "--init", "whole", *FAST, "--steps", 2, "--model.dropout", 0.0, folder=folder
    )
    assert "starting from whole: gpt2, " in again.stdout
    began = metrics(folder / "runs" / "finetune-1", "evaluation")[0]["validation_loss"]
    assert began == pytest.approx(
        metrics(folder / "runs" / "whole", "evaluation")[-1]["validation_loss"], abs=1e-4
    )
    settings = json.loads(
        (folder / "runs/finetune-1/checkpoints/best/config.json").read_text("utf-8")
    )
    assert settings["resid_pdrop"] == 0.0  # whatever the model had


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--model.block-size", 64],
            ["model.block_size = 64 is more than the context of 48", "Choose at most 48"],
        ),
        (
            ["--model.n-layer", 3],
            ["model.n_layer = 3, but the model to start from has n_layer = 2", "finetune"],
        ),
        (
            ["--model.n-embd", 384],
            ["model.n_embd = 384, but the model to start from has n_embd = 32"],
        ),
        (["--model.architecture", "readable"], ["model.architecture = readable", "is a gpt2"]),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    arguments: list[object], said: list[str], folder: Path
) -> None:
    """A longer context too, and what happens to be a recipe's default (n_embd): it was stated."""
    line = error_line(
        groundup("train", "finetune", "--init", "theirs", *FAST, *arguments, folder=folder)
    )
    for part in said:
        assert part in line
    assert not (folder / "runs" / "finetune-2").exists()


def configs() -> st.SearchStrategy[tuple[str, ModelConfig]]:
    """Every architecture with a shape."""
    count = st.integers(1, 4)
    classic = st.builds(
        lambda layer, head, width, size: GPTConfig(size, 7, layer, head, head * width), *[count] * 4
    )
    modern = st.builds(
        lambda layers, kv, width, inner, theta, tied: ModernConfig(
            9, 7, layers, 2 * kv, kv, 2 * width, 2 * width, inner, theta, tied
        ),
        *[count] * 4,
        st.floats(1.0, 1e7),
        st.booleans(),
    )
    return st.tuples(st.sampled_from(["gpt2", "readable"]), classic) | st.tuples(
        st.just("modern"), modern
    )


@given(configs())
def test_a_shape_comes_back_from_the_section_that_states_it(model: tuple[str, ModelConfig]) -> None:
    architecture, config = model
    recipe = load_recipe(
        overrides({"model": shape_of(architecture, config), "train": {"steps": 1}})
    )
    assert recipe.model.architecture == architecture
    assert recipe.model_config(7) == config


def test_a_modern_model_brings_its_whole_shape(tmp_path: Path) -> None:
    """Grouped heads, widths of its own and an untied head: nothing that the recipe would guess."""
    write_text(tmp_path)
    tokenizer = learned()
    config = ModernConfig(32, tokenizer.vocab_size, 2, 4, 2, 16, 6, 20, rope_theta=5e4, tied=False)
    model_folder.save(tmp_path / "mine", Modern(config), tokenizer)
    flags = ["--steps", 2, "--model.block-size", 16, "--name", "run"]
    trained("finetune", "--init", "mine", *FAST, *flags, folder=tmp_path)
    found = load(tmp_path / "runs" / "run")[0].config
    assert found == ModernConfig(
        16, tokenizer.vocab_size, 2, 4, 2, 16, 6, 20, rope_theta=5e4, tied=False, dropout=0.1
    )


def test_a_recipe_of_defaults_is_what_it_was() -> None:
    assert load_recipe(overrides({"train": {"steps": 1}})).model == Recipe().model
