"""`groundup compare` at the command line, against slow and simple scorers and against what two runs
recorded.
"""

import copy
import json
import math
import signal
import struct
import subprocess
import sys
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import straightforward
from commands import groundup, metrics, started, trained
from conftest import TINY, error_line, some_text
from groundup import CharacterTokenizer
from groundup.checkpoints import model_folder
from groundup.models.config import GPTConfig
from groundup.verification.random_models import model_of, perturb
from invented_items import invented, small_model, tokenizer, write_items

MODELS: dict[str, Any] = {
    "one": lambda: small_model("gpt2", 64),
    "two": lambda: small_model("modern", 64),
}


def letters() -> CharacterTokenizer:
    """Of all that the texts here are made of."""
    return CharacterTokenizer(set(some_text()) | {"\n"})


@cache
def letter_model() -> Any:
    """A model of characters, with a shorter context than the others."""
    model = model_of(
        "gpt2",
        GPTConfig(block_size=24, vocab_size=letters().vocab_size, n_layer=1, n_head=2, n_embd=16),
    )
    perturb(model, seed=8, scale=0.3)
    return model.double().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, two of one tokenizer; items and a text."""
    place = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        model_folder.save(place / name, make(), tokenizer())
    model_folder.save(place / "letters", letter_model(), letters())
    write_items(place / "items.jsonl", invented(60, seed=4))
    (place / "text.txt").write_text(some_text()[:2800], "utf-8")
    return place


def compared(folder: Path, *args: object) -> dict[str, Any]:
    finished = groundup("compare", *args, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def refused(folder: Path, *args: object) -> str:
    finished = groundup("compare", *args, folder=folder)
    told = (*(f"{kind}, " for kind in ("gpt2", "modern")), "one, ", "two, ", "broken: gpt2, ")
    finished.stderr = "".join(
        line for line in finished.stderr.splitlines(keepends=True) if not line.startswith(told)
    )
    return error_line(finished)


HELLASWAG = ("--task", "hellaswag", "--file", "items.jsonl")
LOSS = ("--task", "loss", "--corpus", "text.txt")


def test_both_answer_the_same_items(folder: Path):
    result, items = (
        compared(folder, "one", "two", *HELLASWAG, "--limit", 20),
        invented(60, seed=4)[1::3],
    )
    assert (result["items"], result["of"], result["official"]) == (20, 60, False)
    assert result["recipe_differences"] is None
    assert len(result["results"]) == 5
    chosen = {
        (name, way): [straightforward.choices(make(), tokenizer(), item, way) for item in items]
        for name, make in MODELS.items()
        for way in ("completion", "harness")
    }
    for row in result["results"]:
        first, second = (
            [
                choices[row["measure"]] == item["label"]
                for choices, item in zip(chosen[name, row["convention"]], items, strict=True)
            ]
            for name in MODELS
        )
        pairs = list(zip(first, second, strict=True))
        assert row["accuracy"] == [sum(first) / 20, sum(second) / 20]
        assert row["difference"] == pytest.approx((sum(second) - sum(first)) / 20)
        b, c = pairs.count((True, False)), pairs.count((False, True))
        assert (row["only_a"], row["only_b"], row["both"]) == (b, c, pairs.count((True, True)))
        tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
        assert row["p_value"] == pytest.approx(min(1.0, 2 * tail))
        assert row["interval"][0] < row["difference"] < row["interval"][1]
    assert any(row["only_a"] + row["only_b"] for row in result["results"])


def test_the_other_way_round_the_sign_turns(folder: Path):
    for task in (HELLASWAG, LOSS):
        there, back = (
            compared(folder, *names, *task) for names in (("one", "two"), ("two", "one"))
        )
        pairs = zip(*(found.get("results", [found]) for found in (there, back)), strict=True)
        for one, other in pairs:
            assert one["difference"] == pytest.approx(-other["difference"], abs=1e-9)
            assert one["interval"] == pytest.approx(
                [-end for end in other["interval"][::-1]], abs=1e-9
            )
            assert one["p_value"] == pytest.approx(other["p_value"])


def test_the_same_model_twice_differs_in_nothing(folder: Path):
    for task in (HELLASWAG, LOSS):
        found = compared(folder, "one", "./one", *task)
        for row in found.get("results", [found]):
            assert row["difference"] == 0
            assert row["p_value"] == 1
            assert row["interval"][0] <= 0 <= row["interval"][1]


def nats(model: Any, stream: np.ndarray, stride: int) -> list[float]:
    """Of each token but the first, from the earliest start that a window may have for it: one
    forward pass a token.
    """
    found = []
    for target in range(1, len(stream)):
        start = max(0, -(-(target - model.block_size) // stride)) * stride
        context = stream[start:target].tolist()
        found.append(-straightforward.log_probability(model, context, [int(stream[target])]))
    return found


def test_two_tokenizers_are_compared_over_the_same_bytes(folder: Path):
    text = (folder / "text.txt").read_text("utf-8")
    found = compared(folder, "one", "letters", *LOSS)
    ends, losses = [], []
    for model, made in ((small_model("gpt2", 64), tokenizer()), (letter_model(), letters())):
        stream = made.encode(text)
        ends.append(np.cumsum([len(made.decode_bytes([token])) for token in stream]))
        losses.append([0.0, *nats(model, stream, model.block_size // 2)])
    shared = sorted(set(ends[0]) & set(ends[1]))
    cuts = [shared[0]]
    while ends[0][-1] - cuts[-1] >= 2 * 1024:
        cuts.append(next(end for end in shared if end >= cuts[-1] + 1024))
    cuts.append(ends[0][-1])
    sums = [
        [
            sum(loss for loss, end in zip(*its, strict=True) if low < end <= high)
            for low, high in pairwise(cuts)
        ]
        for its in zip(losses, ends, strict=True)
    ]
    bits, sizes = np.array(sums) / math.log(2), np.diff(cuts)
    assert found["passages"] == len(sizes) == 3
    assert found["bytes"] == sizes.sum() == len(text.encode("utf-8")) - shared[0]
    assert found["bits_per_byte"] == pytest.approx(
        (bits.sum(axis=1) / sizes.sum()).tolist(), abs=1e-6
    )
    assert found["difference"] == pytest.approx(
        found["bits_per_byte"][1] - found["bits_per_byte"][0]
    )
    assert found["lower_in"] == [int((bits[0] < bits[1]).sum()), int((bits[1] < bits[0]).sum())]
    assert (found["block_size"], found["stride"]) == ([64, 24], [32, 12])
    errors = bits[1] - bits[0] - found["difference"] * sizes
    error = math.sqrt(3 / 2 * (errors**2).sum()) / sizes.sum()
    half = (found["interval"][1] - found["interval"][0]) / 2
    assert half == pytest.approx(4.30265 * error, rel=1e-5)  # Student's 97.5% of 2 degrees


def test_shards_need_one_tokenizer(folder: Path):
    documents = "".join(
        json.dumps({"text": f"{number} {some_text()[:400]}"}) + "\n" for number in range(30)
    )
    (folder / "documents.jsonl").write_text(documents, "utf-8")
    prepared = groundup(
        *(
            "prepare",
            "documents.jsonl",
            "--out",
            "shards",
            "--tokenizer",
            "one",
            "--validation",
            0.5,
            "--workers",
            1,
        ),
        folder=folder,
    )
    assert prepared.returncode == 0, prepared.stderr
    shards = ("--task", "loss", "--corpus", "shards")
    found = compared(folder, "one", "two", *shards)
    assert found["part"] == "the validation split"
    index = json.loads((folder / "shards" / "index.json").read_text("utf-8"))["splits"][
        "validation"
    ]
    assert found["bytes"] == index["bytes"]
    # the end-of-text before the first document isn't predicted
    assert found["tokens"] == [index["tokens"] - 1] * 2
    alone = groundup("evaluate", "two", *shards, "--json", folder=folder)
    assert found["bits_per_byte"][1] == pytest.approx(
        json.loads(alone.stdout)["bits_per_byte"], rel=1e-6
    )
    assert "one and letters have different tokenizers" in refused(folder, "one", "letters", *shards)


def test_a_model_that_gives_no_number_is_refused_by_name(folder: Path):
    model = copy.deepcopy(MODELS["one"]())
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    model_folder.save(folder / "broken", model, tokenizer())
    for task in (LOSS, (*HELLASWAG, "--limit", 2)):
        assert "groundup: broken: " in (said := refused(folder, "one", "broken", *task))
        assert "no number" in said


def test_a_reader_is_told_what_was_compared(folder: Path):
    finished = groundup("compare", "one", "two", *HELLASWAG, "--limit", 12, folder=folder)
    assert finished.returncode == 0, finished.stderr
    for said in (
        "A: one",
        "B: two",
        "B - A",
        "95% interval",
        "only A",
        "McNemar",
        "12, evenly spread, of the 60",
    ):
        assert said in finished.stdout, said
    finished = groundup("compare", "one", "two", *LOSS, folder=folder)
    for said in (
        "bits a byte",
        "95% interval",
        "p ",
        "3 passages",
        "paired t-test",
        "the whole text of text.txt",
    ):
        assert said in finished.stdout, said


def test_faults_are_one_line(folder: Path):
    assert "nowhere is neither a run nor a model folder" in refused(folder, "one", "nowhere", *LOSS)
    assert "letters: item 0 of HellaSwag can't become tokens" in refused(
        folder, "one", "letters", *HELLASWAG
    )
    assert "letters: --stride 30 must be from 1 to" in refused(
        folder, "one", "letters", *LOSS, "--stride", 30
    )
    assert "a comparison needs 2 passages of 1,024 bytes" in refused(
        folder, "one", "two", *LOSS, "--limit", 1000
    )
    assert "--corpus belongs to --task loss, but no task is given" in refused(
        folder, "one", "two", "--corpus", "x"
    )
    assert "--limit belongs to a task" in refused(folder, "one", "two", "--limit", 3)
    assert "--out is where the curves of two runs are drawn" in refused(
        folder, "one", "two", *LOSS, "--out", "x.png"
    )
    assert "--task loss needs a text" in refused(folder, "one", "two", "--task", "loss")
    assert "--limit 0 must be at least 1" in refused(folder, "one", "two", *LOSS, "--limit", 0)
    remedy = (
        "one isn't a run, so it has no curve. Runs here: none yet. Any two models can be compared "
        "at a task"
    )
    assert remedy in refused(folder, "one", "two")
    assert "parameter B requires an argument" in refused(folder, "one")


def test_ctrl_c_leaves_at_once(folder: Path, tmp_path: Path):
    write_items(folder / "many.jsonl", invented(60, seed=4) * 60)
    with started(
        "compare", "one", "two", "--task", "hellaswag", "--file", "many.jsonl", folder=folder
    ) as running:
        deadline = time.monotonic() + 60
        while "modern, " not in running.output("stderr"):
            assert running.process.is_alive() and time.monotonic() < deadline  # noqa: PT018
            time.sleep(0.01)
        time.sleep(0.2)
        running.send(signal.SIGINT)
        finished = running.wait()
    assert finished.returncode == 130
    assert "Traceback" not in finished.stderr


# Two runs by hand: what their folders say decides all that is printed.
FACTS = {
    "started": "2026-01-02T03:04:05+00:00",
    "folder": "x",
    "processes": 1,
    "versions": {},
    "vocab_size": 65,
}


def write_run(
    folder: Path,
    name: str,
    toml: str,
    evaluations: list[tuple[int, int, float, float]],
    **facts: Any,
) -> None:
    """A run folder; evaluations: step, tokens, seconds, validation loss, the bits a byte being half
    of it.
    """
    run = folder / "runs" / name
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text(toml, "utf-8")
    corpus = {"name": "text.txt", "fingerprint": facts.pop("fingerprint", "0123456789abcdef")}
    (run / "run.json").write_text(
        json.dumps(FACTS | {"parameters": 1200, "corpus": corpus} | facts), "utf-8"
    )
    lines = [
        {
            "kind": "evaluation",
            "step": step,
            "tokens": tokens,
            "seconds": seconds,
            "train_loss": None,
        }
        | {"validation_loss": loss, "bits_per_byte": loss / 2}
        for step, tokens, seconds, loss in evaluations
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


FIRST = [(0, 0, 0.0, 4.0), (10, 1000, 5.0, 2.5), (20, 2000, 10.0, 2.0), (30, 3000, 15.0, 2.25)]
SECOND = [(0, 0, 0.0, 4.5), (10, 1000, 2.0, 3.0), (25, 2500, 6.0, 1.5)]


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    write_run(tmp_path, "first", "[train]\nsteps = 30\n[optim]\nbetas = [0.9, 0.95]\n", FIRST)
    write_run(
        tmp_path,
        "second",
        "[train]\nsteps = 40\n[model]\nn_layer = 2\n",
        SECOND,
        parameters=2_400_000,
    )
    return tmp_path


def test_two_runs_at_equal_tokens_and_at_equal_time(two_runs: Path):
    found = compared(two_runs, "first", "second")
    assert found["unit"] == "nats a token"
    tokens, seconds = found["at_equal_tokens"], found["at_equal_seconds"]
    assert (tokens["at"], seconds["at"]) == (2500, 6.0)
    assert tokens["losses"] == [2.125, 1.5]  # the first run's between 2.0 and 2.25
    assert seconds["losses"] == pytest.approx([2.4, 1.5])  # a fifth of the way from 2.5 to 2.0
    assert (tokens["interpolated"], seconds["interpolated"]) == ([True, False], [True, False])
    assert tokens["difference"] == -0.625
    assert [run["best"]["step"] for run in found["runs"]] == [20, 25]
    assert found["recipe_differences"] == [
        {"field": "model.n_layer", "a": 6, "b": 2},
        {"field": "optim.betas", "a": [0.9, 0.95], "b": [0.9, 0.99]},
        {"field": "train.steps", "a": 30, "b": 40},
    ]
    back = compared(two_runs, "second", "runs/first")
    assert back["at_equal_tokens"]["difference"] == 0.625
    twice = compared(two_runs, "first", "first")
    assert twice["at_equal_tokens"]["difference"] == twice["at_equal_seconds"]["difference"] == 0
    assert twice["recipe_differences"] == []


def test_other_vocabularies_and_texts_are_said(two_runs: Path):
    write_run(
        two_runs,
        "third",
        "[train]\nsteps = 30\n",
        FIRST,
        vocab_size=300,
        fingerprint="fedcba9876543210",
    )
    found = compared(two_runs, "first", "third")
    assert (found["unit"], found["same_text"], found["same_vocabulary"]) == (
        "bits a byte",
        False,
        False,
    )
    assert found["at_equal_tokens"]["losses"] == [2.25 / 2, 2.25 / 2]
    printed = groundup("compare", "first", "third", folder=two_runs).stdout
    assert "THE TEXTS DIFFER" in printed
    assert "only bits a byte compare" in printed
    write_run(two_runs, "once", "[train]\nsteps = 5\n", [(5, 500, 9.0, 3.0)])
    found = compared(two_runs, "first", "once")
    assert found["at_equal_seconds"]["losses"] == [pytest.approx(2.1), 3.0]
    write_run(two_runs, "late", "[train]\nsteps = 90\n", [(90, 9000, 50.0, 1.0)])
    found = compared(two_runs, "first", "late")
    assert found["at_equal_tokens"]["losses"] == [2.25, None]
    assert found["at_equal_tokens"]["difference"] is None
    assert "not measured so early" in groundup("compare", "first", "late", folder=two_runs).stdout


def test_what_is_no_run_or_has_no_curve(two_runs: Path):
    write_run(two_runs, "young", "[train]\nsteps = 30\n", FIRST[:1])
    assert "young has no evaluation after its first step" in refused(two_runs, "first", "young")
    assert "nobody isn't a run, so it has no curve. Runs here: first, second" in refused(
        two_runs, "first", "nobody"
    )
    line = refused(two_runs, "first", "second", "--out", "no/where.png")
    assert "the picture no/where.png can't be written: No such file or directory" in line


def test_the_table_of_two_runs(two_runs: Path):
    finished = groundup("compare", "first", "second", "--out", "both.png", folder=two_runs)
    assert finished.returncode == 0, finished.stderr
    assert [
        " ".join(line.split()) for line in finished.stdout.splitlines() if line.strip(" ─")
    ] == [
        "A: first B: second B - A",
        "model gpt2, 1.2K parameters gpt2, 2.4M parameters",
        "vocabulary 65 tokens 65 tokens",
        "text text.txt (0123456789ab) text.txt (0123456789ab)",
        "steps 30 25 of 40",
        "tokens 3,000 2,500",
        "training time 15.0 s 6.0 s",
        "best loss, nats a token 2.0000 at step 20 1.5000 at step 25 -0.5000",
        "the same in bits a byte 1.0000 at step 20 0.7500 at step 25 -0.2500",
        "after 2,500 tokens, nats a token ~ 2.1250 1.5000 -0.6250",
        "after 6.0 s of training, nats a token ~ 2.4000 1.5000 -0.9000",
        "~ on a straight line between the evaluations around it; all losses are on the validation "
        "text",
        "at equal tokens, A is compared on its way, before the end of its schedule",
        "at equal time, A is compared on its way, before the end of its schedule",
        "recipe A B",
        "model.n_layer 6 2",
        "optim.betas 0.9 0.95 0.9 0.99",
        "train.steps 30 40",
        "picture: both.png",
    ]
    content = (two_runs / "both.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 600 < height * 2 < width < 3000
    from matplotlib.image import imread

    pixels = imread(two_runs / "both.png")[..., :3] * 255
    for colour in ((0x0B, 0x6B, 0xCB), (0xD9, 0x48, 0x0F)):  # each run in both panels
        for panel in (pixels[:, : width // 2], pixels[:, width // 2 :]):
            drawn = (abs(panel - colour).max(axis=-1) < 30).any(axis=0)
            assert drawn.sum() > width / 20


def test_runs_that_were_trained_and_their_models(tmp_path: Path):
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    for name, width in (("narrow", 8), ("wide", 16)):
        flags = ["--corpus", "text.txt", "--steps", 10, "--name", name, *TINY]
        flags[flags.index("--model.n-embd") + 1] = width
        trained(*flags, folder=tmp_path)
    found = compared(tmp_path, "narrow", "wide")
    for run, said in zip(("narrow", "wide"), found["runs"], strict=True):
        lines = metrics(tmp_path / "runs" / run, "evaluation")
        assert said["best"]["validation_loss"] == min(line["validation_loss"] for line in lines[1:])
        assert said["tokens"] == lines[-1]["tokens"] == found["at_equal_tokens"]["at"]
    losses = [
        metrics(tmp_path / "runs" / run, "evaluation")[-1]["validation_loss"]
        for run in ("narrow", "wide")
    ]
    assert found["at_equal_tokens"]["losses"] == losses
    assert (tmp_path / "compare-narrow-wide.png").is_file()
    by_task = compared(tmp_path, "narrow", "wide", *LOSS)
    assert (
        by_task["recipe_differences"]
        == found["recipe_differences"]
        == [{"field": "model.n_embd", "a": 8, "b": 16}]
    )


def test_two_runs_are_compared_without_torch(two_runs: Path):
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "groundup", "compare", "first", "second"],
        cwd=two_runs,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()
    }
    assert "matplotlib" in imported
    assert "torch" not in imported
