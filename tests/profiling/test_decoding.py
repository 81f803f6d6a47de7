"""`groundup bench --decode`: what is counted, and that each step is one of all texts."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import flags, groundup, trained, write_text
from conftest import TINY, error_line, model_of
from groundup.errors import GenerationError
from groundup.generation.engine import Engine
from groundup.generation.settings import SamplingSettings
from groundup.generation.writer import Precision, Writer
from groundup.machine import memory
from groundup.models.config import GPTConfig
from groundup.profiling import decoding
from groundup.profiling.decoding import decode_bench, sizes_that_fit
from groundup.profiling.operations import READ_BYTES, read_bandwidth

CONFIG = GPTConfig(block_size=24, vocab_size=40, n_layer=3, n_head=2, n_embd=16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("decoding")
    write_text(made)
    trained("--corpus", "text.txt", *TINY, "--steps", 2, "--name", "run", folder=made)
    return made


def answer(*args: object, folder: Path) -> dict[str, Any]:
    """The one JSON object that `groundup bench --decode` prints."""
    finished = groundup("bench", "--decode", "--repeat", 9, *args, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def without_corpus(changes: dict[str, object]) -> list[str]:
    words = flags({"--corpus": "none"} | changes)
    return [word for word in words if word not in ("--corpus", "none")]


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_a_recipe_writes_with_random_weights(architecture: str, tmp_path: Path) -> None:
    changes = {"--model.architecture": architecture, "--model.n-head": "2"}
    found = answer("shakespeare-cpu", *without_corpus(changes), folder=tmp_path)
    assert found["architecture"] == architecture
    assert (found["dtype"], found["compiled"], found["prompt"]) == ("float32", True, 8)
    assert found["weights"] == 4 * found["parameters"]
    assert [batch["texts"] for batch in found["batches"]] == [1, 4, 16]
    for batch in found["batches"]:
        assert batch["tokens_per_second"] * batch["step_seconds"] == pytest.approx(batch["texts"])
        reached = batch["bytes_per_step"] / batch["step_seconds"]
        assert reached / found["read_bandwidth"] == pytest.approx(batch["bandwidth_share"])
        assert batch["first_token_seconds"] > batch["step_seconds"] > 0
    first = found["batches"][0]["first_token_seconds"]
    assert found["prefill_tokens_per_second"] == pytest.approx(8 / first)
    assert not (tmp_path / "runs").exists()


def test_the_bytes_of_a_step_are_weights_keys_and_values(folder: Path) -> None:
    """Of a GPT-2 of 2 x 2 x 16: all but positions; keys and values of 8 to 16 tokens."""
    found = answer("--model", "run", folder=folder)
    weights = 4 * found["parameters"] - 4 * 16 * 16
    for batch in found["batches"]:
        assert batch["bytes_per_step"] == weights + batch["texts"] * 2 * 2 * 12 * 16 * 4


def test_weights_are_chosen_as_for_generate(folder: Path) -> None:
    few = answer("--model", "run", "--quantize", "int8", folder=folder)
    assert few["dtype"] == "int8"
    assert few["weights"] < 0.5 * 4 * few["parameters"]
    half = answer("--model", "run", "--dtype", "bfloat16", "--compile", "off", folder=folder)
    assert (half["dtype"], half["compiled"]) == ("bfloat16", False)
    assert half["batches"][0]["bytes_per_step"] > few["batches"][0]["bytes_per_step"]


def test_a_table_says_how_near_the_bound_is(folder: Path) -> None:
    words = ("bench", "--decode", "--model", "run", "--repeat", 3)
    finished = groundup(*words, folder=folder, env={"COLUMNS": "120"})
    assert finished.returncode == 0, finished.stderr
    for said in ("7,456 parameters", "by groundup's C++", "GB/s", "of 8 tokens", "16 texts at"):
        assert said in finished.stdout
    assert finished.stdout.count("of the bandwidth bound") == 3
    assert finished.stdout.count("first token of all") == 3


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "readable", "bigram"])
def test_every_step_that_is_timed_writes_a_token_of_each_text(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that a step moves by one."""
    clock = itertools.count()
    written: list[int] = []

    def timed(step: Any, _: torch.device) -> float:
        step()
        written.append(sum(len(choice.tokens) for choice in asked[-1].choices))
        return float(next(clock))

    engine = Engine(model_of(architecture, CONFIG), slots=4, room=24)
    submit, asked = engine.submit, []
    monkeypatch.setattr(engine, "submit", lambda *args: asked.append(submit(*args)) or asked[-1])
    monkeypatch.setattr(decoding, "timed", timed)
    settings = SamplingSettings(length=6, temperature=0.0)
    prompts = decoding._prompts(40, 12)
    seconds = decoding._seconds_of_steps(engine, prompts, 4, settings, 8)
    # with a cache, the step that reads the prompt writes two tokens
    first = 3 if engine.writer.has_cache else 2
    assert seconds == [float(number) for number in range(2 * (7 - first))]
    assert written == 2 * [4 * tokens for tokens in range(first, 7)]


def test_only_what_fits_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot of 24 tokens has room for 32, which take 12,288 bytes; the weights take 42,240."""
    model = model_of("gpt2", CONFIG)
    size, each = 4 * sum(weight.numel() for weight in model.parameters()), 3 * 2 * 32 * 16 * 4
    own, few = Writer(model, Precision()), Writer(model, Precision(quantize="int8"))
    for texts, sizes in ((0, [1]), (3, [1]), (4, [1, 4]), (15, [1, 4]), (16, [1, 4, 16])):
        available = int((size + texts * each) / 0.9) + 2
        monkeypatch.setattr(memory, "available", lambda _, found=available: found)
        assert sizes_that_fit(model, own, 24) == sizes
    # the model's own weights are there beside the packed ones
    assert sizes_that_fit(model, few, 24) == [1, 4]
    found = decode_bench(model, Precision(quantize="int8"), 20)
    assert [batch.texts for batch in found.batches] == [1, 4]
    monkeypatch.setattr(memory, "available", lambda _: 0)
    assert sizes_that_fit(model_of("bigram", CONFIG), own, 24) == [1]


def test_a_context_too_short_is_refused() -> None:
    five, four = (model_of("gpt2", replace(CONFIG, block_size=size)) for size in (5, 4))
    assert len(decode_bench(five, Precision(), 2).batches) == 3
    with pytest.raises(GenerationError, match=r"context is 4: .* at least 5 tokens"):
        decode_bench(four, Precision(), 2)


def test_bandwidth_is_bytes_over_the_fastest_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.1, *[2.0] * 5, 0.5, *[2.0] * 3])  # the first one only warms up
    monkeypatch.setattr(
        "groundup.profiling.operations.timed", lambda work, _: work() is None or next(times)
    )
    assert read_bandwidth(CPU) == READ_BYTES[False] / 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "run"), "--model says what writes: add --decode"),
        (("--quantize", "int8"), "--quantize or --compile says what writes: add --decode"),
        (("--decode", "quickstart", "--model", "run"), "without a recipe: leave out quickstart"),
        (("--decode", "--model", "run", "--size", "3"), "without a recipe: leave out --size"),
        (("--decode", "--model", "run", "--train.seed", "3"), "leave out --train.seed"),
        (("--decode", "--model", "nowhere"), "nowhere"),
        (("--decode", "--vocab-size", "-1"), "--vocab-size -1 isn't the size of a vocabulary"),
        (("--decode", "--repeat", "0"), "--repeat 0 must be at least 1"),
        (("--decode", "--dtype", "half"), "dtype = 'half' must be one of auto"),
    ],
)
def test_a_wrong_question_about_writing_is_answered_in_one_line(
    words: tuple[str, ...], said: str, folder: Path
) -> None:
    assert said in error_line(groundup("bench", *words, folder=folder))
