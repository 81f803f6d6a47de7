"""Evaluations with weights of 8 or 16 bits: how far they are from the model's own, and what is
kept.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup as package
from commands import groundup, trained
from conftest import TINY, error_line, some_text
from groundup.checkpoints import model_folder
from groundup.generation.packed import Matrix, PackedLinear
from invented_items import invented, small_model, tokenizer, write_items

CLOSE = 0.01  # nats a token by which 8 bits may change the loss of a small model
LOSS = ("--task", "loss", "--corpus", "text.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, a text and items; a GPT-2, a readable GPT and a bigram in model folders."""
    made = tmp_path_factory.mktemp("weights")
    (made / "text.txt").write_text(some_text(), "utf-8")
    trained("--corpus", "text.txt", "--steps", 150, "--name", "run", *TINY, folder=made)
    items = [
        {"context": "the quick", "endings": [" brown", " fox", " dog;"], "label": number % 3}
        for number in range(9)
    ]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (made / "choices.jsonl").write_text(lines, "utf-8")
    write_items(made / "hellaswag.jsonl", invented(12))
    for architecture in ("gpt2", "readable", "bigram"):
        model = small_model(architecture).float()
        model_folder.save(made / architecture, model, tokenizer())
        small_model.cache_clear()  # others want it in float64
    return made


def evaluated(folder: Path, *args: object) -> tuple[dict[str, Any], str]:
    """What `groundup evaluate ARGS...` finds, and what it says beside that."""
    finished = groundup("evaluate", *args, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout), finished.stderr


def text_loss(folder: Path, **weights: str) -> float:
    loaded = package.load_model(folder / "runs" / "run")
    corpus = str(folder / "text.txt")
    return package.evaluate(loaded, "loss", corpus=corpus, **weights).to_json()["loss"]


def test_eight_bits_change_the_loss_a_little(folder: Path):
    own, few = text_loss(folder), text_loss(folder, quantize="int8")
    assert own < 3.0, "a model that learned nothing would be no test"
    assert 0 < abs(few - own) < CLOSE


def test_a_wrong_scale_would_be_seen(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The test above can fail: a tenth more in every matrix is further away."""
    rightly = Matrix.__init__

    def wrongly(self: Matrix, weight: torch.Tensor, dtype: torch.dtype) -> None:
        rightly(self, weight, dtype)
        assert self.scale is not None
        self.scale *= 1.1

    own = text_loss(folder)
    monkeypatch.setattr(Matrix, "__init__", wrongly)
    assert abs(text_loss(folder, quantize="int8") - own) > CLOSE


@pytest.mark.parametrize(("dtype", "steps"), [(torch.int8, 127), (torch.bfloat16, 2**8)])
def test_the_matrix_is_the_one_that_multiplies(dtype: torch.dtype, steps: int):
    weight, x = torch.randn(9, 7), torch.randn(5, 7)
    layer = PackedLinear(Matrix(weight, dtype), None, None)
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(layer(x), x @ layer.weight.T)
    furthest = weight.abs().amax(dim=1, keepdim=True) / steps  # of a row, half a step and more
    assert ((layer.weight - weight).abs() <= furthest).all()
    assert not torch.equal(layer.weight, weight)


def test_the_result_says_so_and_is_not_kept(folder: Path):
    kept = folder / "runs" / "run" / "evaluations"
    assert not kept.exists()
    few, said = evaluated(folder, "run", *LOSS, "--quantize", "int8")
    assert few["weights"] == "int8"
    assert said.endswith("not kept: int8 weights aren't the model's own\n")
    half, _ = evaluated(folder, "run", *LOSS, "--dtype", "bfloat16")
    assert half["weights"] == "bfloat16"
    assert not kept.exists()
    own, said = evaluated(folder, "run", *LOSS, "--dtype", "float32")
    assert "weights" not in own
    assert "kept in" in said
    assert len(list(kept.iterdir())) == 1
    assert 0 < abs(half["loss"] - own["loss"]) < CLOSE
    assert few["loss"] == pytest.approx(text_loss(folder, quantize="int8"), abs=1e-5)


def test_choices_are_made_with_such_weights_too(folder: Path):
    task = ("--task", "choices", "--file", "choices.jsonl", "--per-item", "items.jsonl")
    sums = []
    for flags in ((), ("--quantize", "int8")):
        found, _ = evaluated(folder, "run", *task, *flags)
        lines = (folder / "items.jsonl").read_text("utf-8").splitlines()
        sums.append(
            torch.tensor([json.loads(line)["completion"]["log_probabilities"] for line in lines])
        )
        assert found.get("weights", "") == "".join(flags[1:])
    assert not torch.equal(*sums)
    assert (sums[0] - sums[1]).abs().max() < 0.5


def test_hellaswag_is_put_to_both_forms_of_gpt2(folder: Path):
    """The readable model becomes its GPT-2, whose weights `generate` has as well."""
    task = ("--task", "hellaswag", "--file", "hellaswag.jsonl")
    for model in ("gpt2", "readable"):
        found, _ = evaluated(folder, model, *task, "--quantize", "int8")
        assert found["weights"] == "int8"
        assert len(found["results"]) == 5
    words = ("--length", 3, "--compile", "off", "--quantize", "int8")
    assert (
        "writes with int8 weights, by torch"
        in groundup("generate", "readable", *words, folder=folder).stderr
    )
    shown = groundup("evaluate", "gpt2", *task, "--dtype", "bfloat16", folder=folder)
    assert "with bfloat16 weights, not the model's own" in shown.stdout


def test_what_can_not_be_is_one_line(folder: Path):
    def refused(*args: object) -> str:
        finished = groundup("evaluate", *args, *LOSS, folder=folder)
        lines = finished.stderr.splitlines(keepends=True)
        finished.stderr = "".join(line for line in lines if not line.startswith("bigram, "))
        return error_line(finished)

    said = refused("bigram", "--quantize", "int8")
    assert "bigram is a bigram, whose table stays as it is" in said
    assert "dtype = 'float16' must be one of auto, float32, bfloat16" in refused(
        "run", "--dtype", "float16"
    )
    assert "int4" in refused("run", "--quantize", "int4")
