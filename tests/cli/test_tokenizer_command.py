"""`groundup tokenizer`, and training with what it makes, as a user meets them."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from commands import flags, groundup, metrics, trained
from conftest import Cli, error_line, perturb, some_text
from groundup.checkpoints.model_folder import load, save
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import (
    encode_prompt,
    stream_text,
    stream_tokens,
    write_text,
)
from groundup.models.config import GPTConfig
from groundup.models.gpt2 import GPT2
from groundup.tokenizers import BytePairTokenizer, CharacterTokenizer, load_tokenizer
from groundup.tokenizers.base import END_OF_TEXT, TOKENIZER_FILE
from groundup.tokenizers.train import learn_tokenizer


@pytest.fixture
def learned(tmp_path: Path, text_file: Path) -> Path:
    """A tokenizer of 300 tokens, learned from the text on the command line."""
    finished = groundup(
        "tokenizer", "train", text_file, "--vocab-size", 300, "--out", "mine", folder=tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    assert "300 tokens in" in finished.stdout
    assert "groundup train --corpus" in finished.stdout
    return tmp_path / "mine"


def test_what_was_learned_trains_resumes_and_writes(learned: Path, tmp_path: Path) -> None:
    chosen = flags({"--data.tokenizer": "mine", "--eval.every": 2})
    trained(*chosen, "--steps", 4, "--name", "bpe", folder=tmp_path)
    run = tmp_path / "runs" / "bpe"
    assert json.loads((run / "run.json").read_text("utf-8"))["vocab_size"] == 300
    _, tokenizer = load(run)
    assert isinstance(tokenizer, BytePairTokenizer)
    assert (
        tokenizer.encode(some_text()).tolist()
        == load_tokenizer(learned).encode(some_text()).tolist()
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    resumed = groundup("train", "--resume", run, "--steps", 6, folder=elsewhere)
    assert resumed.returncode == 0, resumed.stderr
    first, *_, last = metrics(run, "evaluation")
    assert last["step"] == 6
    ids = tokenizer.encode(some_text())
    validation = ids[int(len(ids) * 0.9) :]
    size = len(tokenizer.decode(validation).encode("utf-8", "surrogateescape")) / len(validation)
    assert last["bits_per_byte"] == pytest.approx(
        last["validation_loss"] / math.log(2) / size, rel=0.01
    )
    written = groundup(
        "generate", run, "--prompt", "the quick čtyři", "--length", 20, "--seed", 1, folder=tmp_path
    )
    assert written.returncode == 0
    assert written.stdout.startswith("the quick čtyři")
    assert first["bits_per_byte"] > last["bits_per_byte"]
    unprompted = groundup("generate", run, "--length", 3, "--seed", 1, folder=tmp_path)
    assert unprompted.returncode == 0, unprompted.stderr


def test_a_model_keeps_the_tokenizer_that_it_was_trained_with(
    learned: Path, tmp_path: Path
) -> None:
    trained(*flags({"--data.tokenizer": "mine"}), "--steps", 1, "--name", "bpe", folder=tmp_path)
    trained(*flags(), "--init", "bpe", "--steps", 1, "--name", "on", folder=tmp_path)
    assert isinstance(load(tmp_path / "runs" / "on")[1], BytePairTokenizer)
    for other in ("characters", "gpt2"):
        refused = groundup(
            "train", *flags({"--data.tokenizer": other}), "--init", "bpe", folder=tmp_path
        )
        assert f"data.tokenizer = {other}, but the model to start from has another" in error_line(
            refused
        )
    trained(
        *flags({"--data.tokenizer": "characters"}),
        "--steps",
        1,
        "--name",
        "letters",
        folder=tmp_path,
    )
    refused = groundup(
        "train", *flags({"--data.tokenizer": "mine"}), "--init", "letters", folder=tmp_path
    )
    assert "data.tokenizer = mine, but the model to start from has another" in error_line(refused)


def test_a_checkpoint_with_byte_pairs_is_a_hugging_face_model(
    learned: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    trained(*flags({"--data.tokenizer": "mine"}), "--steps", 1, "--name", "bpe", folder=tmp_path)
    folder = tmp_path / "runs" / "bpe" / "checkpoints" / "latest"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    assert theirs(some_text())["input_ids"] == ours.encode(some_text()).tolist()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.from_numpy(ours.encode("the lazy dog"))[None]
    torch.testing.assert_close(model(tokens).logits, load(folder)[0](tokens)[0], rtol=0, atol=1e-5)


def test_pieces_are_whole_characters() -> None:
    tokenizer = learn_tokenizer(["x"], 257)  # bytes alone: each emoji takes four tokens
    model = GPT2(GPTConfig(block_size=8, vocab_size=257, n_layer=1, n_head=1, n_embd=8))
    perturb(model, scale=1.0)
    prompt, drawn = (
        encode_prompt("🙂é", tokenizer),
        SamplingSettings(length=300, temperature=1.0, seed=3),
    )
    pieces = list(stream_text(model, tokenizer, prompt, drawn))
    ends = frozenset({tokenizer.special_tokens[END_OF_TEXT]})
    assert "".join(pieces) == tokenizer.decode(stream_tokens(model, prompt, drawn, ends=ends))
    assert tokenizer.decode_bytes(prompt[0]) == "🙂é".encode()
    assert encode_prompt("", tokenizer).tolist() == [[ord("\n")]]
    assert encode_prompt("", CharacterTokenizer("ab")).tolist() == [[0]]
    assert encode_prompt("", CharacterTokenizer("a\nb")).tolist() == [[0]]


def test_a_padded_vocabulary_trains_on_and_writes_only_what_has_a_text(tmp_path: Path) -> None:
    tokenizer = learn_tokenizer([some_text()], 300)
    model = GPT2(GPTConfig(block_size=16, vocab_size=320, n_layer=2, n_head=2, n_embd=16))
    save(tmp_path / "padded", model, tokenizer)
    wild = [SamplingSettings(length=100, temperature=5.0, seed=seed) for seed in range(20)]
    assert len("".join(write_text(model, tokenizer, settings, "the") for settings in wild)) > 400
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    trained(*flags(), "--init", "padded", "--steps", 1, "--name", "on", folder=tmp_path)
    loaded, found = load(tmp_path / "runs" / "on")
    assert loaded.config.vocab_size == 320
    assert found is not None
    assert found.vocab_size == 300


def test_show_prints_every_piece_and_id(learned: Path, tmp_path: Path) -> None:
    shown = groundup("tokenizer", "show", "the 🙂\n", "--tokenizer", "mine", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    *pieces, ids, summary = shown.stdout.splitlines()
    tokenizer = load_tokenizer(learned)
    assert list(map(int, ids.split())) == tokenizer.encode("the 🙂\n").tolist()
    assert pieces[0].replace("|", "").startswith("the <f0><9f>")
    assert "⏎" in "".join(pieces)
    assert "6 characters, 9 bytes" in summary


def test_gpt2_is_the_tokenizer_to_show(tmp_path: Path) -> None:
    shown = groundup("tokenizer", "show", f"Hello world{END_OF_TEXT}", folder=tmp_path)
    assert shown.stdout.splitlines()[1].split()[:3] == ["15496", "995", "27"]


def test_compare_prints_bytes_a_token_of_each(learned: Path, tmp_path: Path) -> None:
    shown = groundup(
        "tokenizer",
        "compare",
        "characters",
        "gpt2",
        "mine",
        "--corpus",
        "text.txt",
        folder=tmp_path,
    )
    assert shown.returncode == 0, shown.stderr
    rows = {
        line.split()[0]: line.split()[1:]
        for line in shown.stdout.splitlines()
        if len(line.split()) == 5
    }
    for name in ("gpt2", "mine"):
        tokens = len(
            load_tokenizer(tmp_path / name if name == "mine" else name).encode(some_text())
        )
        assert rows[name][1] == f"{tokens:,}"
        assert rows[name][2] == f"{len(some_text().encode()) / tokens:.3f}"
    assert rows["characters"][1] == "6,000"


def test_what_goes_wrong_is_one_line(learned: Path, tmp_path: Path, cli: Cli) -> None:
    before = (learned / TOKENIZER_FILE).read_bytes()
    again = groundup("tokenizer", "train", "text.txt", "--out", "mine", folder=tmp_path)
    assert "already exists" in error_line(again)
    assert (learned / TOKENIZER_FILE).read_bytes() == before
    missing = groundup("tokenizer", "train", "nowhere.txt", "--out", "other", folder=tmp_path)
    assert "corpus nowhere.txt is neither" in error_line(missing)
    few = groundup(
        "tokenizer", "train", "text.txt", "--vocab-size", 100, "--out", "other", folder=tmp_path
    )
    assert "vocab_size = 100 must be at least 257" in error_line(few)
    assert not (tmp_path / "other").exists()
    unknown = groundup("tokenizer", "show", "x", "--tokenizer", "gpt3", folder=tmp_path)
    assert "tokenizer gpt3 is neither gpt2 nor" in error_line(unknown)
    blocked = groundup(
        "tokenizer",
        "train",
        "text.txt",
        "--vocab-size",
        300,
        "--out",
        "text.txt/x",
        folder=tmp_path,
    )
    assert "can't be written" in error_line(blocked)
    unreachable = cli(
        "tokenizer", "show", "x", env={"GROUNDUP_CACHE": str(tmp_path / "empty"), **dead_proxy()}
    )
    assert "can't download" in error_line(unreachable)
    more = groundup(
        "tokenizer", "train", "text.txt", "--vocab-size", 60_000, "--out", "big", folder=tmp_path
    )
    assert "no more pairs to learn" in more.stderr


def dead_proxy() -> dict[str, str]:
    """An environment in which nothing can be downloaded."""
    return dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9") | {
        "no_proxy": "",
        "PATH": os.environ["PATH"],
    }
