"""Small texts: what `prepare` says to do with its shards can be done."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest

from commands import flags, groundup
from conftest import TINY, some_text
from groundup.data.shard_folder import open_folder
from groundup.prepare.pipeline import prepare
from groundup.prepare.plan import Preparation
from groundup.tokenizers.load import load_tokenizer
from sample_sources import documents_in, small_tokenizer


def piece(size: int, number: int) -> str:
    """A piece of a book of about that many characters, in paragraphs."""
    words = some_text().split()
    lines = [" ".join(words[start:][:60]) + f" {number}.{start}" for start in range(0, 1400, 60)]
    text = "\n\n".join(lines)
    return (text + "\n\n" + text.replace("fox", f"cat{number}")) * (1 + size // (2 * len(text)))


@pytest.mark.parametrize("number", range(10))
def test_a_piece_of_a_book_has_a_validation_split(number: int, tmp_path: Path):
    text = piece(20_000 + 2_000 * number, number)
    (tmp_path / "book.txt").write_text(text, "utf-8")
    tokenizer = small_tokenizer(tmp_path / "small")
    prepared = prepare(Preparation(str(tmp_path / "book.txt"), str(tokenizer)), tmp_path / "out", 1)
    sizes = {split: len(documents_in(tmp_path / "out", split)) for split in prepared.shards}
    assert sizes["validation"] > 0
    assert sizes["train"] >= sizes["validation"]
    found = [
        *documents_in(tmp_path / "out", "train"),
        *documents_in(tmp_path / "out", "validation"),
    ]
    assert sum(map(len, found)) == len(text)


def test_two_short_documents_are_one_for_each_split(tmp_path: Path):
    (tmp_path / "two.jsonl").write_text('{"text": "one document"}\n{"text": "another"}\n')
    tokenizer = small_tokenizer(tmp_path / "small")
    for seed in range(3):
        out = tmp_path / f"out{seed}"
        prepare(Preparation(str(tmp_path / "two.jsonl"), str(tokenizer), seed=seed), out, 1)
        assert [len(documents_in(out, split)) for split in ("train", "validation")] == [1, 1]


def test_what_a_folder_has_besides_texts_is_said(tmp_path: Path):
    small_tokenizer(tmp_path / "small")
    for name in ("mine/book.txt", "mine/.git/x.txt", "mine/half/.work/plan.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a word\n\nanother")
    done = groundup("prepare", "mine", "--out", "o", "--tokenizer", "small", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "left out of mine: 1 hidden ones (.git); 1 folders of shards (half)"
    assert said in done.stderr


def test_the_share_for_validation_is_in_python_as_on_the_command_line():
    """A corpus of the web has so many documents that few of them measure enough."""
    for source in ("fineweb-edu", "openwebtext", "hf://datasets/a/b"):
        assert Preparation(source).validation == 0.001
        assert Preparation(source, validation=0.1).validation == 0.1
    assert Preparation("mine.txt").validation == 0.1


def test_what_is_printed_to_do_next_can_be_done(tmp_path: Path):
    """The printed command is run as it is; where none would succeed none is printed."""
    small_tokenizer(tmp_path / "small")
    (tmp_path / "my book.txt").write_text(piece(20_000, 3), "utf-8")
    done = groundup(
        "prepare", "my book.txt", "--out", "my shards", "--tokenizer", "small", folder=tmp_path
    )
    command = re.search("train on it: groundup (.*)", done.stdout)
    assert command
    trained = groundup(*shlex.split(command[1]), "--steps", 1, *TINY, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (tmp_path / "tiny.txt").write_text("a word")
    done = groundup("prepare", "tiny.txt", "--out", "tiny", "--tokenizer", "small", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train on it" not in done.stdout
    assert "no document for validation" in done.stdout


def test_a_refusal_of_shards_without_validation_names_what_helps(tmp_path: Path):
    small_tokenizer(tmp_path / "small")
    (tmp_path / "book.txt").write_text(piece(20_000, 3), "utf-8")
    words = ("prepare", "book.txt", "--tokenizer", "small", "--validation")
    groundup(*words, 0, "--out", "none", folder=tmp_path)
    refused = groundup("train", "--corpus", "none", "--steps", 1, *TINY, folder=tmp_path)
    assert refused.returncode == 2
    assert "--validation 0.1" in refused.stderr
    assert "Lower model.block_size" not in refused.stderr
    assert open_folder(tmp_path / "none").shards["validation"] == []


STORIES = [f"Once upon a time, number {number}.\n\nThe end." for number in range(200)]


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl"])
def test_stories_joined_by_markers_are_cut_there(suffix: str, tmp_path: Path):
    small_tokenizer(tmp_path / "small")
    text = "\n<|endoftext|>\n".join(STORIES)
    path = tmp_path / f"stories{suffix}"
    content = json.dumps({"text": text}) if suffix == ".jsonl" else text
    data = content.encode()
    path.write_bytes(gzip.compress(data) if suffix == ".txt.gz" else data)
    words = ("prepare", path, "--tokenizer", "small", "--out")
    joined = groundup(*words, "joined", folder=tmp_path)
    assert joined.returncode == 0, joined.stderr
    counts = re.findall(r"literal markers(?: in validation)?\t(\d+) in", joined.stdout)
    assert sum(map(int, counts)) == 199
    assert "--separator '<|endoftext|>'" in joined.stdout
    done = groundup(*words, "cut", "--separator", "<|endoftext|>", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "literal markers" not in done.stdout
    shards = (documents_in(tmp_path / "cut", split) for split in ("train", "validation"))
    found = [text for split in shards for text in split]
    assert sorted(found) == sorted(STORIES)
    trained = groundup("train", "--corpus", path, "--steps", 1, *TINY, folder=tmp_path)
    said = "199 times <|endoftext|> is learned as text"
    assert said in trained.stdout
    printed = re.search(r"documents there: groundup (prepare .*) --out FOLDER", trained.stdout)
    assert printed
    again = groundup(
        *shlex.split(printed[1]), "--out", "again", "--tokenizer", "small", folder=tmp_path
    )
    assert again.returncode == 0, again.stderr


def edited_tokenizer(folder: Path, end: object, *, newline: bool = True) -> Path:
    """The small tokenizer with an end of texts of its own name, or none; perhaps CRLF-minded."""
    contents = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    [added] = contents["added_tokens"]
    added["content"] = "</done>"
    contents["added_tokens"] = [added] if end else []
    if not newline:  # a line's end becomes two tokens
        contents["normalizer"] = {"type": "Replace", "pattern": {"String": "\n"}, "content": "\n "}
    (folder / "tokenizer.json").write_text(json.dumps(contents), "utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"eos_token": end} if end else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.mark.parametrize("end", ["</done>", {"content": "</done>", "special": True}])
def test_a_tokenizers_own_end_of_text_separates_documents(end: object, tmp_path: Path):
    folder = edited_tokenizer(small_tokenizer(tmp_path / "small"), end)
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
    prepare(Preparation(str(tmp_path / "a.jsonl"), str(folder)), tmp_path / "out", 1)
    end_id = load_tokenizer(tmp_path / "out" / "tokenizer").special_tokens["</done>"]
    for shard in open_folder(tmp_path / "out").all_shards():
        assert shard.tokens[0] == end_id
    config = json.loads((tmp_path / "out" / "tokenizer" / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "</done>"
    given = flags({"--corpus": "out", "--data.documents": "whole", "--train.steps": 1})
    given[given.index("--model.block-size") + 1] = "2"
    trained = groundup("train", *given, "--name", "it", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    model = tmp_path / "runs" / "it" / "checkpoints" / "latest" / "config.json"
    assert json.loads(model.read_text())["bos_token_id"] == end_id


def test_without_an_end_of_text_a_newline_separates_and_that_is_said(tmp_path: Path):
    folder = edited_tokenizer(small_tokenizer(tmp_path / "small"), None)
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    words = ("prepare", "a.jsonl", "--tokenizer", folder, "--out")
    done = groundup(*words, "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "newlines separate documents" in done.stderr
    words_of = ("prepare", "a.jsonl", "--tokenizer", "characters", "--out", "of-characters")
    assert "newlines separate" not in groundup(*words_of, folder=tmp_path).stderr
    newline = load_tokenizer(folder).encode("\n")[0]
    assert open_folder(tmp_path / "out").shards["train"][0].tokens[0] == newline
    edited_tokenizer(small_tokenizer(tmp_path / "other"), None, newline=False)
    words = ("prepare", "a.jsonl", "--tokenizer", "other", "--out", "none")
    refused = groundup(*words, folder=tmp_path)
    assert refused.returncode == 2
    assert "eos_token" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "none").exists()
