"""`groundup bench` and `groundup plan` at the border that a user touches, and the arithmetic
inside.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commands import flags, groundup, write_text
from conftest import TINY, error_line
from groundup.console import duration
from groundup.errors import RecipeError
from groundup.machine import memory
from groundup.profiling.bench import PHASES, bench
from groundup.profiling.estimate import ACTIVATION_BYTES, GPUS, MFU, estimate
from groundup.profiling.plan import Memory, memory_of, plan, step_seconds, steps_of
from groundup.profiling.synthetic import synthetic_dataset
from groundup.recipes.files import load_recipe, overrides, packaged
from groundup.recipes.schema import Recipe
from groundup.training import length
from groundup.training.costs import Costs
from groundup.training.periodic import PeriodicEvaluation
from groundup.training.session import Session
from groundup.training.setup import build_trainer
from groundup.training.trainer import PhaseClock, Trainer

MUON = {"--model.architecture": "modern", "--optim.optimizer": "muon"}


def tiny(**train: Any) -> Recipe:
    """A recipe of four sequences a step."""
    shape = {"architecture": "gpt2", "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16}
    chosen = {
        "steps": 10,
        "batch_size": 4,
        "precision": "float32",
        "compile": "off",
        "device": "cpu",
        "threads": 1,
    }
    return load_recipe(
        packaged("shakespeare-cpu"), overrides({"model": shape, "train": chosen | train})
    )


def tiny_trainer() -> Trainer:
    return build_trainer(tiny(), synthetic_dataset(tiny(), 30), Session())


def answer(*args: object, folder: Path) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    finished = groundup(*args, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize(
    "changes", [{}, MUON, {"--train.micro-batch-size": "2"}], ids=["gpt2", "modern", "micro"]
)
def test_bench_measures_every_phase_without_a_corpus(
    changes: dict[str, object], tmp_path: Path
) -> None:
    words = [
        word for word in flags({"--corpus": "none"} | changes) if word not in ("--corpus", "none")
    ]
    found = answer("bench", "shakespeare-cpu", "--repeat", 3, *words, folder=tmp_path)
    assert found["phases"].keys() == set(PHASES)
    assert all(found["phases"][phase] > 0 for phase in ("data", "forward", "backward", "optimizer"))
    assert found["tokens_per_second"] == pytest.approx(
        found["tokens_per_step"] / found["step_seconds"]
    )
    operations = found["operations_per_token"] * found["tokens_per_second"]
    assert found["mfu"] == pytest.approx(operations / found["matmul_peak"])
    assert found["tokens_per_step"] == 4 * 16
    assert found["peak_memory"] > 50e6
    assert not (tmp_path / "runs").exists()


def test_bench_shows_a_table(tmp_path: Path) -> None:
    finished = groundup("bench", "--repeat", 2, "--vocab-size", 300, *TINY, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    for shown in ("tokens/s", "forward", "optimizer", "MFU", "peak memory", "context 16"):
        assert shown in finished.stdout


def test_a_clock_sees_every_phase_and_changes_nothing() -> None:
    begun: list[str] = []

    class Recorder(PhaseClock):
        def begin(self, phase: str) -> None:
            begun.append(phase)

    timed, plain = tiny_trainer(), tiny_trainer()
    first = timed.train_step(0, Recorder()).loss
    assert begun == ["data", "forward", "backward", "optimizer", "rest"]
    assert [first, timed.train_step(1).loss] == [plain.train_step(0).loss, plain.train_step(1).loss]
    assert len(begun) == 5, "a step that is given no clock tells nobody"


def test_plan_reads_the_corpus_and_predicts(tmp_path: Path) -> None:
    write_text(tmp_path)
    found = answer("plan", "--corpus", "text.txt", "--steps", 12, *TINY, folder=tmp_path)
    assert found["steps"] == 12
    assert found["time"]["training"] == pytest.approx(12 * found["time"]["step"])
    # after 0, 5, 10 and 12 steps; before the first one nothing is written
    time = found["time"]
    reports = 4 * time["evaluation"] + 3 * (time["sample"] + time["checkpoint"])
    assert time["total"] == pytest.approx(time["training"] + reports)
    assert min(time["evaluation"], time["sample"], time["checkpoint"]) > 0.0
    assert time["scores"] == 0.0
    left = {path.name for path in tmp_path.iterdir() if not path.suffix.startswith(".std")}
    assert left == {"text.txt"}
    assert found["memory"]["largest_micro_batch"] == 4
    assert found["memory"]["fixed"] <= found["memory"]["peak"] < found["memory"]["available"]
    shown = groundup(
        "plan",
        "--corpus",
        "text.txt",
        "--steps",
        12,
        *TINY,
        "--train.micro-batch-size",
        1,
        folder=tmp_path,
    )
    assert "4 x 1 sequences" in shown.stdout
    assert "with all that comes on the way" in shown.stdout


def test_plan_knows_the_task_on_the_way(tmp_path: Path) -> None:
    write_text(tmp_path)
    item = {"context": "the quick", "endings": [" brown", " fox"], "label": 0}
    (tmp_path / "items.jsonl").write_text(200 * (json.dumps(item) + "\n"), "utf-8")
    words: list[object] = ["plan", "--corpus", "text.txt", "--steps", 12, *TINY]
    task = ["--eval.task", "choices", "--eval.task-file", "items.jsonl", "--eval.task-items", 0]
    found = answer(*words, *task, "--eval.task-every", 6, folder=tmp_path)
    time = found["time"]
    reports = 4 * time["evaluation"] + 3 * (time["sample"] + time["checkpoint"])
    # after 0, 6 and 12 steps
    expected = time["training"] + reports + 3 * time["scores"]
    assert time["total"] == pytest.approx(expected)
    assert time["scores"] > 0.0


def test_the_time_of_all_items_comes_from_some(monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = None
    asked: list[int] = []
    monkeypatch.setattr(
        PeriodicEvaluation, "run", lambda self, *_: asked.append(len(self.requests))
    )
    monkeypatch.setattr(length, "timed", lambda work, device: work() or 0.5)
    for count in (10, 1000):
        evaluation = PeriodicEvaluation(task, list(range(count)), every=3)
        seconds = length.seconds_of_scores(tiny_trainer(), evaluation)
        assert seconds == pytest.approx(0.5 * count / asked[-1])
    assert asked == [10, 67]  # each fifteenth of a thousand


def test_a_length_in_minutes_or_epochs_becomes_steps(tmp_path: Path) -> None:
    write_text(tmp_path)
    minutes = answer(
        "plan", "--corpus", "text.txt", "--train.minutes", 0.05, *TINY, folder=tmp_path
    )
    assert minutes["time"]["total"] == pytest.approx(3.0, rel=0.3)
    epochs = answer("plan", "--corpus", "text.txt", "--train.epochs", 2, *TINY, folder=tmp_path)
    assert epochs["steps"] * 64 == pytest.approx(2 * 5400, rel=0.02)


def test_what_does_not_fit_is_said_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of 10,000 bytes whose process takes 1,000, and 400 more for every sequence."""
    tried = []

    def peak_of_steps(trainer: Trainer) -> int:
        tried.append(trainer.recipe.train.batch_size)
        return 1_000 + 400 * tried[-1]

    monkeypatch.setattr("groundup.profiling.plan.peak_of_steps", peak_of_steps)
    monkeypatch.setattr(memory, "available", lambda _: 10_000)
    recipe = tiny(batch_size=40)
    tight = plan(recipe, synthetic_dataset(recipe, 30))
    assert tight.time is None
    assert tight.steps == 10
    assert tight.memory == Memory(1_000, 400, 17_000, 10_000, largest_micro_batch=20)
    assert max(tried) <= 4, "no more than a few sequences are ever tried"
    monkeypatch.setattr(memory, "available", lambda _: 1_500)
    assert plan(recipe, synthetic_dataset(recipe, 30)).memory.largest_micro_batch == 0


@given(
    fixed=st.integers(0, 10**9),
    each=st.integers(0, 10**9),
    available=st.integers(1, 10**10),
    batch=st.integers(1, 300),
)
def test_the_largest_micro_batch_divides_the_batch_and_fits(
    fixed: int, each: int, available: int, batch: int
) -> None:
    largest = memory_of(tiny(batch_size=batch), fixed, each, 0, available).largest_micro_batch
    fits = [
        rows
        for rows in range(1, batch + 1)
        if batch % rows == 0 and fixed + rows * max(1, each) <= 0.9 * available
    ]
    assert largest == max(fits, default=0)


def test_further_micro_steps_repeat_all_but_the_update() -> None:
    trainer = tiny_trainer()
    measured = replace(
        bench(trainer, 1),
        step_seconds=1.0,
        phases={"data": 0.1, "forward": 0.2, "backward": 0.4, "optimizer": 0.2, "rest": 0.1},
    )
    whole = tiny(batch_size=12)
    assert step_seconds(whole, trainer, measured) == pytest.approx(1.0 + 2 * 0.7)


def test_steps_of_a_recipe_in_minutes_that_does_not_fit_are_unknown() -> None:
    trainer = tiny_trainer()
    minutes = load_recipe(packaged("shakespeare-cpu"), overrides({"train": {"minutes": 1.0}}))
    assert steps_of(minutes, trainer, None) == 0
    assert steps_of(minutes, trainer, Costs(step=0.5)) == 120


def test_on_paper_it_is_the_formula(tmp_path: Path) -> None:
    found = answer("plan", "shakespeare", "--gpu", "h100", "--gpus", 4, folder=tmp_path)
    tokens = 5000 * 64 * 256
    assert found["tokens"] == tokens
    assert found["seconds"] == pytest.approx(
        found["operations_per_token"] * tokens / (4 * MFU * 989e12)
    )
    assert found["fixed_memory"] == 16 * found["parameters"]
    assert found["peak_memory"] == found["fixed_memory"] + 16 * ACTIVATION_BYTES * 256 * 384 * 7
    assert found["largest_micro_batch"] == 16
    assert len(found["assumptions"]) == 5
    shown = groundup("plan", "shakespeare", "--gpu", "A100", folder=tmp_path)
    assert "assumption 1" in shown.stdout
    # its length is in minutes
    assert estimate(load_recipe(packaged("quickstart")), 114, "l40s", 1).seconds is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "nope"], "unknown recipe nope"),
        (["bench", "--repeat", "0"], "--repeat 0 must be at least 1"),
        (["bench", "--vocab-size", "-1"], "--vocab-size -1 isn't the size of a vocabulary"),
        (["plan", "--corpus", "missing.txt"], "missing.txt"),
        (["plan", "--gpus", "2"], "--gpus is for an estimate on paper"),
        (["plan", "--gpu", "abacus"], "--gpu abacus isn't in the table. Known: b200"),
        (["plan", "shakespeare", "--gpu", "h100", "--gpus", "0"], "--gpus 0 is below 1"),
        (["plan", "shakespeare", "--gpu", "h100", "--gpus", "7"], "can't be divided by 7 GPUs"),
        (
            [
                "plan",
                "shakespeare",
                "--gpu",
                "h100",
                "--train.micro-batch-size",
                "64",
                "--gpus",
                "2",
            ],
            "by 2 GPUs x micro",
        ),
        (["plan", "--train.epochs", "2", "--vocab-size", "9"], "are passes over a corpus"),
        (["plan", "--eval.task-every", "2", "--vocab-size", "9"], "asks for a task's texts"),
        (["plan", "--size", "0"], "--size 0 is below 1"),
    ],
)
def test_a_wrong_question_is_answered_in_one_line(
    words: list[str], said: str, tmp_path: Path
) -> None:
    assert said in error_line(groundup(*words, folder=tmp_path))


def test_a_recipe_without_a_vocabulary_has_to_be_given_one() -> None:
    with pytest.raises(RecipeError, match="--vocab-size 0 isn't the size"):
        synthetic_dataset(Recipe(), 0)
    with pytest.raises(RecipeError, match="give --vocab-size"):
        estimate(Recipe().with_steps(1), 0, next(iter(GPUS)), 1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (250, "4 min 10 s"),
        (12_000, "3 h 20 min"),
        (190_800, "2 d 5 h"),
    ],
)
def test_seconds_for_reading(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_random_tokens_are_of_the_stated_vocabulary() -> None:
    text = synthetic_dataset(tiny(), 70_000)
    training, validation = text.parts[0].training.streams[0], text.parts[0].validation.streams[0]
    assert training.dtype.itemsize == 4
    assert training.max() < text.tokenizer.vocab_size == 70_000
    assert torch.from_numpy(validation.astype("int64")).unique().numel() > 50_000
