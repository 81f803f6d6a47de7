"""The task `choices`: items of the user's own, at the command line and while a run trains."""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import straightforward
from commands import flags, groundup, metrics, trained, write_text
from conftest import error_line
from groundup import load
from groundup.checkpoints import model_folder
from groundup.data.choice_items import Item
from groundup.evaluation.choices import Choices
from groundup.evaluation.multiple_choice import MultipleChoice
from groundup.evaluation.requests import COMPLETION, score_share
from groundup.evaluation.task import Settings, open_task
from groundup.parallel.world import World
from groundup.training.periodic import PeriodicEvaluation
from invented_items import WORDS, small_model, tokenizer

CHOICES = ("--task", "choices", "--file", "items.jsonl")


def choice_items(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Items of random words with 2 to 6 endings."""
    draw, items = random.Random(seed), []
    for _ in range(count):
        number = draw.randint(2, 6)
        context = " ".join(draw.choices(WORDS, k=draw.randint(1, 40)))
        endings = [
            letter + " ".join(draw.choices(WORDS, k=draw.randint(0, 9)))
            for letter in "abcdef"[:number]
        ]
        items.append({"context": context, "endings": endings, "label": draw.randrange(number)})
    return items


def write_lines(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return path


def by_hand(model: Any, item: dict[str, Any]) -> tuple[list[float], dict[str, int]]:
    """The sum of each ending by the slow scorer, and what either measure chooses."""
    context = tokenizer().encode(item["context"]).tolist()
    endings = [tokenizer().encode(f" {ending}").tolist() for ending in item["endings"]]
    sums = [straightforward.log_probability(model, context, ending) for ending in endings]
    means = [total / len(ending) for total, ending in zip(sums, endings, strict=True)]
    return sums, {"acc": sums.index(max(sums)), "acc_norm": means.index(max(means))}


def right_by_hand(model: Any, items: list[dict[str, Any]], measure: str) -> list[bool]:
    return [by_hand(model, item)[1][measure] == item["label"] for item in items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models of one tokenizer, a text, and 30 items."""
    model_folder.save(tmp_path / "one", small_model("gpt2", 64), tokenizer())
    model_folder.save(tmp_path / "two", small_model("modern", 64), tokenizer())
    write_lines(tmp_path / "items.jsonl", choice_items(30))
    return tmp_path


def test_accuracies_are_those_of_the_simple_scorer(folder: Path):
    finished = groundup(
        *("evaluate", "one", *CHOICES, "--limit", 10, "--json", "--per-item", "each.jsonl"),
        folder=folder,
    )
    assert finished.returncode == 0, finished.stderr
    result, items = json.loads(finished.stdout), choice_items(30)[1::3]
    assert (result["task"], result["items"], result["of"]) == ("choices", 10, 30)
    assert "official" not in result
    assert [(row["convention"], row["measure"]) for row in result["results"]] == [
        ("completion", "acc"),
        ("completion", "acc_norm"),
    ]
    for row in result["results"]:
        right = sum(right_by_hand(small_model("gpt2", 64), items, row["measure"]))
        assert (row["right"], row["items"], row["accuracy"]) == (right, 10, right / 10)
        assert "published_percent" not in row
        for end in row["interval"]:  # Wilson's ends solve this equation
            square = 1.959964**2 * end * (1 - end) / 10
            assert (right / 10 - end) ** 2 == pytest.approx(square, abs=1e-6)
    lines = [json.loads(line) for line in (folder / "each.jsonl").read_text("utf-8").splitlines()]
    assert [line["ind"] for line in lines] == list(range(2, 31, 3))  # numbers of lines
    for line, item in zip(lines, items, strict=True):
        sums, chosen = by_hand(small_model("gpt2", 64), item)
        assert line["completion"]["log_probabilities"] == pytest.approx(sums, abs=1e-9)
        assert line["completion"]["choices"] == chosen
        assert line["label"] == item["label"]


def test_the_table_says_what_a_reader_must_know(folder: Path):
    finished = groundup("evaluate", "one", *CHOICES, folder=folder)
    assert finished.returncode == 0, finished.stderr
    chance = sum(1 / len(item["endings"]) for item in choice_items(30)) / 30
    for said in (
        "all 30 items of items.jsonl\n",
        f"guessing is right in {chance:.1%}",
        "sum of the log-probabilities",
        "95% interval",
        "items a second: completion ",
    ):
        assert said in finished.stdout, said
    assert "published" not in finished.stdout
    assert "official" not in finished.stdout


def test_two_models_are_paired_item_by_item(folder: Path):
    finished = groundup("compare", "one", "two", *CHOICES, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    result, items = json.loads(finished.stdout), choice_items(30)
    assert (result["task"], result["models"], result["items"]) == ("choices", ["one", "two"], 30)
    assert [row["measure"] for row in result["results"]] == ["acc", "acc_norm"]
    for row in result["results"]:
        first, second = (
            right_by_hand(small_model(kind, 64), items, row["measure"])
            for kind in ("gpt2", "modern")
        )
        pairs = list(zip(first, second, strict=True))
        only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
        assert (row["both"], row["only_a"], row["only_b"], row["neither"]) == (
            *(pairs.count((True, True)), only_a, only_b),
            pairs.count((False, False)),
        )
        assert row["difference"] == pytest.approx((only_b - only_a) / 30)
        tail = sum(math.comb(only_a + only_b, k) for k in range(min(only_a, only_b) + 1))
        assert row["p_value"] == pytest.approx(min(1.0, 2 * tail / 2 ** (only_a + only_b)))
    assert any(row["only_a"] + row["only_b"] for row in result["results"])
    table = groundup("compare", "one", "two", *CHOICES, folder=folder).stdout
    assert "all 30 items of items.jsonl\n" in table
    assert "only A" in table


BAD_LINES = {
    "{]": "line 2 is no item of choices (JSONDecodeError",
    '["context"]': "line 2 is no item of choices (TypeError",
    '{"context": "x", "endings": ["a", "b"]}': "line 2 is no item of choices (KeyError: 'label')",
    '{"context": "x", "endings": ["a"], "label": 0}': "endings must be a list of 2 or more texts",
    '{"context": "x", "endings": "ab", "label": 0}': "endings must be a list of 2 or more texts",
    '{"context": "x", "endings": ["a", "b"], "label": 2}': "a field of another type",
    '{"context": "x", "endings": ["a", "b"], "label": -1}': "a field of another type",
    '{"context": "x", "endings": ["a", "b"], "label": true}': "label must be a whole number",
    '{"context": "x", "endings": ["a", 5], "label": 0}': "a field of another type",
    '{"context": 7, "endings": ["a", "b"], "label": 0}': "a field of another type",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named(line: str, tmp_path: Path):
    file = write_lines(tmp_path / "bad.jsonl", choice_items(1))
    file.write_text(f"{file.read_text('utf-8')}{line}\n", "utf-8")
    with pytest.raises(ValueError, match="it should be JSON with context, endings") as refused:
        open_task("choices", Settings(file=file))
    assert str(refused.value).startswith(f"{file}, line 2 is no item of choices (")
    assert BAD_LINES[line] in str(refused.value)


def test_what_can_not_be_asked_is_one_line(folder: Path):
    def refused(*args: object) -> str:
        finished = groundup(*args, folder=folder)
        lines = finished.stderr.splitlines(keepends=True)
        finished.stderr = "".join(line for line in lines if not line.startswith(("gpt2", "modern")))
        return error_line(finished)

    choices = ("evaluate", "one", "--task", "choices")
    assert "the task choices needs items: --file ITEMS.jsonl" in refused(*choices)
    (folder / "empty.jsonl").write_text("\n", "utf-8")
    assert "empty.jsonl has no items of choices: it is empty. Give lines like {" in refused(
        *choices, "--file", "empty.jsonl"
    )
    assert "--convention belongs to --task hellaswag, but the task is choices" in refused(
        *("evaluate", "one", *CHOICES, "--convention", "harness")
    )
    write_lines(folder / "bare.jsonl", [{"context": "", "endings": ["a", "b"], "label": 0}])
    assert "two: item 1 of choices has no tokens in ''" in refused(
        *("compare", "two", "one", "--task", "choices", "--file", "bare.jsonl")
    )


@dataclass(frozen=True)
class PretendedWorld(World):
    """One of several processes, to whose sums the others add nothing."""

    def sum(self, values: Tensor) -> Tensor:
        return values


def opened(path: Path, limit: int = 0) -> MultipleChoice:
    task = open_task("choices", Settings(file=path, limit=limit))
    assert isinstance(task, Choices)
    return task


@pytest.mark.parametrize(
    ("architecture", "block_size"), [("gpt2", 64), ("gpt2", 30), ("bigram", 64)]
)
@pytest.mark.parametrize("size", [2, 3, 40])
def test_processes_share_the_items_and_make_equally_many_passes(
    architecture: str, block_size: int, size: int, tmp_path: Path
):
    """Also where contexts are cut, and where there are more processes than items."""
    model, task = (
        small_model(architecture, block_size),
        opened(write_lines(tmp_path / "items.jsonl", choice_items(31, seed=5))),
    )
    requests = COMPLETION.requests(task.items, tokenizer(), block_size)
    evaluation = PeriodicEvaluation(task, requests, every=4)
    alone = evaluation.run(model, World(), torch.device("cpu"))
    right, passes, shares = 0, [], []
    original = type(model).hidden
    for rank in range(size):
        calls = []

        def counted(*args: Any, calls: list[int] = calls, **more: Any) -> Tensor:
            calls.append(1)
            return original(*args, **more)

        world = PretendedWorld(rank, size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(model), "hidden", counted)
            right += evaluation.run(model, world, torch.device("cpu")).right
        passes.append(len(calls))
        shares += score_share(model, requests, 8, world)
    assert right == alone.right
    assert len(set(passes)) == 1
    assert passes[0] > 0
    scored = score_share(model, requests, 8, World())
    whole = {each.request.item.number: each.sums for each in scored}
    assert sorted(each.request.item.number for each in shares) == sorted(whole)
    for each in shares:
        assert each.sums == pytest.approx(whole[each.request.item.number], abs=1e-10)


def arguments(name: str, **changes: object) -> list[str]:
    """Ten steps of a model that has room for the items, scored each four steps."""
    values: dict[str, object] = {"--name": name, "--steps": 10, "--eval.every": 5}
    values |= {"--eval.sample-length": 0, "--model.block-size": 128, "--data.tokenizer": "bpe"}
    values |= {"--eval.task": "choices", "--eval.task-every": 4, "--eval.task-items": 7}
    values |= {"--eval.task-file": "items.jsonl"}
    return flags(
        values | {f"--eval.{key.replace('_', '-')}": value for key, value in changes.items()}
    )


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A text, 30 items, and a tokenizer for both."""
    write_text(tmp_path)
    write_lines(tmp_path / "items.jsonl", choice_items(30))
    (tmp_path / "bpe").mkdir()
    tokenizer().save(tmp_path / "bpe")
    return tmp_path


def test_a_run_is_scored_on_the_way(training: Path):
    finished = trained(*arguments("run"), folder=training)
    run, items = training / "runs" / "run", choice_items(30)
    chosen = [items[(2 * place + 1) * 30 // 14] for place in range(7)]
    lines = metrics(run, "choices")
    assert [line["step"] for line in lines] == [0, 4, 8, 10]
    model, _ = load(run)
    assert lines[-1]["right"] == sum(right_by_hand(model, chosen, "acc_norm"))
    chance = sum(1 / len(item["endings"]) for item in chosen) / 7
    for line in lines:
        assert list(line) == [
            *("kind", "step", "tokens", "convention", "measure", "accuracy", "interval", "right"),
            *("items", "seconds", "chance"),
        ]
        assert line["chance"] == pytest.approx(chance)
        said = f"step {line['step']:>6,}  choices {line['accuracy']:.1%} by completion acc_norm"
        assert any(
            shown.startswith(said) and shown.endswith("%  7 items")
            for shown in finished.stdout.splitlines()
        )
    facts = json.loads((run / "run.json").read_text("utf-8"))
    assert facts["choices"] == {"sha256": opened(training / "items.jsonl").file.sha256}
    assert "hellaswag" not in facts
    write_lines(training / "items.jsonl", choice_items(30, seed=1))
    changed = groundup("train", "--resume", "run", "--steps", 12, folder=training)
    changed.stdout = ""
    assert "choices' items have changed since the run began" in error_line(changed)


def test_what_can_not_be_scored_is_said_before_the_first_step(training: Path):
    def refused(**changes: object) -> str:
        line = error_line(groundup("train", *arguments("run", **changes), folder=training))
        assert not (training / "runs").exists()
        return line

    assert "the task choices needs items: --eval.task-file ITEMS.jsonl" in refused(task_file="")
    assert "text.txt, line 1 is no item of choices" in refused(task_file="text.txt")
    known = "is no task that scores a run on the way. Choose one of hellaswag, choices"
    assert f"eval.task = loss {known}" in refused(task="loss")
    assert f"eval.task = chess {known}" in refused(task="chess")
    assert "eval.task_items = 31, but " in refused(task_items=31)


def test_an_item_reads_as_its_right_ending_has_it():
    item = Item(1, "one and one", ("is two", "is three"), 0, task="choices")
    assert item.text == "one and one is two"
    assert item.name == "item 1 of choices"
