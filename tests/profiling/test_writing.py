"""What `groundup plan` says of writing, against the memory that an engine takes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commands import groundup, trained, write_text
from conftest import TINY, error_line, model_of
from groundup.checkpoints import model_folder
from groundup.checkpoints.model_folder import load_shape
from groundup.generation.packed import weight_bytes
from groundup.generation.slots import text_bytes, token_bytes
from groundup.generation.writer import BFLOAT16_FROM, Precision, Writer
from groundup.models.config import GPTConfig
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.registry import build_on_meta, count_parameters
from groundup.profiling.writing import plan_writing, texts_that_fit

CPU = torch.device("cpu")
CONFIG = GPTConfig(block_size=24, vocab_size=40, n_layer=3, n_head=2, n_embd=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and one of adapters on it."""
    made = tmp_path_factory.mktemp("writing")
    write_text(made)
    words = ("--corpus", "text.txt", *TINY)
    trained(*words, "--steps", 2, "--name", "run", folder=made)
    adapters = ("--init", "run", "--lora.rank", 2, "--steps", 2, "--name", "lora")
    trained(*words, *adapters, folder=made)
    return made


def answer(*args: object, folder: Path) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    finished = groundup(*args, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("compiled", ["on", "off"])
@pytest.mark.parametrize("quantize", ["", "int8"])
@pytest.mark.parametrize("architecture", ["gpt2", "modern", "readable", "bigram"])
def test_bytes_are_those_of_the_writers_tensors(
    architecture: str, quantize: str, compiled: str
) -> None:
    """All tensors that can be reached from it, each once, but what is made of few numbers."""
    if architecture == "bigram" and (compiled == "on" or quantize):
        pytest.skip("the table of a bigram needs no kernels, and is read as it is")
    model = model_of(architecture, CONFIG)
    precision = Precision(quantize=quantize, compile=compiled)
    writer = Writer(model, precision)
    writer.take_slots(5, 24)
    if writer.slots is not None:
        assert text_bytes(writer.model, 24) * 5 == writer.slots.memory.nbytes
    else:
        assert text_bytes(writer.model, 24) == 0
    shared = {
        tensor.data_ptr(): tensor.nbytes
        for module in writer.model.modules()
        for tensor in [*module.parameters(recurse=False), *tensors_of_packed(module)]
    }
    assert weight_bytes(writer.model) == sum(shared.values())


def tensors_of_packed(module: Any) -> list[torch.Tensor]:
    matrix = getattr(module, "matrix", None)
    parts = [] if matrix is None else [matrix.weight, matrix.scale, getattr(module, "bias", None)]
    return [part for part in parts if part is not None]


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "readable"])
def test_a_step_reads_all_but_the_rows_that_are_looked_up(architecture: str) -> None:
    model = model_of(architecture, CONFIG)
    looked_up = 0 if architecture == "modern" else 4 * 24 * 16  # positions
    assert weight_bytes(model) == 4 * count_parameters(model)
    assert weight_bytes(model, of_a_step=True) == weight_bytes(model) - looked_up


def test_large_models_write_in_half_the_bytes() -> None:
    """GPT-2's 124 million parameters, of which none needs memory to be counted."""
    config = GPTConfig(block_size=1024, vocab_size=50257, n_layer=12, n_head=12, n_embd=768)
    large = build_on_meta("gpt2", config)
    assert count_parameters(large) > BFLOAT16_FROM
    found = plan_writing(large, CPU)
    matrices = sum(m.weight.numel() for m in large.modules() if isinstance(m, torch.nn.Linear))
    assert found.dtype == "bfloat16"
    assert found.weights == 4 * count_parameters(large) - 2 * matrices
    assert found.each == 2 * 12 * 1024 * 768 * 4


def test_heads_that_share_keys_need_less() -> None:
    gpt2, modern = (model_of(name, CONFIG) for name in ("gpt2", "modern"))
    assert isinstance(gpt2, GPT2)
    assert isinstance(modern, Modern)
    assert text_bytes(gpt2, 10) == 3 * 2 * 32 * 16 * 4  # room is rounded up to 32
    assert token_bytes(gpt2) == 3 * 2 * 16 * 4
    assert text_bytes(modern, 10) == text_bytes(gpt2, 10) // 2
    assert text_bytes(modern.bfloat16(), 10) == text_bytes(gpt2, 10) // 4


@given(available=st.integers(0, 10**12), weights=st.integers(0, 10**11), each=st.integers(1, 10**9))
def test_as_many_texts_as_fit(available: int, weights: int, each: int) -> None:
    texts = texts_that_fit(available, weights, each)
    assert texts is not None
    assert texts == 0 or weights + texts * each <= 0.9 * available
    assert weights + (texts + 1) * each > 0.9 * available - 1


def test_a_recipe_and_its_model_need_the_same(folder: Path) -> None:
    words = ("plan", "--corpus", "text.txt", "--steps", 2, *TINY)
    of_recipe = answer(*words, folder=folder)["writing"]
    of_model = answer("plan", "--model", "run", folder=folder)
    assert of_recipe.pop("available") > 0
    assert of_model.pop("available") > 0
    texts = of_recipe.pop("texts"), of_model.pop("texts")
    assert min(texts) > 1000
    assert of_recipe == of_model
    assert of_model["weights"] == 4 * of_model["parameters"]
    assert (of_model["each"], of_model["context"]) == (2 * 2 * 32 * 16 * 4, 16)
    shown = groundup(*words, folder=folder).stdout
    for said in ("time of a step", "writing: weights", "keys and values of a text", "fit in"):
        assert said in shown


def test_of_a_model_only_headers_are_read(folder: Path, tmp_path: Path) -> None:
    shown = groundup("plan", "--model", "run", folder=folder).stdout
    assert "gpt2, 7,456 parameters" in shown
    assert "in float32" in shown
    assert "time of a step" not in shown
    for name in ("run", "lora"):
        shape = load_shape(folder / "runs" / name)
        loaded = model_folder.load_model(folder / "runs" / name)
        assert next(shape.parameters()).device.type == "meta"
        assert shape.config == loaded.model.config
        assert next(shape.parameters()).dtype == loaded.dtype
        assert asdict(plan_writing(shape, CPU))["weights"] == 4 * loaded.parameters
    half = model_folder.load_model(folder / "runs" / "run").model.bfloat16()
    model_folder.save(tmp_path / "half", half, None)
    assert answer("plan", "--model", "half", folder=tmp_path)["dtype"] == "bfloat16"
    model_folder.save(tmp_path / "bigram", model_of("bigram", CONFIG), None)
    assert "none are kept" in groundup("plan", "--model", "bigram", folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("quickstart",), "quickstart"),
        (("--config", "my.toml"), "--config"),
        (("--size", 3), "--size"),
        (("--gpu", "h100"), "--gpu"),
        (("--vocab-size", 9), "--vocab-size"),
        (("--steps", 9), "--train.steps"),
        (("--model.n-head", 2), "--model.n_head"),
    ],
)
def test_a_recipe_beside_a_model_is_refused(
    flags: tuple[object, ...], named: str, folder: Path
) -> None:
    said = error_line(groundup("plan", *flags, "--model", "run", folder=folder))
    assert f"--model run is a model without a recipe: leave out {named}" in said


def test_a_model_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    assert "nowhere" in error_line(groundup("plan", "--model", "nowhere", folder=tmp_path))
