"""HellaSwag against a scorer that is slow and simple, against closed forms, and at the command
line.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import straightforward
from commands import groundup
from conftest import error_line
from groundup.checkpoints import model_folder
from groundup.data.choice_items import Item, ItemsFile
from groundup.data.hellaswag_items import cleaned, read_items
from groundup.errors import EvaluationError
from groundup.evaluation.hellaswag import CONVENTIONS, HellaSwag, encode_pair
from groundup.evaluation.multiple_choice import ChoiceResult
from groundup.evaluation.scoring import Continuations, sums_of_endings
from groundup.evaluation.statistics import wilson
from groundup.evaluation.task import NamedModel, Progress, Settings
from invented_items import WORDS, invented, small_model, tokenizer, write_items


def items_of(folder: Path, items: list[dict[str, Any]]) -> list[Item]:
    return read_items(write_items(folder / "items.jsonl", items))


def in_silence(_what: str, _total: int) -> Any:
    return lambda _: None


def ask(
    model: Any,
    items: list[Item],
    convention: str,
    batch_size: int = 8,
    progress: Progress = in_silence,
) -> ChoiceResult:
    """What the model chooses of these items, by one convention."""
    task = HellaSwag(
        ItemsFile(Path("items.jsonl"), "", items),
        Settings(batch_size=batch_size, convention=convention),
    )
    return task.evaluate(NamedModel("one", model, tokenizer()), progress)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("architecture", "block_size", "batch_size"),
    [
        ("gpt2", 256, 8),
        ("modern", 256, 5),
        ("readable", 256, 8),
        ("bigram", 256, 1),
        ("gpt2", 40, 7),
    ],
)
def test_every_score_and_choice_is_that_of_the_simple_scorer(
    convention: str, architecture: str, block_size: int, batch_size: int, tmp_path: Path
):
    """A context of 40 tokens is too short for some: these lose their beginning, as they do
    there.
    """
    model, raw = small_model(architecture, block_size), invented(40)
    result = ask(model, items_of(tmp_path, raw), convention, batch_size)
    (scores,) = result.scores
    for scored, item in zip(scores.items, raw, strict=True):
        expected = straightforward.sums(model, tokenizer(), item, convention)
        assert scored.sums == pytest.approx(expected, abs=1e-10)
        assert scored.choices == straightforward.choices(model, tokenizer(), item, convention)
        assert scored.request.item.number == item["ind"]
    pairs = [straightforward.PAIRS[convention](item, tokenizer()) for item in raw]
    assert scores.cut == sum(
        max(len(context) + len(end) - 1 for context, end in four) > block_size for four in pairs
    )
    assert (scores.cut > 0) == (block_size == 40)
    for row in result.to_json()["results"]:
        right = [
            straightforward.choices(model, tokenizer(), item, convention)[row["measure"]]
            for item in raw
        ]
        assert row["right"] == sum(
            choice == item["label"] for choice, item in zip(right, raw, strict=True)
        )


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_a_result_does_not_depend_on_its_neighbours(architecture: str, tmp_path: Path):
    items, model = items_of(tmp_path, invented(30)), small_model(architecture)

    def sums(chosen: list[Item], batch_size: int) -> np.ndarray:
        (scores,) = ask(model, chosen, "harness", batch_size).scores
        return np.array([scored.sums for scored in scores.items])

    alone = sums(items, 1)
    for batch_size in (2, 7, 30):
        assert np.abs(sums(items, batch_size) - alone).max() < 1e-10
    assert np.abs(sums(items[::-2], 7) - alone[::-2]).max() < 1e-10


TOKENS = st.lists(st.integers(0, 339), min_size=1, max_size=12)


@given(
    asked=st.lists(
        st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=4)), min_size=1, max_size=6
    ),
    batch_size=st.integers(1, 6),
)
@settings(max_examples=40)
def test_any_contexts_with_any_endings_in_any_batch(
    asked: list[tuple[list[int], list[list[int]]]], batch_size: int
):
    model = small_model("gpt2", 16)
    given_arrays = [
        Continuations(np.array(context), tuple(map(np.array, endings)))
        for context, endings in asked
    ]
    found = sums_of_endings(model, given_arrays, batch_size)
    for (context, endings), sums in zip(asked, found, strict=True):
        expected = [straightforward.log_probability(model, context, ending) for ending in endings]
        assert sums == pytest.approx(expected, abs=1e-10)


def test_the_context_is_read_once_for_its_four_endings(tmp_path: Path):
    model, read = small_model("gpt2"), []
    handle = model.transformer.register_forward_hook(
        lambda _module, inputs, _output: read.append(inputs[0].numel())
    )
    try:
        result = ask(model, items_of(tmp_path, invented(1)), "completion")
    finally:
        handle.remove()
    asked = result.scores[0].items[0].request.continuations
    assert read[0] == len(asked.context)
    # an ending's last token predicts nothing
    lengths = [len(ending) - 1 for ending in asked.endings]
    assert sum(lengths) <= sum(read[1:]) <= 4 * max(lengths)


def test_brackets_go_as_the_harness_has_it():
    assert cleaned("  [header] How to nap [title] Lie down. [step] Close  both   eyes. ") == (
        " How to nap. Lie down. Close both  eyes."
    )
    assert cleaned("no [end") == "no [end"
    assert cleaned("a [b [c] d] e") == "a  d] e".replace("  ", " ")


@given(st.lists(st.sampled_from([*WORDS, "[", "]", "  ", "\n"]), max_size=12).map(" ".join))
def test_any_text_is_cleaned_as_the_harness_does(text: str):
    assert cleaned(text) == straightforward.preprocess(text)


def test_a_context_gives_its_trailing_space_to_the_ending():
    item = Item(0, "", ("", "", "", ""), 0, "HellaSwag")
    context, ending = encode_pair(item, "the roof  ", " she", tokenizer())
    assert tokenizer().decode(context) == "the roof"
    assert tokenizer().decode(ending) == "   she"


def test_what_can_not_be_asked_is_said(tmp_path: Path):
    raw = invented(3)
    del raw[1]["activity_label"]
    items = items_of(tmp_path, raw)
    with pytest.raises(
        EvaluationError, match=r"item 10 has no activity_label.* --convention completion"
    ):
        ask(small_model(), items, "harness")
    assert len(ask(small_model(), items, "completion").scores[0].items) == 3
    empty = items_of(tmp_path, invented(1, ctx=""))
    with pytest.raises(EvaluationError, match="item 0 of HellaSwag has no tokens"):
        ask(small_model(), empty, "completion")
    with pytest.raises(
        EvaluationError, match=r"an ending has \d+ tokens, but the model's context is 8"
    ):
        ask(small_model("gpt2", 8), items_of(tmp_path, invented(9)), "completion")


@given(items=st.integers(1, 20_000), data=st.data(), confidence=st.sampled_from([0.5, 0.95, 0.99]))
def test_the_ends_of_the_interval_solve_their_equation(
    items: int, data: st.DataObject, confidence: float
):
    """Wilson's ends are the p with (share - p)^2 = z^2 p (1 - p) / n."""
    right = data.draw(st.integers(0, items))
    low, high = wilson(right, items, confidence)
    share, z = (
        right / items,
        math.sqrt(2) * float(torch.erfinv(torch.tensor(confidence, dtype=torch.float64))),
    )
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for end in (low, high):
        assert (share - end) ** 2 == pytest.approx(z * z * end * (1 - end) / items, abs=1e-9)


def test_known_intervals():
    # in any table of Wilson's intervals
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    low, high = wilson(2500, 10_000)
    assert (low, high) == pytest.approx((0.2416, 0.2586), abs=1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with random weights, and 400 items beside it."""
    torch.manual_seed(1)
    model_folder.save(tmp_path / "model", small_model("gpt2"), tokenizer())
    write_items(tmp_path / "items.jsonl", invented(400, seed=6))
    return tmp_path


def test_a_random_model_guesses(folder: Path):
    finished = groundup(
        *("evaluate", "model", "--file", "items.jsonl", "--batch-size", 64),
        *("--json", "--per-item", "each.jsonl"),
        folder=folder,
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["official"], result["items"], result["of"]) == (False, 400, 400)
    rows = {(row["convention"], row["measure"]): row for row in result["results"]}
    assert list(rows) == [
        *(("completion", "acc"), ("completion", "acc_norm")),
        *(("harness", "acc"), ("harness", "acc_norm"), ("harness", "acc_bytes")),
    ]
    for row in rows.values():
        low, high = row["interval"]
        assert low < 0.25 < high
        assert row["accuracy"] == row["right"] / 400
    assert rows["completion", "acc_norm"]["published_percent"]["GPT-2 124M"] == 29.55
    assert rows["harness", "acc_norm"]["published_percent"]["GPT-2 124M"] == 31.14
    lines = [json.loads(line) for line in (folder / "each.jsonl").read_text("utf-8").splitlines()]
    assert [line["ind"] for line in lines] == list(range(0, 4000, 10))
    right = sum(line["harness"]["choices"]["acc_bytes"] == line["label"] for line in lines)
    assert right == rows["harness", "acc_bytes"]["right"]
    item = invented(400, seed=6)[7]
    expected = straightforward.sums(small_model("gpt2"), tokenizer(), item, "harness")
    assert lines[7]["harness"]["log_probabilities"] == pytest.approx(expected, abs=1e-9)


def test_the_table_says_what_a_reader_must_know(folder: Path):
    flags = ("--file", "items.jsonl", "--limit", 12)
    finished = groundup("evaluate", "model", *flags, folder=folder)
    assert finished.returncode == 0, finished.stderr
    for said in (
        "UNOFFICIAL",
        "12, evenly spread, of the 400",
        "29.55%",
        "31.14%",
        "items a second",
        "95% interval",
    ):
        assert said in finished.stdout, said
    one = groundup("evaluate", "model", *flags, "--convention", "harness", folder=folder).stdout
    assert "31.14%" in one
    assert "29.55%" not in one


def test_faults_are_one_line(folder: Path):
    def refused(*flags: object, name: str = "model") -> str:
        return error_line_of_evaluate(groundup("evaluate", name, *flags, folder=folder))

    items = ("--file", "items.jsonl")
    assert "nothing.jsonl can't be read: No such file" in refused("--file", "nothing.jsonl")
    (folder / "broken.jsonl").write_text(
        (folder / "items.jsonl").read_text("utf-8") + "{]\n", "utf-8"
    )
    assert "broken.jsonl, line 401 is no item of HellaSwag" in refused("--file", "broken.jsonl")
    assert "--limit 0 must be at least 1" in refused(*items, "--limit", 0)
    assert "--batch-size 0 must be at least 1" in refused(*items, "--batch-size", 0)
    assert "neither a run nor a model folder" in refused(*items, name="nowhere")
    assert "--corpus belongs to --task loss" in refused(*items, "--corpus", "x.txt")
    assert "--file belongs to --task hellaswag" in refused(
        *items, "--task", "loss", "--corpus", "x.txt"
    )
    assert "--per-item no/where.jsonl can't be written" in refused(
        *items, "--per-item", "no/where.jsonl"
    )
    model_folder.save(folder / "mute", small_model("gpt2"), None)
    assert "has no tokenizer that groundup knows" in refused(*items, name="mute")


def test_earlier_results_outlive_a_refusal(folder: Path):
    """An item without an activity is only met when the harness's questions are made."""
    item = json.loads((folder / "items.jsonl").read_text("utf-8").splitlines()[0])
    del item["activity_label"]
    (folder / "idle.jsonl").write_text(json.dumps(item) + "\n", "utf-8")
    (folder / "old.jsonl").write_text("earlier\n", "utf-8")
    finished = groundup(
        "evaluate", "model", "--file", "idle.jsonl", "--per-item", "old.jsonl", folder=folder
    )
    assert "no activity_label" in error_line_of_evaluate(finished)
    assert (folder / "old.jsonl").read_text("utf-8") == "earlier\n"


def test_what_a_model_gives_no_number_for_is_no_answer(folder: Path):
    model = copy.deepcopy(small_model("gpt2"))
    with torch.no_grad():
        model.get_parameter("transformer.h.0.mlp.c_fc.bias")[3] = math.nan
    model_folder.save(folder / "broken", model, tokenizer())
    finished = groundup(
        "evaluate", "broken", "--file", "items.jsonl", "--limit", 2, "--json", folder=folder
    )
    assert "which are no numbers to choose by" in error_line_of_evaluate(finished)
    (folder / "text.txt").write_text("the cat sat on the mat", "utf-8")
    finished = groundup(
        "evaluate", "broken", "--task", "loss", "--corpus", "text.txt", folder=folder
    )
    assert "loss on the text is no number" in error_line_of_evaluate(finished)


def test_progress_counts_items_where_contexts_are_cut(tmp_path: Path):
    told: list[int] = []

    def progress(what: str, total: int) -> Any:
        assert (what, total) == ("harness, items", 5)
        return told.append

    ask(
        small_model("gpt2", 40),
        items_of(tmp_path, invented(5, seed=1)),
        *("harness", 2),
        progress=progress,
    )
    assert told == sorted(told)
    assert told[-1] == 5


def error_line_of_evaluate(finished: Any) -> str:
    """The refusal, after the line that says what was loaded where that came first."""
    lines = finished.stderr.splitlines(keepends=True)
    finished.stderr = "".join(line for line in lines if not line.startswith("gpt2, "))
    return error_line(finished)
