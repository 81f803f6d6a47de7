"""Tokenizers that give all documents the same ids stand for each other; what differs is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from commands import groundup, metrics, trained
from conftest import TINY, error_line, some_text
from groundup import CharacterTokenizer
from groundup.checkpoints import model_folder
from groundup.models.config import GPTConfig
from groundup.models.gpt2 import GPT2
from groundup.tokenizers.agreement import disagreement
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.foreign import ForeignTokenizer
from shard_files import documents, learned, write_shards

ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
FAST = ("--train.compile", "off", "--train.threads", 1, "--eval.sample-length", 0)


def with_token(name: str, special: bool = True) -> Tokenizer:
    """`learned()` with one more token at the end of its vocabulary."""
    contents: Any = learned().contents  # type: ignore[attr-defined]
    token = {"id": learned().vocab_size, "content": name, **ADDED, "special": special}
    more = contents | {"added_tokens": [*contents["added_tokens"], token]}
    return BytePairTokenizer(more, "made") if special else ForeignTokenizer(more, "made")


def with_ids_exchanged(first: str, second: str) -> Tokenizer:
    """`learned()`, in which two letters have each other's id."""
    contents: Any = json.loads(json.dumps(learned().contents))  # type: ignore[attr-defined]
    ids = contents["model"]["vocab"]
    ids[first], ids[second] = ids[second], ids[first]
    return BytePairTokenizer(contents, "made")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and shards of `learned()` and of one that has a token for padding besides."""
    place = tmp_path_factory.mktemp("agreement")
    for name, tokenizer in {"plain": learned(), "padded": with_token("<|pad|>")}.items():
        config = GPTConfig(16, tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=16)
        model_folder.save(place / name, GPT2(config), tokenizer)
        write_shards(place / f"{name}-shards", tokenizer, documents(text=6 * some_text()))
    return place


@pytest.mark.parametrize(
    ("model", "shards", "said"),
    [
        ("padded", "plain-shards", "'<|pad|>' is missing in the first and 300 in the second"),
        ("plain", "padded-shards", "'<|pad|>' is 300 in the first and missing in the second"),
    ],
)
def test_a_model_goes_on_with_shards_of_the_same_ids(
    model: str, shards: str, said: str, folder: Path
) -> None:
    run = ("--corpus", shards, "--model.block-size", 16, "--name", f"on-{shards}")
    finished = trained("finetune", "--init", model, *FAST, *run, "--steps", 2, folder=folder)
    assert "that of the model to start from gives the same ids" in finished.stdout
    assert said in finished.stdout
    resumed = trained("--resume", f"on-{shards}", "--steps", 3, folder=folder)
    assert said in resumed.stdout
    kept = folder / "runs" / f"on-{shards}" / "checkpoints" / "latest" / "tokenizer.json"
    assert ("<|pad|>" in kept.read_text("utf-8")) == (model == "padded")


def test_a_named_tokenizer_and_a_mixture_may_have_the_same_ids_too(folder: Path) -> None:
    shape = ("--model.block-size", 16, *FAST, "--steps", 1)
    both = ("--corpus", "plain-shards:1,padded-shards:1", "--data.tokenizer", "plain")
    finished = trained("finetune", "--init", "padded", *both, *shape, folder=folder)
    assert "corpus plain-shards was made by the tokenizer mine" in finished.stdout
    mixed = trained(
        *TINY, "--corpus", "padded-shards:1,plain-shards:1", "--steps", 1, folder=folder
    )
    assert "corpus plain-shards was made by the tokenizer mine" in mixed.stdout


def test_models_are_measured_on_shards_of_the_same_ids(folder: Path) -> None:
    task = ("--task", "loss", "--corpus", "plain-shards", "--json")
    evaluated = groundup("evaluate", "padded", *task, folder=folder)
    assert evaluated.returncode == 0, evaluated.stderr
    compared = groundup("compare", "plain", "padded", *task, folder=folder)
    assert compared.returncode == 0, compared.stderr
    first, second = json.loads(compared.stdout)["tokens"]
    assert first == second > 1000


def test_curves_of_the_same_ids_compare_in_nats_a_token(folder: Path) -> None:
    for model in ("plain", "padded"):
        run = ("--corpus", f"{model}-shards", "--name", model)
        trained(*TINY, *run, "--steps", 1, folder=folder)
        assert metrics(folder / "runs" / model, "evaluation")
    found = groundup("compare", "plain", "padded", "--json", folder=folder)
    assert json.loads(found.stdout)["unit"] == "nats a token"


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (
            with_ids_exchanged("R", "S"),
            "tokens: b'R' is 82 in the first and 83 in the second, b'S' is 83 in the first",
        ),
        (
            with_token("return", special=False),
            "tokens that are found in texts: 'return' is missing in the first and 300",
        ),
    ],
)
def test_other_ids_are_refused_and_named(other: Tokenizer, named: str, folder: Path) -> None:
    place = folder / str(len(named))
    model_folder.save(place, GPT2(GPTConfig(16, other.vocab_size, 1, 2, 16)), other)
    run = ("--corpus", "plain-shards", "--model.block-size", 16, "--steps", 1)
    line = error_line(groundup("train", "finetune", "--init", place, *run, folder=folder))
    assert "the model to start from is another one" in line
    assert f"Of the two, they differ in {named}" in line


def test_what_differs_is_said_of_every_part() -> None:
    contents: Any = learned().contents  # type: ignore[attr-defined]
    merges = contents["model"]["merges"]
    model = contents["model"] | {"merges": merges[:-1]}
    shorter = BytePairTokenizer(contents | {"model": model}, "made")
    composed = BytePairTokenizer(contents | {"normalizer": {"type": "NFC"}}, "made")
    other_end = with_token("<|end|>")
    other_end.end_of_text = 300  # type: ignore[misc]
    letters, more = CharacterTokenizer("abc"), CharacterTokenizer("abcd")
    assert disagreement(learned(), shorter) == "they differ in merges"
    assert disagreement(learned(), composed) == "they differ in how texts are cut into words"
    assert "the token that separates documents: 299 and 300" in disagreement(learned(), other_end)
    assert (
        disagreement(letters, more)
        == "they differ in characters: 'd' is missing in the first and 3 in the second"
    )
    assert disagreement(letters, learned()) == "only one of them is of characters"
    assert disagreement(learned(), with_token("<|pad|>")) == ""


def test_tokens_that_agree_give_texts_the_same_ids() -> None:
    text = some_text() + "<|pad|>"
    assert with_token("<|pad|>").encode(text).tolist() == learned().encode(text).tolist()
