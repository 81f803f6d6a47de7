"""The loss through a sliding window against window after window by hand; its units and passages at
the command line.
"""

import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import groundup
from conftest import error_line, some_text
from groundup import CharacterTokenizer
from groundup.checkpoints import model_folder
from groundup.data.splits import Tokens
from groundup.errors import CorpusError
from groundup.evaluation.sliding_window import bytes_of_tokens, sliding_losses
from groundup.evaluation.task import NamedModel, Settings
from groundup.evaluation.text_loss import (
    Scope,
    TextLossTask,
    only_corpus,
    shard_tokens,
    text_loss,
)
from groundup.tokenizers.base import END_OF_TEXT
from groundup.tokenizers.bytepair import BytePairTokenizer
from invented_items import small_model, tokenizer


def by_hand(model: Any, stream: np.ndarray, stride: int) -> np.ndarray:
    """Each token from the earliest start that a window may have for it: one forward pass a
    token.
    """
    losses, tokens = [], torch.from_numpy(stream.astype(np.int64))
    for target in range(1, len(stream)):
        start = max(0, -(-(target - model.block_size) // stride)) * stride
        with torch.no_grad():
            logits = model(tokens[None, start:target])[0][0, -1]
        losses.append(-float(logits.log_softmax(dim=-1)[tokens[target]]))
    return np.array(losses)


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "readable", "bigram"])
@given(length=st.integers(2, 60), stride=st.integers(1, 16), batch_size=st.integers(1, 4))
@settings(max_examples=15)
def test_every_token_is_scored_once_with_what_came_before(
    architecture: str, length: int, stride: int, batch_size: int
):
    model = small_model(architecture, 16)
    stream = np.random.default_rng(length).integers(0, 340, length).astype(np.uint16)
    found = list(sliding_losses(model, stream, stride, batch_size))
    assert [first for first, _ in found] == np.cumsum(
        [0, *(len(some) for _, some in found[:-1])]
    ).tolist()
    np.testing.assert_allclose(
        np.concatenate([some for _, some in found]), by_hand(model, stream, stride), atol=1e-10
    )


def test_streams_do_not_see_each_other():
    model = small_model("gpt2", 16)
    streams = tuple(
        np.random.default_rng(seed).integers(0, 339, 40 + seed).astype(np.uint16)
        for seed in range(3)
    )
    streams = (*streams, streams[0][:1], streams[0][:0])
    scope = Scope("all of it", Tokens(streams, tuple("abcde")), stride=5, window=16)
    found = text_loss(NamedModel("one", model, tokenizer()), "text", scope, batch_size=3)
    losses = np.concatenate([by_hand(model, stream, 5) for stream in streams[:3]])
    assert found.tokens == len(losses) == 120
    assert found.loss == pytest.approx(losses.mean(), abs=1e-6)


def test_bytes_are_those_of_the_text():
    text = some_text()
    for made in (tokenizer(), CharacterTokenizer(text)):
        counts = bytes_of_tokens(made, made.vocab_size + 5)
        assert counts[made.encode(text)].sum() == len(text.encode("utf-8"))
        assert counts[-5:].tolist() == [0] * 5
        for special in made.special_tokens.values():
            assert counts[special] == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder and a text: dull at first, then a passage that nobody expects."""
    model_folder.save(tmp_path / "model", small_model("gpt2", 16), tokenizer())
    (tmp_path / "text.txt").write_text(some_text()[:1500], "utf-8")
    return tmp_path


def measured(folder: Path, *flags: object) -> dict[str, Any]:
    finished = groundup("evaluate", "model", "--task", "loss", *flags, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_a_text_at_the_command_line(folder: Path):
    text = (folder / "text.txt").read_text("utf-8")
    stream = tokenizer().encode(text)
    result, losses = (
        measured(folder, "--corpus", "text.txt"),
        by_hand(small_model("gpt2", 16), stream, 8),
    )
    assert (result["stride"], result["block_size"], result["part"]) == (8, 16, "the whole text")
    assert result["tokens"] == len(stream) - 1
    assert result["loss"] == pytest.approx(losses.mean(), abs=1e-6)
    size = len(text.encode("utf-8")) - len(tokenizer().decode_bytes(stream[:1]))
    assert result["size"] == size
    assert result["bits_per_byte"] == pytest.approx(losses.sum() / math.log(2) / size, abs=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-5)
    means = losses[: len(losses) // 64 * 64].reshape(-1, 64).mean(axis=1)
    worst = result["worst"]
    assert [passage["loss"] for passage in worst] == pytest.approx(
        sorted(means)[::-1][:3], abs=1e-5
    )
    assert [passage["loss"] for passage in result["best"]] == pytest.approx(
        sorted(means)[:3], abs=1e-5
    )
    place = worst[0]["place"]
    assert worst[0]["text"] == tokenizer().decode(stream[place : place + 64])
    shorter = measured(folder, "--corpus", "text.txt", "--limit", 100, "--stride", 16)
    assert shorter["tokens"] == 99
    assert shorter["loss"] == pytest.approx(
        by_hand(small_model("gpt2", 16), stream[:100], 16).mean(), abs=1e-6
    )


def test_shards_at_the_command_line(folder: Path):
    documents = "".join(
        json.dumps({"text": f"{number} {some_text()[:200]}"}) + "\n" for number in range(12)
    )
    (folder / "documents.jsonl").write_text(documents, "utf-8")
    tokenizer().save(folder / "model")
    prepared = groundup(
        *(
            "prepare",
            "documents.jsonl",
            "--out",
            "shards",
            "--tokenizer",
            "model",
            "--validation",
            0.3,
        ),
        *("--workers", 1),
        folder=folder,
    )
    assert prepared.returncode == 0, prepared.stderr
    result = measured(folder, "--corpus", "shards")
    index = json.loads((folder / "shards" / "index.json").read_text("utf-8"))["splits"][
        "validation"
    ]
    assert result["part"] == "the validation split"
    assert result["tokens"] == index["tokens"] - len(index["shards"])
    assert result["size"] == index["bytes"]  # the first token, which isn't scored, is end-of-text
    assert (
        tokenizer().special_tokens[END_OF_TEXT]
        not in tokenizer().encode(result["worst"][0]["text"]).tolist()
    )


def test_ids_above_the_vocabulary_never_reach_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In a corpus so large that opening it doesn't read it."""
    monkeypatch.setattr("groundup.data.shard_folder.READ_WHOLE", 0)
    for name in ("train.bin", "val.bin"):
        np.arange(400, dtype="<u2").tofile(tmp_path / name)
    with pytest.raises(
        CorpusError, match="token 352 at position 352, but the vocabulary ends at 351"
    ):
        shard_tokens(only_corpus(str(tmp_path)), NamedModel("one", small_model(), tokenizer()))


def test_a_reader_is_told_how_it_was_measured(folder: Path):
    finished = groundup(
        "evaluate", "model", "--task", "loss", "--corpus", "text.txt", folder=folder
    )
    assert finished.returncode == 0, finished.stderr
    for said in (
        "nats a token",
        "bits a byte",
        "perplexity",
        "stride 8",
        "worst passages",
        "best passages",
    ):
        assert said in finished.stdout, said


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose context is longer than what a laptop reads at once, one of 16, and a text."""
    place = tmp_path_factory.mktemp("wide")
    model_folder.save(place / "model", small_model("bigram", 4096), tokenizer())
    model_folder.save(place / "narrow", small_model("gpt2", 16), tokenizer())
    (place / "text.txt").write_text(some_text() * 2, "utf-8")
    return place


@pytest.mark.parametrize(
    ("flags", "window", "stride"),
    [
        ((), 2048, 1024),
        (("--window", 4096), 4096, 2048),
        (("--window", 100, "--stride", 100), 100, 100),
    ],
)
def test_a_window_is_at_most_2048_tokens_unless_more_is_asked_for(
    flags: tuple[object, ...], window: int, stride: int, wide: Path
):
    """The longest pass that the model makes is as long as what is stated."""
    words = ("evaluate", "model", "--task", "loss", "--corpus", "text.txt", *flags)
    result = measured(wide, "--corpus", "text.txt", *flags)
    assert (result["block_size"], result["stride"]) == (window, stride)
    said = groundup(*words, folder=wide).stdout
    assert f"windows of {window:,} tokens, stride {stride:,}:" in said
    compared = groundup("compare", "model", "narrow", *words[2:6], "--json", folder=wide)
    assert json.loads(compared.stdout)["block_size"] == [2048, 16]


def test_no_pass_is_longer_than_the_window(wide: Path, monkeypatch: pytest.MonkeyPatch):
    lengths: list[int] = []
    model = small_model("bigram", 4096)
    hidden = model.hidden

    def watched(tokens: torch.Tensor, *args: Any) -> torch.Tensor:
        lengths.append(tokens.shape[1])
        return hidden(tokens, *args)

    monkeypatch.setattr(model, "hidden", watched)
    corpus = only_corpus(str(wide / "text.txt"))
    for window in (None, 100):
        settings = Settings(batch_size=8, window=window)
        task = TextLossTask(corpus, settings)
        task.evaluate(NamedModel("one", model, tokenizer()), lambda _what, _of: lambda _done: None)
        assert max(lengths) == (window or 2048)
        assert len(lengths) > 1
        lengths.clear()


def test_a_window_that_the_model_has_not_is_refused(wide: Path):
    for model, window, most in (("model", 4097, 4096), ("narrow", 17, 16), ("narrow", 0, 16)):
        words = ("evaluate", model, "--task", "loss", "--corpus", "text.txt", "--window", window)
        line = groundup(*words, folder=wide).stderr.splitlines()[-1]
        assert f"--window {window} must be from 1 to the model's context, {most}" in line


def test_a_text_that_the_tokenizer_changes_is_refused_by_its_name(wide: Path):
    """A tokenizer that composes letters (NFC) makes one character of two: other bytes."""
    contents = tokenizer().contents | {"normalizer": {"type": "NFC"}}  # type: ignore[attr-defined]
    composing = BytePairTokenizer(contents, "made")
    model_folder.save(wide / "composing", small_model("gpt2", 16), composing)
    decomposed = some_text() + "cafe\u0301"
    (wide / "decomposed.txt").write_text(decomposed, "utf-8")
    (wide / "composed.txt").write_text(unicodedata.normalize("NFC", decomposed), "utf-8")
    task = ("--task", "loss", "--corpus")
    for words in (("evaluate", "composing"), ("compare", "narrow", "composing")):
        refused = groundup(*words, *task, "decomposed.txt", folder=wide)
        assert refused.returncode == 2
        line = refused.stderr.splitlines()[-1]
        assert "the model's tokenizer changes the text before it reads it" in line
        assert "Give a text in Unicode's form NFC" in line
        assert (words[0] == "compare") == ("composing: " in line)
        taken = groundup(*words, *task, "composed.txt", folder=wide)
        assert taken.returncode == 0, taken.stderr
    assert groundup("evaluate", "narrow", *task, "decomposed.txt", folder=wide).returncode == 0


def test_faults_of_a_text_are_one_line(folder: Path):
    def refused(*flags: object) -> str:
        finished = groundup("evaluate", "model", "--task", "loss", *flags, folder=folder)
        lines = finished.stderr.splitlines(keepends=True)
        finished.stderr = "".join(line for line in lines if not line.startswith("gpt2, "))
        return error_line(finished)

    assert "--task loss needs a text" in refused()
    assert "nowhere.txt is neither a file or folder" in refused("--corpus", "nowhere.txt")
    assert "--stride 17 must be from 1 to the windows' 16 tokens" in refused(
        "--corpus", "text.txt", "--stride", 17
    )
    assert "--stride 0 must be" in refused("--corpus", "text.txt", "--stride", 0)
    assert "has 1 tokens: a loss needs 2" in refused("--corpus", "text.txt", "--limit", 1)
