"""HellaSwag while a run trains: the scores are those of its checkpoints, and the run is the same
run without them.
"""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import straightforward
from commands import (
    assert_same_training,
    checkpoint,
    final_files,
    flags,
    groundup,
    metrics,
    started,
    trained,
    wait_for_step,
    write_text,
)
from conftest import Cli, error_line
from groundup import load
from groundup.data.choice_items import spread
from groundup.evaluation.statistics import wilson
from groundup.runs.folder import RunFolder
from groundup.runs.records import TaskRecord
from groundup.training.tensorboard import TensorBoard
from invented_items import invented, tokenizer, write_items

ITEMS = invented(30, seed=9)
SCORED: dict[str, object] = {"--eval.hellaswag-every": 4, "--eval.hellaswag-file": "items.jsonl"}
KINDS: dict[str, dict[str, object]] = {
    "dropout": {"--model.dropout": 0.2},
    "accumulation": {
        "--model.architecture": "readable",
        "--model.dropout": 0.1,
        "--train.micro-batch-size": 2,
    },
    "modern": {
        "--model.architecture": "modern",
        "--optim.optimizer": "muon",
        "--train.precision": "bfloat16",
    },
    "bigram": {"--model.architecture": "bigram"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A text, items, and a tokenizer for both."""
    write_text(tmp_path)
    write_items(tmp_path / "items.jsonl", ITEMS)
    (tmp_path / "bpe").mkdir()
    tokenizer().save(tmp_path / "bpe")
    return tmp_path


def arguments(name: str, *changes: dict[str, object]) -> list[str]:
    """Ten steps of a model that has room for the items, evaluated in the middle and at the end."""
    values: dict[str, object] = {
        "--name": name,
        "--steps": 10,
        "--eval.every": 5,
        "--eval.sample-length": 0,
    }
    values |= {"--model.block-size": 128, "--data.tokenizer": "bpe", "--eval.hellaswag-items": 9}
    for some in changes:
        values |= some
    return flags(values)


def right_by_hand(model: Any, items: list[dict[str, Any]]) -> int:
    """How many of the items the slow and simple scorer has the model choose rightly, by
    completion's acc_norm.
    """
    choices = [
        straightforward.choices(model, tokenizer(), item, "completion")["acc_norm"]
        for item in items
    ]
    return sum(choice == item["label"] for choice, item in zip(choices, items, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_asking_changes_nothing_of_the_run(kind: str, folder: Path):
    """Weights and optimizer, bit for bit; and the mode: a run whose dropout stayed off would differ
    after step 4.
    """
    trained(*arguments("asked", KINDS[kind], SCORED), folder=folder)
    trained(*arguments("left", KINDS[kind], SCORED, {"--eval.hellaswag-every": 0}), folder=folder)
    runs = folder / "runs"
    assert_same_training(runs / "asked", runs / "left", 10)
    assert metrics(runs / "left", "hellaswag") == []
    assert [line["step"] for line in metrics(runs / "asked", "hellaswag")] == [0, 4, 8, 10]
    for line, other in zip(
        *(metrics(runs / name, "evaluation") for name in ("asked", "left")), strict=True
    ):
        assert line["validation_loss"] == other["validation_loss"]


def test_a_score_is_that_of_the_checkpoint(folder: Path):
    printed = trained(
        *arguments("run", SCORED, {"--eval.hellaswag-every": 5}), folder=folder
    ).stdout
    run, chosen = folder / "runs" / "run", [ITEMS[(2 * place + 1) * 30 // 18] for place in range(9)]
    lines = metrics(run, "hellaswag")
    assert [line["step"] for line in lines] == [0, 5, 10]
    for line in lines[1:]:
        model, _ = load(checkpoint(run, line["step"]))
        assert line["right"] == right_by_hand(model, chosen)
    for line in lines:
        assert (line["convention"], line["measure"], line["items"]) == ("completion", "acc_norm", 9)
        assert line["accuracy"] == line["right"] / 9
        assert line["interval"] == pytest.approx(list(wilson(line["right"], 9)))
        assert line["official"] is False
        assert line["tokens"] == line["step"] * 4 * 128
        said = f"step {line['step']:>6,}  HellaSwag {line['accuracy']:.1%} by completion acc_norm"
        assert any(
            shown.startswith(said) and shown.endswith("9 unofficial items")
            for shown in printed.splitlines()
        )


def test_all_items_give_what_evaluate_gives(folder: Path):
    trained(
        *arguments("run", SCORED, {"--eval.hellaswag-items": 0, "--eval.every": 0}), folder=folder
    )
    asked = ("--file", "items.jsonl", "--convention", "completion", "--per-item", "each.jsonl")
    assert groundup("evaluate", "run", *asked, folder=folder).returncode == 0
    line = metrics(folder / "runs" / "run", "hellaswag")[-1]
    each = (folder / "each.jsonl").read_text("utf-8").splitlines()
    assert len(each) == line["items"] == 30
    answers = map(json.loads, each)
    assert line["right"] == sum(
        answer["completion"]["choices"]["acc_norm"] == answer["label"] for answer in answers
    )


def test_a_killed_run_is_scored_as_an_unbroken_one(folder: Path):
    slow: dict[str, object] = {
        "--train.batch-size": 8,
        "--train.micro-batch-size": 1,
        "--steps": 20,
    }
    trained(*arguments("unbroken", SCORED, slow), folder=folder)
    run = folder / "runs" / "killed"
    with started("train", *arguments(run.name, SCORED, slow), folder=folder) as running:
        wait_for_step(running, run, 9)
        running.process.kill()
        running.wait()
    assert groundup("train", "--resume", run.name, folder=folder).returncode == 0
    found, expected = (metrics(path, "hellaswag") for path in (run, folder / "runs" / "unbroken"))
    for line in (*found, *expected):
        del line["seconds"]
    assert found == expected
    assert final_files(run, 20) == final_files(folder / "runs" / "unbroken", 20)


def test_items_that_changed_are_refused(folder: Path):
    trained(*arguments("run", SCORED, {"--optim.schedule": "constant"}), folder=folder)
    write_items(folder / "items.jsonl", invented(30, seed=10))
    again = ("train", "--resume", "run", "--steps", 12)
    finished = groundup(*again, folder=folder)
    finished.stdout = ""
    assert "HellaSwag's items have changed since the run began" in error_line(finished)
    assert groundup(*again, "--accept-changed-data", folder=folder).returncode == 0


def test_what_can_not_be_asked_is_said_before_the_first_step(folder: Path, cli: Cli):
    def refused(*changes: dict[str, object]) -> str:
        line = error_line(groundup("train", *arguments("run", SCORED, *changes), folder=folder))
        assert not (folder / "runs").exists()
        return line

    assert "nowhere.jsonl can't be read: No such file" in refused(
        {"--eval.hellaswag-file": "nowhere.jsonl"}
    )
    assert "text.txt, line 1 is no item of HellaSwag" in refused(
        {"--eval.hellaswag-file": "text.txt"}
    )
    many = refused({"--eval.hellaswag-items": 31})
    assert "eval.task_items = 31, but " in many
    assert "items.jsonl has 30 items. Choose fewer, or 0 for all" in many
    assert "eval.task_items = -1" in refused({"--eval.hellaswag-items": -1})
    assert "eval.task_every = -1" in refused({"--eval.hellaswag-every": -1})
    letters = refused({"--data.tokenizer": "characters"})
    assert "eval.task_every = 4 can't be done: item" in letters
    assert "can't become tokens: character" in letters
    assert "--data.tokenizer gpt2" in letters
    assert "but the model's context is 8: it can't be scored" in refused({"--model.block-size": 8})
    nowhere = {
        "GROUNDUP_CACHE": str(folder / "empty"),
        "GROUNDUP_NETWORK_TIMEOUT": "0.5",
        "no_proxy": "",
    }
    nowhere |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    words = arguments("run", {"--eval.hellaswag-every": 4})
    offline = error_line(
        cli("train", *words, env=nowhere | {"PATH": os.environ["PATH"]}, cwd=folder)
    )
    assert "can't download" in offline
    assert "--eval.task-file ITEMS.jsonl" in offline
    assert not (folder / "runs").exists()


@given(length=st.integers(1, 300), data=st.data())
def test_the_chosen_items_are_spread_over_the_file(length: int, data: st.DataObject):
    """Each once, in order, with gaps that differ by one at most, and as far from the first item as
    from the last.
    """
    count = data.draw(st.integers(1, length))
    chosen = spread(range(length), count)
    gaps = {after - before for before, after in pairwise(chosen)}
    assert len(chosen) == len(set(chosen)) == count
    assert len(gaps) <= 2
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert abs(chosen[0] - (length - 1 - chosen[-1])) <= 1
    assert spread(range(length), 0) == spread(range(length), length) == list(range(length))


def test_tensorboard_draws_the_accuracy_by_its_name(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(RunFolder(tmp_path), 0)
    for step, right in ((0, 3), (50, 4)):
        board.write(
            TaskRecord(
                *("hellaswag", step, 0, "completion", "acc_norm", right / 8, (0.1, 0.9)),
                *(right, 8, True, 1.0),
            ).to_json()
        )
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["hellaswag/completion_acc_norm"]
    found = events.Scalars("hellaswag/completion_acc_norm")
    assert [(event.step, event.value) for event in found] == [(0, 0.375), (50, 0.5)]
