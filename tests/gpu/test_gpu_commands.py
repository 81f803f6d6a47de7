"""What is done with a run on a device that behaves as a GPU does: the numbers are the CPU's."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import testgpu
import torch
from testgpu import NAME, register

from commands import checkpoint, flags, groundup, metrics, tensors, write_text
from conftest import some_text
from invented_items import invented, tokenizer, write_items

ON_THE_WAY = {
    "--model.architecture": "modern",
    "--model.block-size": 128,
    "--data.tokenizer": "bpe",
    "--eval.every": 2,
    "--eval.tokens": 256,
    "--eval.sample-length": 5,
    "--eval.hellaswag-every": 4,
    "--eval.hellaswag-file": "items.jsonl",
    "--eval.hellaswag-items": 4,
}
MIXTURE = {"--corpus": "text.txt:0.7,other.txt:0.3", "--model.n-embd": 64}
ADAPTERS = {"--init": "runs/mixed", "--lora.rank": 2, "--corpus": "other.txt"}


def prepare() -> None:
    """Register the device, whose peak is measured on small matrices, and count what it does."""
    register()
    from groundup.cli import main
    from groundup.profiling import operations

    operations.GPU_PEAK_SIZE = 64
    run = main.run

    def run_and_count(words: list[str]) -> int:
        status = run(words)
        counts = {"operations": testgpu.operations.total(), "waits": testgpu.waits}
        Path("counts.json").write_text(json.dumps(counts), "utf-8")
        return status

    main.run = run_and_count


def on_device(*words: object, folder: Path) -> str:
    """`groundup WORDS...` in a process that has the device; what it prints.

    Asserts that the device did something exactly if the words name it.
    """
    finished = groundup(*words, folder=folder, before=prepare)
    assert finished.returncode == 0, finished.stderr
    did_something = counts(folder)["operations"] > 10  # it is tried first
    assert did_something == (NAME in words or "--resume" in words)
    return finished.stdout


def counts(folder: Path) -> dict[str, Any]:
    """How many operations the device did for the last command, and what this waited for."""
    return json.loads((folder / "counts.json").read_text("utf-8"))


def train(folder: Path, name: str, device: str, recipe: dict[str, object], steps: int = 4) -> Path:
    """Train on a device, and return the run."""
    given = {"--eval.sample-length": 0, **recipe, "--steps": steps, "--train.device": device}
    on_device("train", *flags(given), "--name", name, folder=folder)
    return folder / "runs" / name


def numbers_of(value: Any, name: str = "") -> dict[str, float]:
    """The numbers of a JSON value by their path, without those of time."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = (numbers_of(each, f"{name}.{key}") for key, each in items)
        return {key: number for part in parts for key, number in part.items()}
    is_number = isinstance(value, int | float) and not re.search("second|best|worst", name)
    return {name: float(value)} if is_number else {}


def assert_alike(found: Path, expected: Path, apart: float, step: int = 4) -> None:
    """The weights of two runs are the same, to a tolerance."""
    (file,) = checkpoint(expected, step).glob("*model.safetensors")
    weights, known = (tensors(checkpoint(run, step) / file.name) for run in (found, expected))
    assert weights.keys() == known.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, known[key], rtol=0, atol=apart)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two texts, items, and a run of a mixture on each device."""
    path = tmp_path_factory.mktemp("gpu")
    write_text(path)
    (path / "other.txt").write_text(some_text().upper(), "utf-8")
    write_items(path / "items.jsonl", invented(8, seed=9))
    (path / "bpe").mkdir()
    tokenizer().save(path / "bpe")
    train(path, "mixed", NAME, MIXTURE)
    train(path, "other", "cpu", MIXTURE | {"--seed": 2})
    return path


def test_losses_and_scores_on_the_way_are_the_cpus(folder: Path) -> None:
    runs = [train(folder, f"scored-{name}", name, ON_THE_WAY) for name in (NAME, "cpu")]
    for kind, key in (("evaluation", "validation_loss"), ("hellaswag", "accuracy")):
        found, expected = ([line[key] for line in metrics(run, kind)] for run in runs)
        assert found == pytest.approx(expected, abs=1e-5)
        assert len(found) == (3 if kind == "evaluation" else 2)


def test_a_resumed_run_is_the_unbroken_one(folder: Path) -> None:
    train(folder, "broken", NAME, MIXTURE | {"--optim.schedule": "constant"}, steps=2)
    train(folder, "unbroken", NAME, MIXTURE | {"--optim.schedule": "constant"})
    on_device("train", "--resume", "broken", "--steps", 4, folder=folder)
    assert_alike(folder / "runs" / "broken", folder / "runs" / "unbroken", apart=0.0)


def test_adapters_are_the_cpus(folder: Path) -> None:
    runs = [train(folder, f"adapted-{name}", name, MIXTURE | ADAPTERS) for name in (NAME, "cpu")]
    assert_alike(*runs, apart=1e-6)


def test_a_text_is_the_cpus(folder: Path) -> None:
    words = ("generate", "mixed", "--length", 40, "--seed", 3, "--top-k", 9, "--top-p", 0.9)
    texts = {on_device(*words, "--device", name, folder=folder) for name in (NAME, "cpu")}
    assert len(texts) == 1


def test_a_text_waits_once_a_token(folder: Path) -> None:
    found = []
    for length in (10, 14):
        words = ("generate", "mixed", "--length", length, "--seed", 3)
        on_device(*words, "--device", NAME, folder=folder)
        found.append(Counter(counts(folder)["waits"]))
    assert found[1] - found[0] == {"copy to the CPU": 4}


def test_an_export_is_the_checkpoint(folder: Path) -> None:
    on_device("export", "mixed", "--to", "folder", "--out", "exported", folder=folder)
    weights = checkpoint(folder / "runs" / "mixed", 4) / "model.safetensors"
    assert (folder / "exported" / "model.safetensors").read_bytes() == weights.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("model", [[], ["mixed"]])
def test_all_claims_hold_on_the_device(model: list[str], folder: Path) -> None:
    said = json.loads(on_device("verify", *model, "--device", NAME, "--json", folder=folder))
    assert said


@pytest.mark.long
def test_a_plan_is_measured_on_the_device(folder: Path) -> None:
    words = flags(MIXTURE | {"--train.device": NAME, "--steps": 100})
    plan = json.loads(on_device("plan", *words, "--json", folder=folder))
    assert plan["steps"] == 100
    assert plan["time"]["total"] > 0
    assert plan["memory"]["available"] == testgpu.MEMORY
    assert plan["memory"]["peak"] == testgpu.MEMORY // 2


def test_an_evaluation_and_a_comparison_are_the_cpus(folder: Path) -> None:
    for words in (
        ("evaluate", "mixed", "--task", "loss", "--corpus", "text.txt"),
        ("compare", "mixed", "other", "--task", "loss", "--corpus", "text.txt"),
    ):
        found, expected = (
            numbers_of(json.loads(on_device(*words, "--json", "--device", name, folder=folder)))
            for name in (NAME, "cpu")
        )
        assert found == pytest.approx(expected, rel=1e-5)
