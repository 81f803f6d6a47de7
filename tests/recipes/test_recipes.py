"""Recipes: the packaged ones are as promised and start, mistakes in a file are named, the upper
layer wins.
"""

import json
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commands import groundup, metrics
from conftest import TINY, error_line, some_text
from groundup.cli.main import app
from groundup.console import short_count
from groundup.data.corpora import TINY_SHAKESPEARE
from groundup.errors import GroundupError, RecipeError
from groundup.hub.cache import cache_folder
from groundup.models.registry import build
from groundup.recipes.files import (
    Layer,
    load_recipe,
    overrides,
    packaged,
    packaged_names,
    packaged_text,
    parse_toml,
)
from groundup.recipes.schema import SECTIONS, Recipe, differences, field_types
from groundup.training.costs import Costs
from shard_files import documents, learned, write_shards

NAMES = [
    *("quickstart", "bigram", "shakespeare-fast", "shakespeare-cpu", "shakespeare-best"),
    *(
        "basic-gpt",
        "finetune",
        "gpt2-124m",
        "gpt2-124m-classic",
        "shakespeare",
        "shakespeare-bpe",
        "shakespeare-gpu",
    ),
]
# whose test is in tests/interop/test_finetuning.py
FROM_SCRATCH = [name for name in NAMES if name != "finetune"]


def command(*args: object) -> None:
    """`groundup ARGS...` in this process, which must succeed; errors come through as they are."""
    with pytest.raises(SystemExit) as left:
        app(list(map(str, args)), exit_on_error=False, print_error=False)
    assert left.value.code == 0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder with a text in it, as the working directory."""
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    monkeypatch.chdir(tmp_path)
    # most of a tiny run's time
    monkeypatch.setattr("groundup.training.journal.plot_losses", lambda *_: None)
    monkeypatch.setattr("groundup.cli.training.FINAL_SAMPLE", 5)
    return tmp_path


# -- what is packaged


def test_the_packaged_recipes_are_those_of_the_readme():
    assert packaged_names() == NAMES


# The numbers that the project promises: nanoGPT's two commands and the classic course's model.
PROMISED = {
    "gpt2-124m": {
        "model": {
            "architecture": "modern",
            "n_layer": 12,
            "n_head": 12,
            "n_embd": 768,
            "block_size": 1024,
        },
        "data": {"corpus": "data/fineweb-edu", "tokenizer": "auto"},
        "optim": {"optimizer": "muon", "schedule": "wsd"},
    },
    "gpt2-124m-classic": {
        "model": {
            "architecture": "gpt2",
            "n_layer": 12,
            "n_head": 12,
            "n_embd": 768,
            "block_size": 1024,
        },
        "data": {"corpus": "data/fineweb-edu", "tokenizer": "auto"},
        "train": {"steps": 19_073, "batch_size": 512},  # 10 billion tokens, half a million at once
        "optim": {
            **{
                "optimizer": "adamw",
                "learning_rate": 6e-4,
                "min_learning_rate": 6e-5,
                "schedule": "cosine",
            },
            **{"betas": (0.9, 0.95), "weight_decay": 0.1, "clip_norm": 1.0, "warmup_steps": 715},
        },
    },
    "finetune": {
        "train": {"init": "gpt2"},
        "optim": {"optimizer": "adamw", "learning_rate": 3e-5, "warmup_steps": 20},
    },
    "shakespeare-bpe": {
        "model": {
            "architecture": "gpt2",
            "n_layer": 4,
            "n_head": 4,
            "n_embd": 128,
            "block_size": 256,
            "dropout": 0.0,
        },
        "data": {"corpus": "shakespeare", "tokenizer": "gpt2"},
    },
    "shakespeare": {
        "model": {
            "architecture": "gpt2",
            "n_layer": 6,
            "n_head": 6,
            "n_embd": 384,
            "block_size": 256,
            "dropout": 0.2,
        },
        "train": {"batch_size": 64, "steps": 5000, "epochs": 0.0, "minutes": 0.0},
        "data": {"corpus": "shakespeare", "validation_fraction": 0.1},
    },
    "shakespeare-cpu": {
        "model": {
            "architecture": "gpt2",
            "n_layer": 4,
            "n_head": 4,
            "n_embd": 128,
            "block_size": 64,
        },
        "train": {"batch_size": 12, "steps": 2000, "epochs": 0.0, "minutes": 0.0},
        "data": {"corpus": "shakespeare", "validation_fraction": 0.1},
        "eval": {"tokens": 0},  # the whole validation split: the loss that the README states
    },
    "basic-gpt": {
        "model": {
            "architecture": "gpt2",
            "n_layer": 6,
            "n_head": 6,
            "n_embd": 384,
            "block_size": 512,
        },
        "train": {"batch_size": 64, "steps": 10_000, "epochs": 0.0, "minutes": 0.0},
        "optim": {"learning_rate": 1e-4, "schedule": "cosine"},
        "data": {"corpus": "shakespeare"},
    },
    "quickstart": {"data": {"corpus": "python-docs"}, "model": {"architecture": "modern"}},
    "shakespeare-fast": {"data": {"corpus": "shakespeare"}, "model": {"architecture": "modern"}},
    "shakespeare-best": {
        "data": {"corpus": "shakespeare", "validation_fraction": 0.1},
        "model": {"architecture": "modern"},
        "eval": {"tokens": 0},
    },
    "shakespeare-gpu": {
        "data": {"corpus": "shakespeare"},
        "model": {"architecture": "modern"},
        "eval": {"tokens": 0},
    },
    "bigram": {"data": {"corpus": "shakespeare"}, "model": {"architecture": "bigram"}},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_recipe_is_what_was_promised(name: str):
    recipe = load_recipe(packaged(name))
    for section, promised in PROMISED[name].items():
        values = vars(getattr(recipe, section))
        assert {key: values[key] for key in promised} == promised
    assert all(vars(recipe.about).values()), "the list of recipes shows every line of [about]"
    comments = [line for line in packaged_text(name).splitlines() if line.startswith("#")]
    assert comments, "a packaged recipe explains itself"


def test_the_quickstart_fits_into_three_minutes_with_start_up_and_goodbye():
    assert 1.0 <= load_recipe(packaged("quickstart")).train.minutes <= 2.5


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_the_listed_parameters_are_those_of_the_model(
    name: str, capsys: pytest.CaptureFixture[str]
):
    recipe = load_recipe(packaged(name))
    with torch.device("meta"):
        model = build(recipe.model.architecture, recipe.model_config(recipe.about.vocab_size))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert recipe.parameter_count(recipe.about.vocab_size) == parameters
    with pytest.raises(SystemExit):
        app(["recipes"], exit_on_error=False, print_error=False)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [name])
    assert f" {short_count(parameters)} " in row
    for shown in (recipe.model.architecture, recipe.data.corpus, recipe.about.loss):
        assert f" {shown} " in row


def test_the_vocabulary_of_shakespeare_is_as_listed():
    cached = cache_folder() / TINY_SHAKESPEARE.path
    if not cached.is_file():
        pytest.skip("Tiny Shakespeare is not in the cache")
    vocab_size = len(set(cached.read_text("utf-8")))
    recipes = [load_recipe(packaged(name)) for name in NAMES]
    for recipe in (
        recipe
        for recipe in recipes
        if recipe.data.corpus == "shakespeare" and not recipe.train.init
    ):
        assert recipe.about.vocab_size == (
            50_257 if recipe.data.tokenizer == "gpt2" else vocab_size
        )


def test_shakespeare_in_gpt2s_tokens_has_the_parameters_of_the_original():
    assert load_recipe(packaged("shakespeare-bpe")).parameter_count(50_257) == 7_259_008


def test_gpt2_has_the_parameters_of_gpt2():
    classic, modern = (load_recipe(packaged(name)) for name in ("gpt2-124m-classic", "gpt2-124m"))
    assert classic.parameter_count(50_257) == 124_439_808
    assert 123e6 < modern.parameter_count(50_257) < 125e6
    for name in ("gpt2-124m-classic", "gpt2-124m"):
        prepare = (
            "# Get the data first: groundup prepare fineweb-edu --sample 10BT --tokenizer gpt2 "
            "--out data/fineweb-edu"
        )
        assert prepare in packaged_text(name).splitlines()


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_a_packaged_recipe_starts_by_name_and_as_a_file(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
):
    """Made small, but of its own architecture, optimizer, schedule and evaluation."""
    app(["recipes", name], exit_on_error=False, print_error=False, result_action="return_value")
    printed = capsys.readouterr().out
    assert printed == packaged_text(name)
    (here / "my.toml").write_text(printed, "utf-8")
    small = [
        "--steps",
        2,
        "--train.batch-size",
        2,
        "--train.micro-batch-size",
        0,
        "--train.compile",
        "off",
    ]
    if (corpus := load_recipe(packaged(name)).data.corpus).startswith("data/"):
        write_shards(here / corpus, learned(), documents())
    else:
        small += ["--corpus", "text.txt"]
    small += [
        "--model.block-size",
        16,
        "--model.n-embd",
        48,
        "--model.n-layer",
        1,
        "--train.threads",
        1,
    ]
    command("train", name, *small, "--name", "by-name")
    command("train", "--config", "my.toml", *small)
    by_name, by_file = (
        [(line["loss"], line["batch_hash"]) for line in metrics(Path("runs") / run)]
        for run in ("by-name", "my-1")
    )
    assert by_name == by_file
    assert len(by_name) == 2
    recorded = load_recipe(
        parse_toml(Path("runs/by-name/recipe.toml").read_text("utf-8"), "recorded")
    )
    original = load_recipe(packaged(name))
    changed = {field for field, _, _ in differences(original, recorded)}
    asked = {
        "data.corpus",
        "train.steps",
        "train.batch_size",
        "train.micro_batch_size",
        "train.compile",
        "train.threads",
    }
    asked |= {"model.block_size", "model.n_embd", "model.n_layer"}
    assert changed <= asked | {"train.minutes", "train.device", "train.precision"}


# -- what is misspelt, of the wrong type or out of bounds


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            "[train]\n\nbatch_sise = 3\n",
            ["unknown key train.batch_sise (my.toml:3)", "train.batch_size?"],
        ),
        (
            "[model]\nlearning_rate = 3\n",
            ["unknown key model.learning_rate (my.toml:2)", "optim.learning_rate?"],
        ),
        ("[modle]\nn_head = 3\n", ["unknown section modle (my.toml)", "model?"]),
        ("n_head = 3\n", ["unknown key n_head (my.toml:1)", "Did you mean model.n_head?"]),
        ("train = 3\n", ["train = 3 (my.toml:1) must be a section"]),
        ("[train.deep]\nx = 1\n", ["unknown key train.deep"]),
        ("[zzz]\n", ["unknown section zzz (my.toml)", "Known: "]),
        ('[model]\nn_head = "4"\n', ["model.n_head = '4' (my.toml:2)", "a whole number"]),
        ("[model]\nn_head = 4.0\n", ["model.n_head = 4.0 (my.toml:2)", "a whole number"]),
        ("[model]\nn_head = true\n", ["model.n_head = True (my.toml:2)", "a whole number"]),
        ("[model]\ndropout = true\n", ["model.dropout = True (my.toml:2)", "a number"]),
        ("[data]\ncorpus = 3\n", ["data.corpus = 3 (my.toml:2)", "text in quotes"]),
        ("[optim]\nbetas = [0.9]\n", ["optim.betas = [0.9] (my.toml:2)", "two numbers"]),
        ("[optim]\nbetas = 0.9\n", ["optim.betas = 0.9 (my.toml:2)", "two numbers"]),
        (
            '[optim]\nschedule = "cosin"\n',
            ["optim.schedule = 'cosin' (my.toml:2)", "one of cosine, linear, wsd, constant"],
        ),
        ("[optim]\nschedule = []\n", ["optim.schedule = [] (my.toml:2)", "one of cosine"]),
        ("[train]\nsteps = \n", ["my.toml is not valid TOML", "line 2"]),
        ("[train]\nsteps = 3\nsteps = 4\n", ["my.toml is not valid TOML"]),
        (
            "[model]\nn_embd = 384\nn_head = 5\n",
            ["n_embd = 384", "n_head = 5 (my.toml:3)", "1, 2, 3, 4, 6, 8, 12"],
        ),
        ("[model]\nblock_size = 0\n", ["model.block_size = 0 is below 1 (my.toml:2)"]),
        ("[model]\ndropout = 1.0\n", ["model.dropout = 1.0 is outside [0, 1) (my.toml:2)"]),
        ("[model]\ndropout = nan\n", ["model.dropout = nan is outside [0, 1) (my.toml:2)"]),
        (
            "[train]\nsteps = 3\nepochs = 2\n",
            ["steps = 3 and epochs = 2.0", "(my.toml:3)", "one of steps, epochs and"],
        ),
        ("[train]\nepochs = 1\nminutes = 2\n", ["epochs = 1.0 and minutes = 2.0", "(my.toml:3)"]),
        ("[train]\nsteps = 0\n", ["train.steps = 0 doesn't state one length (my.toml:2)"]),
        (
            "[optim]\nlearning_rate = 1e-6\nmin_learning_rate = 1e-5\n",
            ["min_learning_rate = 1e-05 is above learning_rate = 1e-06"],
        ),
        (
            "[lora]\nalpha = 32.0\n",
            ["lora.alpha = 32 scales adapters, and lora.rank = 0 has none (my.toml:2)"],
        ),
        ("[optim]\nbetas = [0.9, 1.0]\n", ["optim.betas = [0.9, 1.0]", "(my.toml:2)"]),
        (
            "[train]\nmicro_batch_size = 5\n",
            ["micro_batch_size = 5 doesn't divide batch_size = 16 (my.toml:2)"],
        ),
    ],
)
def test_a_wrong_file_is_named_with_the_place_and_the_remedy(
    toml: str, said: list[str], here: Path
):
    Path("my.toml").write_text(toml, "utf-8")
    with pytest.raises(GroundupError) as raised:
        app(["train", "quickstart", "--config", "my.toml"], exit_on_error=False, print_error=False)
    for part in said:
        assert part in str(raised.value)
    assert not Path("runs").exists()


BOUNDS = {
    "data.validation_fraction": (0.0, 0.95),
    "optim.learning_rate": (0.0, float("inf")),
    "optim.min_learning_rate": (-1e-9, float("nan")),
    "optim.warmup_steps": (-1, 2**31),
    "optim.weight_decay": (-0.1, float("inf")),
    "optim.clip_norm": (-1.0, float("nan")),
    "lora.rank": (-1, 2**31),
    "lora.alpha": (0.0, float("nan")),
    "train.steps": (-1, 2**31),
    "train.epochs": (-0.5, float("nan")),
    "train.minutes": (-1.0, float("inf")),
    "train.batch_size": (0, -4),
    "train.micro_batch_size": (-1, -2),
    "train.seed": (-1, 2**63),
    "train.threads": (-1, 10_000),
    "train.keep_checkpoints": (0, -1),
    "eval.every": (-1, 2**31),
    "eval.tokens": (-1, 2**31),
    "eval.train_tokens": (-1, 2**31),
    "eval.patience": (-1, 2**31),
    "eval.sample_length": (-1, 2**31),
    "eval.task_every": (-1, 2**31),
    "eval.task_items": (-1, 2**31),
    "model.block_size": (0, -1),
    "model.n_layer": (0, -1),
    "model.n_head": (0, -1),
    "model.n_embd": (0, -1),
    "model.dropout": (-0.1, 1.0),
    "model.n_kv_head": (-1, -2),
    "model.head_dim": (-2, 3),
    "model.n_inner": (-1, -2),
    "model.rope_theta": (0.0, -1.0),
    "optim.muon_learning_rate": (0.0, -1.0),
    "optim.muon_momentum": (-0.1, 1.0),
    "optim.decay_share": (0.0, 1.1),
    "optim.betas": ((-0.1, 0.9), (0.9, 1.0)),
}


def test_every_number_has_bounds():
    numbers = {
        f"{section}.{key}"
        for section in SECTIONS
        for key, (kind, _) in field_types(section).items()
        if section != "about" and (kind in (int, float) or get_origin(kind) is tuple)
    }
    assert numbers == set(BOUNDS)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, pair in BOUNDS.items() for value in pair]
)
def test_a_number_out_of_bounds_is_refused_by_name(field: str, value: Any):
    section, key = field.split(".")
    with pytest.raises(RecipeError) as raised:
        load_recipe(packaged("quickstart"), overrides({section: {key: value}}))
    assert f"{section}.{key} = " in str(raised.value)
    assert f"(--{section}.{key})".replace("_", "-") in str(raised.value)


def test_the_command_refuses_in_one_line(tmp_path: Path):
    (tmp_path / "my.toml").write_text("[model]\nn_layr = 3\n", "utf-8")
    line = error_line(groundup("train", "--config", "my.toml", *TINY, folder=tmp_path))
    assert line == "groundup: unknown key model.n_layr (my.toml:2). Did you mean model.n_layer?"
    missing = error_line(groundup("train", "--config", "no.toml", folder=tmp_path))
    assert "no.toml doesn't exist" in missing
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    assert "latin.toml can't be read as a recipe" in error_line(
        groundup("train", "--config", "latin.toml", folder=tmp_path)
    )
    assert "can't be read" in error_line(groundup("train", "--config", ".", folder=tmp_path))
    # not the recipe's minutes instead
    zero = error_line(groundup("train", "--steps", 0, folder=tmp_path))
    assert "train.steps = 0 doesn't state one length (--train.steps)" in zero


# -- layers


def test_a_file_goes_over_the_packaged_and_flags_over_the_file(here: Path):
    Path("my.toml").write_text(
        "[model]\nn_layer = 1\nn_embd = 24\n[train]\nbatch_size = 2\nsteps = 9\n", "utf-8"
    )
    flags = [
        "--model.n-embd",
        48,
        "--steps",
        1,
        "--seed",
        7,
        "--corpus",
        "text.txt",
        "--train.threads",
        1,
    ]
    command("train", "bigram", "--config", "my.toml", *flags, "--optim.betas", 0.5, 0.75)
    recorded = tomllib.loads(Path("runs/my-1/recipe.toml").read_text("utf-8"))
    bigram = load_recipe(packaged("bigram"))
    assert recorded["model"]["architecture"] == "bigram"  # from the packaged recipe
    assert recorded["optim"]["learning_rate"] == bigram.optim.learning_rate
    # from the file
    assert (recorded["model"]["n_layer"], recorded["train"]["batch_size"]) == (1, 2)
    # flags
    assert (recorded["model"]["n_embd"], recorded["train"]["steps"], recorded["train"]["seed"]) == (
        48,
        1,
        7,
    )
    assert recorded["optim"]["betas"] == [0.5, 0.75]
    assert recorded["data"]["corpus"] == "text.txt"


def test_without_a_recipe_a_file_goes_over_the_defaults():
    recipe = load_recipe(parse_toml("[train]\nsteps = 3\n", "my.toml"))
    assert recipe == replace(Recipe(), train=replace(Recipe().train, steps=3))


@pytest.mark.parametrize("below", ["steps = 10", "epochs = 1.5", "minutes = 2"])
@pytest.mark.parametrize(("length", "value"), [("steps", 7), ("epochs", 0.5), ("minutes", 3.0)])
def test_a_length_replaces_another_below(below: str, length: str, value: float):
    recipe = load_recipe(
        parse_toml(f"[train]\n{below}\n", "a.toml"), Layer({"train": {length: value}}, "b.toml")
    )
    lengths = {
        "steps": recipe.train.steps,
        "epochs": recipe.train.epochs,
        "minutes": recipe.train.minutes,
    }
    assert {name for name, given in lengths.items() if given} == {length}
    assert lengths[length] == value


def test_a_layer_that_says_nothing_of_the_length_keeps_it():
    recipe = load_recipe(packaged("quickstart"), overrides({"train": {"seed": 3}}))
    assert recipe.train.minutes == load_recipe(packaged("quickstart")).train.minutes


# -- lengths become steps


def test_epochs_are_resolved_to_steps_that_see_the_text_so_often(here: Path):

    command("train", "--corpus", "text.txt", "--train.epochs", 0.25, *TINY)
    recorded = tomllib.loads(Path("runs/quickstart-1/recipe.toml").read_text("utf-8"))["train"]
    training = json.loads(Path("runs/quickstart-1/run.json").read_text("utf-8"))["corpus"][
        "training_tokens"
    ]
    assert (recorded["epochs"], recorded["minutes"]) == (0.0, 0.0)
    assert recorded["steps"] == len(metrics(Path("runs/quickstart-1")))
    assert recorded["steps"] * 4 * 16 == pytest.approx(0.25 * training, rel=0.02)


def test_minutes_are_measured_once_and_leave_no_trace(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(Costs, "steps_within", lambda *_: 2)
    command(
        "train", "--corpus", "text.txt", "--train.minutes", 0.005, "--model.dropout", 0.1, *TINY
    )
    recorded = tomllib.loads(Path("runs/quickstart-1/recipe.toml").read_text("utf-8"))["train"]
    steps = recorded["steps"]
    assert (recorded["minutes"], recorded["epochs"]) == (0.0, 0.0)
    assert "0.005 minutes on this machine are 2 steps\n" in capsys.readouterr().out
    assert steps == 2  # too few to decide the length once more
    command("train", "--corpus", "text.txt", "--steps", steps, "--model.dropout", 0.1, *TINY)
    times = {"tokens_per_second", "seconds"}
    by_minutes, by_steps = (
        [
            {key: value for key, value in line.items() if key not in times}
            for kind in ("step", "evaluation")
            for line in metrics(Path("runs") / run, kind)
        ]
        for run in ("quickstart-1", "quickstart-2")
    )
    assert by_minutes == by_steps
    weights = [
        next(Path("runs", run).glob("checkpoints/latest/model.safetensors"))
        for run in ("quickstart-1", "quickstart-2")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# -- TOML there and back


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    number = st.floats(allow_nan=False)
    texts = st.text(st.characters(exclude_categories=["Cs"]))
    return {int: st.integers(-(2**63), 2**63 - 1), float: number, str: texts}.get(
        kind, st.tuples(number, number)
    )


def sections_of(name: str) -> st.SearchStrategy[Any]:
    """Any content of a section."""
    return st.builds(
        SECTIONS[name], **{key: values_of(kind) for key, (kind, _) in field_types(name).items()}
    )


@given(st.builds(Recipe, **{name: sections_of(name) for name in SECTIONS if name != "about"}))
def test_every_recipe_comes_back_from_its_toml(recipe: Recipe):
    tables = parse_toml(recipe.to_toml(), "again").tables
    again = Recipe(**{name: SECTIONS[name](**values) for name, values in tables.items()})
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()


def test_about_is_no_part_of_the_record():
    assert "about" not in tomllib.loads(load_recipe(packaged("bigram")).to_toml())
    assert {field.name for field in fields(Recipe)} == {*tomllib.loads(Recipe().to_toml()), "about"}
