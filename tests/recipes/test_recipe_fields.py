"""Every field of a recipe does something: a changed value changes the run as the table below says,
field by field.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import some_text
from groundup.cli.main import app
from groundup.console import short_count
from groundup.errors import MachineError
from groundup.recipes.files import load_recipe, packaged, packaged_names
from groundup.recipes.schema import SECTIONS, field_types
from invented_items import write_items
from shard_files import documents as documents_of
from shard_files import learned, write_shards

BASE = {
    "model.architecture": "gpt2",
    "model.block_size": 16,
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.dropout": 0.1,
    "data.corpus": "text.txt",
    "optim.optimizer": "adamw",
    "optim.learning_rate": 3e-3,
    "optim.schedule": "linear",
    "optim.warmup_steps": 1,
    "train.steps": 4,
    "train.batch_size": 4,
    "train.device": "cpu",
    "train.precision": "float32",
    "train.compile": "off",
    "train.threads": 1,
    "eval.every": 2,
    "eval.tokens": 0,
    "eval.train_tokens": 64,
    "eval.sample_length": 10,
}


MODERN: dict[str, Any] = {"model__architecture": "modern", "model__dropout": 0.0}


@dataclass(frozen=True)
class Seen:
    """What a run left behind."""

    recipe: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    config: dict[str, Any]
    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    samples: list[str]
    checkpoints: list[str]
    weights: bytes
    printed: str
    files: set[str]

    def all(self, field: str) -> list[Any]:
        """A field of every step."""
        return [line[field] for line in self.steps]

    def losses(self) -> list[float]:
        """The validation losses."""
        return [line["validation_loss"] for line in self.evaluations]


Runner = Callable[..., Seen]


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Runner:
    """Train the base recipe with some fields changed, all given as flags: what it left behind."""
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    (tmp_path / "other.txt").write_text(some_text()[::-1], "utf-8")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    # The picture and the long goodbye take most of a tiny run's time, and no field of a recipe
    # changes them.
    monkeypatch.setattr("groundup.training.journal.plot_losses", lambda *_: None)
    monkeypatch.setattr("groundup.cli.training.FINAL_SAMPLE", 5)

    def run(**changes: Any) -> Seen:
        values = BASE | {name.replace("__", "."): value for name, value in changes.items()}
        if {"train.epochs", "train.minutes"} & set(values):
            del values["train.steps"]
        words = ["train", "quickstart"]
        for name, value in values.items():
            parts = value if isinstance(value, tuple) else (value,)
            words += [f"--{name}".replace("_", "-"), *map(str, parts)]
        with pytest.raises(SystemExit) as left:
            app(words, exit_on_error=False, print_error=False)
        assert left.value.code == 0
        folder = max(Path("runs").iterdir(), key=lambda path: int(path.name.partition("-")[2]))
        return seen(folder, capsys.readouterr().out)

    yield run
    torch.set_num_threads(threads)


def seen(run: Path, printed: str) -> Seen:
    """Read a run folder."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    samples = (run / "samples.txt").read_text("utf-8") if (run / "samples.txt").exists() else ""
    latest = run / "checkpoints" / "latest"
    # of a model elsewhere: then there is nothing but them
    adapters = (latest / "adapter_config.json").exists()
    return Seen(
        recipe=tomllib.loads((run / "recipe.toml").read_text("utf-8")),
        facts=json.loads((run / "run.json").read_text("utf-8")),
        config=json.loads(
            (latest / ("adapter_config.json" if adapters else "config.json")).read_text("utf-8")
        ),
        steps=[line for line in lines if line["kind"] == "step"],
        evaluations=[line for line in lines if line["kind"] == "evaluation"],
        scores=[line for line in lines if line["kind"] in ("hellaswag", "choices")],
        samples=re.split(r"======== step \d+ .*\n", samples)[1:],
        checkpoints=sorted(path.name for path in (run / "checkpoints").glob("step-*")),
        weights=(
            latest / ("adapter_model.safetensors" if adapters else "model.safetensors")
        ).read_bytes(),
        printed=printed,
        files={path.name for path in run.iterdir()},
    )


# A row for every field: its test trains, changes the field, and says what must differ and what must
# not.
ROWS: dict[str, Callable[[Runner], None]] = {}


def row(field: str) -> Callable[[Callable[[Runner], None]], Callable[[Runner], None]]:
    """Enter a row into the table."""

    def enter(test: Callable[[Runner], None]) -> Callable[[Runner], None]:
        assert field not in ROWS
        ROWS[field] = test
        return test

    return enter


@row("model.architecture")
def architecture(train: Runner) -> None:
    made = {name: train(model__architecture=name) for name in ("bigram", "readable", "gpt2")}
    made["modern"] = train(**MODERN)
    assert {name: run.config["groundup_model"] for name, run in made.items()} == {
        name: name for name in made
    }
    assert made["bigram"].facts["parameters"] == made["bigram"].facts["vocab_size"] ** 2
    assert made["readable"].facts["parameters"] == made["gpt2"].facts["parameters"]


@row("model.block_size")
def block_size(train: Runner) -> None:
    run = train(model__block_size=8)
    assert run.config["n_positions"] == 8
    assert run.all("tokens") == [32, 64, 96, 128]


@row("model.n_layer")
def n_layer(train: Runner) -> None:
    one, three = (train(model__n_layer=layers) for layers in (1, 3))
    assert (one.config["n_layer"], three.config["n_layer"]) == (1, 3)
    assert three.facts["parameters"] - one.facts["parameters"] == 2 * (12 * 16 * 16 + 13 * 16)


@row("model.n_head")
def n_head(train: Runner) -> None:
    two, four = (train(model__n_head=heads, model__dropout=0.0) for heads in (2, 4))
    assert (two.config["n_head"], four.config["n_head"]) == (2, 4)
    assert two.facts["parameters"] == four.facts["parameters"]
    assert two.all("loss") != four.all("loss")


@row("model.n_embd")
def n_embd(train: Runner) -> None:
    assert train(model__n_embd=8).config["n_embd"] == 8


@row("model.dropout")
def dropout(train: Runner) -> None:
    without, half = train(model__dropout=0.0), train(model__dropout=0.5)
    assert half.config["resid_pdrop"] == 0.5
    assert without.losses()[0] == half.losses()[0]  # nothing is dropped where losses are measured
    assert without.all("loss")[0] != half.all("loss")[0]


@row("model.n_kv_head")
def n_kv_head(train: Runner) -> None:
    own, shared = train(**MODERN), train(model__n_kv_head=1, **MODERN)
    assert (own.config["num_key_value_heads"], shared.config["num_key_value_heads"]) == (2, 1)
    # layers x (keys, values) of a head
    assert own.facts["parameters"] - shared.facts["parameters"] == 2 * (2 * 8 * 16)


@row("model.head_dim")
def head_dim(train: Runner) -> None:
    own, wide = train(**MODERN), train(model__head_dim=20, **MODERN)
    assert (own.config["head_dim"], wide.config["head_dim"]) == (8, 20)


@row("model.n_inner")
def n_inner(train: Runner) -> None:
    own, wide = train(**MODERN), train(model__n_inner=50, **MODERN)
    # 8/3 of 16, rounded up
    assert (own.config["intermediate_size"], wide.config["intermediate_size"]) == (48, 50)


@row("model.rope_theta")
def rope_theta(train: Runner) -> None:
    usual, slow = train(**MODERN), train(model__rope_theta=1e6, optim__learning_rate=0.03, **MODERN)
    # quickstart has 1000
    assert (usual.config["rope_theta"], slow.config["rope_theta"]) == (1e3, 1e6)
    assert train(optim__learning_rate=0.03, **MODERN).losses() != slow.losses()


@row("model.head")
def head(train: Runner) -> None:
    tied, untied = (train(model__head=head, **MODERN) for head in ("tied", "untied"))
    assert (tied.config["tie_word_embeddings"], untied.config["tie_word_embeddings"]) == (
        True,
        False,
    )
    assert untied.facts["parameters"] - tied.facts["parameters"] == 16 * tied.facts["vocab_size"]


@row("data.corpus")
def corpus(train: Runner) -> None:
    text, other = train(), train(data__corpus="other.txt")
    assert (text.facts["corpus"]["name"], other.facts["corpus"]["name"]) == (
        "text.txt",
        "other.txt",
    )
    assert text.facts["corpus"]["fingerprint"] != other.facts["corpus"]["fingerprint"]
    assert text.all("batch_hash") != other.all("batch_hash")


@row("data.column")
def column(train: Runner) -> None:
    text = Path("text.txt").read_text("utf-8")
    Path("rows.jsonl").write_text(json.dumps({"body": text, "text": "x" * 900}) + "\n", "utf-8")
    usual, chosen = (
        train(data__corpus="rows.jsonl"),
        train(data__corpus="rows.jsonl", data__column="body"),
    )
    assert usual.facts["vocab_size"] == 1
    assert chosen.facts["corpus"]["fingerprint"] == train().facts["corpus"]["fingerprint"]


@row("data.tokenizer")
def tokenizer(train: Runner) -> None:
    characters, automatic, gpt2 = (
        train(data__tokenizer=name).facts for name in ("characters", "auto", "gpt2")
    )
    assert characters["vocab_size"] == automatic["vocab_size"] < 100
    assert gpt2["vocab_size"] == 50_257


@row("data.documents")
def documents(train: Runner) -> None:
    write_shards(Path("shards"), learned(), documents_of())
    cut, whole = (train(data__corpus="shards", data__documents=kind) for kind in ("cut", "whole"))
    assert cut.facts["corpus"] == whole.facts["corpus"]
    assert cut.all("batch_hash") != whole.all("batch_hash")


@row("data.validation_corpus")
def validation_corpus(train: Runner) -> None:
    usual, held_out = train(), train(data__validation_corpus="other.txt")
    assert held_out.facts["corpus"]["training_tokens"] == 6000
    assert held_out.facts["corpus"]["validation_tokens"] == len(
        Path("other.txt").read_text("utf-8")
    )
    assert held_out.facts["corpus"]["fingerprint"] != usual.facts["corpus"]["fingerprint"]


@row("data.validation_fraction")
def validation_fraction(train: Runner) -> None:
    split = train(data__validation_fraction=0.25).facts["corpus"]
    assert (split["training_tokens"], split["validation_tokens"]) == (4500, 1500)


@row("optim.learning_rate")
def learning_rate(train: Runner) -> None:
    run = train(optim__learning_rate=2e-3, optim__schedule="constant")
    assert run.all("learning_rate") == [1e-3, 2e-3, 2e-3, 2e-3]


@row("optim.optimizer")
def optimizer(train: Runner) -> None:
    adamw, muon = train(), train(optim__optimizer="muon")
    assert adamw.all("loss")[0] == muon.all("loss")[0]
    assert adamw.all("loss")[-1] != muon.all("loss")[-1]
    assert adamw.all("learning_rate") == muon.all("learning_rate")


@row("optim.muon_learning_rate")
def muon_learning_rate(train: Runner) -> None:
    still, usual = (
        train(optim__optimizer="muon", optim__muon_learning_rate=rate) for rate in (1e-12, 0.02)
    )
    assert still.all("learning_rate") == usual.all("learning_rate")
    assert abs(still.all("loss")[-1] - usual.all("loss")[-1]) > 1e-3
    # adamw knows nothing of it
    assert train(optim__muon_learning_rate=0.5).weights == train().weights


@row("optim.muon_momentum")
def muon_momentum(train: Runner) -> None:
    usual, none = (
        train(optim__optimizer="muon", optim__muon_momentum=momentum) for momentum in (0.95, 0.0)
    )
    # the first update has no history, and no length but its own
    assert usual.all("loss")[:2] == none.all("loss")[:2]
    assert usual.all("loss")[-1] != none.all("loss")[-1]


@row("optim.decay_share")
def decay_share(train: Runner) -> None:
    whole, half = (train(optim__schedule="wsd", optim__decay_share=share) for share in (1.0, 0.5))
    assert whole.all("learning_rate") == train(optim__schedule="linear").all("learning_rate")
    assert half.all("learning_rate")[1:3] == [3e-3, 3e-3]


@row("optim.min_learning_rate")
def min_learning_rate(train: Runner) -> None:
    low, high = (
        train(optim__min_learning_rate=least).all("learning_rate") for least in (0.0, 1.5e-3)
    )
    assert low[:2] == high[:2]
    # linear from 3e-3, reaching the least after the last step
    assert low[2:] == pytest.approx([2e-3, 1e-3])
    assert high[2:] == pytest.approx([2.5e-3, 2e-3])


@row("optim.warmup_steps")
def warmup_steps(train: Runner) -> None:
    assert train(optim__warmup_steps=0).all("learning_rate")[0] == 3e-3
    assert train(optim__warmup_steps=2).all("learning_rate")[:3] == pytest.approx(
        [1e-3, 2e-3, 3e-3]
    )


@row("optim.schedule")
def schedule(train: Runner) -> None:
    rates = [
        train(optim__schedule=name).all("learning_rate")
        for name in ("cosine", "linear", "constant", "wsd")
    ]
    assert [rate[:2] for rate in rates] == [rates[0][:2]] * 4
    assert rates[0][2] > rates[1][2]  # a cosine stays up longer
    assert rates[2][1:] == [3e-3] * 3
    assert rates[3][2] == 3e-3  # the peak is held
    assert rates[3][3] < 3e-3


@row("optim.betas")
def betas(train: Runner) -> None:
    usual, other = train(), train(optim__betas=(0.5, 0.6))
    assert other.recipe["optim"]["betas"] == [0.5, 0.6]
    # the first update has no history
    assert usual.all("loss")[:2] == pytest.approx(other.all("loss")[:2], rel=1e-6)
    assert abs(usual.all("loss")[3] - other.all("loss")[3]) > 1e-5


@row("optim.weight_decay")
def weight_decay(train: Runner) -> None:
    without, strong = train(optim__weight_decay=0.0), train(optim__weight_decay=50.0)
    assert without.all("loss")[0] == strong.all("loss")[0]
    assert without.weights != strong.weights


@row("optim.clip_norm")
def clip_norm(train: Runner) -> None:
    without, loose, strict = (train(optim__clip_norm=norm) for norm in (0.0, 1e9, 1e-9))
    assert without.weights == loose.weights != strict.weights
    # as it was before clipping
    assert without.all("gradient_norm")[0] == strict.all("gradient_norm")[0] > 0.1
    # Where the clipped gradient is far below AdamW's epsilon the weights hardly move.
    assert abs(strict.losses()[-1] - strict.losses()[0]) < 0.1 * abs(
        loose.losses()[-1] - loose.losses()[0]
    )


@row("lora.rank")
def lora_rank(train: Runner) -> None:
    base = train(eval__every=4)
    whole, *runs = (train(train__init="runs/quickstart-1", lora__rank=rank) for rank in (0, 1, 4))
    assert whole.config["model_type"] == "gpt2"
    assert [run.config["r"] for run in runs] == [1, 4]
    assert [run.facts["parameters"] for run in (whole, *runs)] == [base.facts["parameters"]] * 3
    # Of each of two layers c_attn, c_proj, c_fc and c_proj: inputs and outputs, in widths of 16.
    assert [run.facts["trained_parameters"] for run in runs] == [
        rank * 2 * (4 + 2 + 5 + 5) * 16 for rank in (1, 4)
    ]
    # before the first step an adapter is nothing
    assert [run.losses()[0] for run in runs] == [base.losses()[-1]] * 2
    assert runs[0].losses()[-1] != runs[1].losses()[-1]


@row("lora.alpha")
def lora_alpha(train: Runner) -> None:
    train(eval__every=4)
    small, large = (
        train(train__init="runs/quickstart-1", lora__rank=2, lora__alpha=alpha)
        for alpha in (1.0, 64.0)
    )
    assert [run.config["lora_alpha"] for run in (small, large)] == [1, 64]
    assert small.losses()[0] == large.losses()[0]
    learned = [abs(run.losses()[-1] - run.losses()[0]) for run in (small, large)]
    assert learned[1] > 5 * learned[0]


@row("train.steps")
def steps(train: Runner) -> None:
    assert train(train__steps=3).all("step") == [1, 2, 3]


@row("train.epochs")
def epochs(train: Runner) -> None:
    run = train(train__epochs=0.05)
    assert (
        len(run.steps) == run.recipe["train"]["steps"] == round(0.05 * ((5400 - 1) // 16 - 1) / 4)
    )


@row("train.minutes")
def minutes(train: Runner) -> None:
    run = train(train__minutes=0.0001)
    assert len(run.steps) == run.recipe["train"]["steps"] >= 1
    assert "minutes on this machine are" in run.printed


@row("train.batch_size")
def batch_size(train: Runner) -> None:
    assert train(train__batch_size=6).all("tokens")[0] == 6 * 16


@row("train.micro_batch_size")
def micro_batch_size(train: Runner) -> None:
    whole, halves = train(), train(train__micro_batch_size=2)
    assert whole.all("batch_hash") == halves.all("batch_hash")
    assert whole.all("loss")[0] != halves.all("loss")[0]  # each half drops its own activations
    without = [
        train(model__dropout=0.0, train__micro_batch_size=rows).all("loss") for rows in (0, 1, 2)
    ]
    assert without[0] == pytest.approx(without[1], rel=1e-5)
    assert without[0] == pytest.approx(without[2], rel=1e-5)


@row("train.seed")
def seed(train: Runner) -> None:
    one, two = train(train__seed=1), train(train__seed=2)
    assert one.losses()[0] != two.losses()[0]
    assert one.all("batch_hash") != two.all("batch_hash")
    assert one.samples != two.samples


@row("train.device")
def device(train: Runner) -> None:
    assert train(train__device="auto").recipe["train"]["device"] in {"cpu", "cuda", "mps"}
    for name in ("nowhere", "xla") + (() if torch.cuda.is_available() else ("cuda",)):
        with pytest.raises(MachineError, match=f"device {name} can't be used"):
            train(train__device=name)


@row("train.precision")
def precision(train: Runner) -> None:
    made = {name: train(train__precision=name) for name in ("float32", "bfloat16", "float64")}
    assert {name: run.config["dtype"] for name, run in made.items()} == {
        "float32": "float32",
        "bfloat16": "float32",
        "float64": "float64",
    }
    losses = [run.losses()[0] for run in made.values()]
    assert len(set(losses)) == 3
    assert losses == pytest.approx([losses[0]] * 3, rel=0.05)
    assert train(train__precision="auto").recipe["train"]["precision"] in {"float32", "bfloat16"}


@row("train.compile")
def compiling(train: Runner) -> None:
    """A compiler that doesn't exist is enough to see that it is called, and that training goes on
    without it.
    """
    import torch._inductor.config as inductor

    missing = {
        "cpp.cxx": (None, "/no/such/compiler"),
        "fx_graph_cache": False,
        "force_disable_caches": True,
    }
    with inductor.patch(missing):
        tried = train(train__compile="on", model__architecture="bigram")
    assert "compiling" in tried.printed
    assert "torch.compile doesn't work here" in tried.printed
    assert tried.recipe["train"]["compile"] == "off"
    never = train(train__compile="off", model__architecture="bigram")
    assert "compil" not in never.printed
    assert never.all("loss") == tried.all("loss")
    # too short to win the time back
    assert train(train__compile="auto").recipe["train"]["compile"] == "off"


@row("train.threads")
def threads(train: Runner) -> None:
    assert train(train__threads=2).recipe["train"]["threads"] == torch.get_num_threads() == 2
    assert (
        train(train__threads=0).recipe["train"]["threads"]
        == torch.get_num_threads()
        <= (os.cpu_count() or 1)
    )


@row("train.keep_checkpoints")
def keep_checkpoints(train: Runner) -> None:
    every_step: dict[str, Any] = {"eval__every": 1, "train__steps": 4}
    assert train(train__keep_checkpoints=3, **every_step).checkpoints[-3:] == [
        f"step-{step:06d}" for step in (2, 3, 4)
    ]
    assert len(train(train__keep_checkpoints=1, **every_step).checkpoints) <= 2


@row("train.init")
def init(train: Runner) -> None:
    first = train(eval__every=4)
    second = train(train__init="runs/quickstart-1", train__seed=99)
    assert second.losses()[0] == first.losses()[-1]
    assert second.recipe["train"]["init"] == "runs/quickstart-1"


@row("train.log")
def log(train: Runner) -> None:
    assert train(train__log="tensorboard").files - train(train__log="none").files == {"tensorboard"}


@row("eval.every")
def every(train: Runner) -> None:
    for steps_between, expected in ((0, [4]), (1, [0, 1, 2, 3, 4]), (3, [0, 3, 4])):
        assert [line["step"] for line in train(eval__every=steps_between).evaluations] == expected


@row("eval.tokens")
def tokens(train: Runner) -> None:
    whole, sampled = train(), train(eval__tokens=32)
    assert whole.all("loss") == sampled.all("loss")
    assert whole.losses() != sampled.losses()
    assert train(eval__tokens=10**6).losses() == whole.losses()


@row("eval.train_tokens")
def train_tokens(train: Runner) -> None:
    some, none = train(), train(eval__train_tokens=0)
    assert [line["train_loss"] for line in none.evaluations] == [None] * 3
    assert some.losses() == none.losses()


@row("eval.patience")
def patience(train: Runner) -> None:
    frozen: dict[str, Any] = {
        "optim__learning_rate": 1e-12,
        "optim__min_learning_rate": 0.0,
        "optim__weight_decay": 0.0,
    }
    still: dict[str, Any] = frozen | {
        "eval__every": 1,
        "train__steps": 6,
        "train__precision": "float32",
    }
    assert len(train(eval__patience=0, **still).steps) == 6
    early = train(eval__patience=2, **still)
    assert len(early.steps) < 6
    assert "stopped early" in early.printed


@row("eval.sample_length")
def sample_length(train: Runner) -> None:
    some, none = train(eval__sample_length=33), train(eval__sample_length=0)
    assert [len(sample.removesuffix("\n\n")) for sample in some.samples] == [33, 33]
    assert none.samples == []
    assert some.weights == none.weights


SHORT_ITEM = {
    "ctx": "the quick",
    "endings": [" brown fox", " dog;", " a lazy", " over"],
    "label": 0,
}
ASKED: dict[str, Any] = {
    "eval__task_every": 2,
    "eval__task_file": "items.jsonl",
    "eval__task_items": 5,
}


@row("eval.task")
def task(train: Runner) -> None:
    """Of choices, an item may have any number of endings; of hellaswag it has an `ind`."""
    item = {"context": "the quick", "endings": [" brown fox", " dog;"], "label": 0}
    write_items(Path("mine.jsonl"), [item] * 8)
    write_items(Path("items.jsonl"), [SHORT_ITEM | {"ind": number} for number in range(8)])
    mine = {"eval__task": "choices", "eval__task_file": "mine.jsonl"}
    assert [line["kind"] for line in train(**ASKED | mine).scores] == ["choices"] * 3
    assert [line["kind"] for line in train(**ASKED).scores] == ["hellaswag"] * 3


@row("eval.task_every")
def task_every(train: Runner) -> None:
    write_items(Path("items.jsonl"), [SHORT_ITEM | {"ind": number} for number in range(8)])
    never = train()
    assert never.scores == []
    for steps_between, expected in ((1, [0, 1, 2, 3, 4]), (3, [0, 3, 4])):
        asked = train(**ASKED | {"eval__task_every": steps_between})
        assert [line["step"] for line in asked.scores] == expected
        assert asked.weights == never.weights


@row("eval.task_items")
def task_items(train: Runner) -> None:
    write_items(Path("items.jsonl"), [SHORT_ITEM | {"ind": number} for number in range(8)])
    assert [line["items"] for line in train(**ASKED).scores] == [5] * 3
    assert [line["items"] for line in train(**ASKED | {"eval__task_items": 0}).scores] == [8] * 3


@row("eval.task_file")
def task_file(train: Runner) -> None:
    """The first ending of eight right, and of other eight wrong, whichever is chosen."""
    write_items(Path("items.jsonl"), [SHORT_ITEM | {"ind": number} for number in range(8)])
    write_items(
        Path("others.jsonl"),
        [SHORT_ITEM | {"ind": number, "label": number % 4} for number in range(8)],
    )
    every: dict[str, Any] = ASKED | {"eval__task_items": 0}
    assert {line["right"] for line in train(**every).scores} <= {0, 8}
    assert {
        line["right"] for line in train(**every | {"eval__task_file": "others.jsonl"}).scores
    } == {2}


def test_every_field_has_a_row():
    known = {
        f"{section}.{key}"
        for section in SECTIONS
        if section != "about"
        for key in field_types(section)
    }
    assert set(ROWS) == known


@pytest.mark.parametrize("field", ROWS)
def test_a_field_does_what_it_says(field: str, train: Runner):
    ROWS[field](train)


@pytest.mark.parametrize("name", packaged_names())
def test_every_line_of_about_is_shown(name: str, capsys: pytest.CaptureFixture[str]):
    """The fields of [about] change no run: they are what the list of recipes shows, wrapped into
    its columns.
    """
    app(["recipes"], exit_on_error=False, print_error=False, result_action="return_value")
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.split()[:1] == [name])
    after = [
        number for number, line in enumerate(lines) if number > first and re.match(r" ?\S", line)
    ]
    words = " ".join(lines[first : min(after, default=len(lines))]).split()
    recipe = load_recipe(packaged(name))
    parameters = short_count(recipe.parameter_count(recipe.about.vocab_size))
    about = vars(recipe.about) | {
        "vocab_size": "from gpt2 its own" if recipe.train.init else parameters
    }
    assert set(about) == set(field_types("about"))
    for shown in about.values():
        assert set(shown.split()) <= set(words)


def test_every_field_is_a_flag_with_its_line_of_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        app(["train", "--help"], exit_on_error=False, print_error=False)
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    for field in ROWS:
        assert f"--{field} ".replace("_", "-") in shown, field
        section, key = field.split(".")
        help_line = field_types(section)[key][1]
        assert help_line.split()[0] in shown
    assert "--about" not in shown
