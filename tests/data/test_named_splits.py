"""A user's own validation text stays out of training: one that is named by a flag, by a file's name
or by a folder's.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from commands import flags, groundup
from conftest import error_line, some_text
from groundup.data.corpora import load_corpus, open_corpora
from groundup.data.shard_folder import open_folder
from groundup.prepare import inputs
from groundup.prepare.pipeline import prepare
from groundup.prepare.plan import Preparation
from sample_sources import documents_in, small_tokenizer, write_rows

TRAINING = [f"learned {number}" for number in range(24)]
HELD_OUT = [f"held out {number}" for number in range(8)]


def write_split(folder: Path, training: str, validation: str) -> Path:
    """Rows for training and for validation, in files of these names."""
    for name, texts in ((training, TRAINING), (validation, HELD_OUT)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(folder / name, texts)
    return folder


NAMES = [
    ("x_train.jsonl", "x_valid.jsonl"),
    ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"),
    ("train/data.jsonl", "dev/data.jsonl"),
    ("train.jsonl", "test.jsonl"),
    ("my_Training.jsonl", "my_Val.jsonl"),
    ("TinyStoriesV2-GPT4-train.jsonl.gz", "TinyStoriesV2-GPT4-val.jsonl.gz"),
]


@pytest.mark.parametrize("names", NAMES)
def test_names_that_say_validation_are_respected(
    names: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = write_split(tmp_path / "mine", *names)
    corpus = load_corpus(str(folder))
    assert corpus.text == "\n".join(TRAINING)
    assert corpus.validation == "\n".join(HELD_OUT)
    assert f"for validation, by its name: {names[1]}" in caplog.text
    tokenizer = small_tokenizer(tmp_path / "small")
    prepare(Preparation(str(folder), str(tokenizer)), tmp_path / "out", 1)
    assert sorted(documents_in(tmp_path / "out", "train")) == sorted(TRAINING)
    assert sorted(documents_in(tmp_path / "out", "validation")) == sorted(HELD_OUT)


def test_test_files_stay_out_where_there_is_validation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = write_split(tmp_path / "mine", "train.jsonl", "valid.jsonl")
    write_rows(folder / "test.jsonl", ["secret"])
    write_rows(folder / "more.jsonl", ["more"])
    corpus = load_corpus(str(folder))
    assert "secret" not in corpus.text + corpus.validation
    assert "more" in corpus.text
    assert "1 test files, by their names (test.jsonl)" in caplog.text


def test_every_range_of_a_large_file_is_of_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write_split(tmp_path / "mine", "train.jsonl", "valid.jsonl")
    monkeypatch.setattr(inputs, "PART", 60)
    assert len(inputs.find_parts(str(folder), Preparation("").reading)) > 4
    prepare(Preparation(str(folder), str(small_tokenizer(tmp_path / "s"))), tmp_path / "out", 1)
    assert sorted(documents_in(tmp_path / "out", "validation")) == sorted(HELD_OUT)


def test_a_validation_corpus_stands_for_what_names_say(tmp_path: Path):
    folder = str(write_split(tmp_path / "mine", "train.jsonl", "valid.jsonl"))
    other = str(write_rows(tmp_path / "mine" / "other.jsonl", ["other"]))
    [corpus] = open_corpora(folder, validation=other)
    assert (corpus.text, corpus.validation) == ("\n".join(TRAINING), "other")
    tokenizer = str(small_tokenizer(tmp_path / "small"))
    prepare(Preparation(folder, tokenizer, validation_corpus=other), tmp_path / "out", 1)
    assert sorted(documents_in(tmp_path / "out", "train")) == sorted(TRAINING)
    assert documents_in(tmp_path / "out", "validation") == ["other"]


def test_a_name_alone_divides_nothing_but_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """As in a repository, whose tests are code like the rest."""
    for name in ("a.py", "tests/b.py", "validation.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert load_corpus(str(tmp_path)).text == "a.py\ntests/b.py\nvalidation.py"
    assert "validation.py sounds like validation" in caplog.text
    assert "--data.validation-corpus" in caplog.text


def test_a_validation_corpus_is_what_a_run_is_measured_on(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text(some_text(), "utf-8")
    (tmp_path / "mine" / "held.txt").write_text("the quick brown fox " * 50)
    given = {"--corpus": "mine", "--data.validation-corpus": "mine/held.txt", "--train.steps": 1}
    done = groundup("train", *flags(given), "--name", "it", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "runs" / "it" / "run.json").read_text("utf-8"))["corpus"]
    assert facts["training_tokens"] == len(some_text())
    assert facts["validation_tokens"] == 1000
    assert "1 files of the validation corpus (held.txt)" in done.stdout
    (tmp_path / "mine" / "held.txt").write_text("another text, of other words " * 50)
    line = error_line(groundup("train", "--resume", "it", "--steps", 2, folder=tmp_path))
    assert "has changed since the run began" in line
    for other in ("nowhere.txt", "mine:0.5,mine/a.txt:0.5"):
        given = {"--corpus": "mine/a.txt", "--data.validation-corpus": other}
        if ":" in other:
            given = {"--corpus": other, "--data.validation-corpus": "mine/held.txt"}
        refused = groundup("train", *flags(given | {"--train.steps": 1}), folder=tmp_path)
        assert "mixture" in error_line(refused) or "nowhere.txt" in error_line(refused)


def test_shards_can_be_measured_on_another_text(tmp_path: Path):
    small_tokenizer(tmp_path / "small")
    write_rows(tmp_path / "rows.jsonl", [some_text()[at : at + 300] for at in range(0, 5000, 300)])
    write_rows(tmp_path / "held.jsonl", HELD_OUT)
    words = ("prepare", "rows.jsonl", "--tokenizer", "small")
    assert groundup(*words, "--out", "s", folder=tmp_path).returncode == 0
    given = flags({"--corpus": "s", "--data.validation-corpus": "held.jsonl", "--train.steps": 1})
    assert groundup("train", *given, folder=tmp_path).returncode == 0
    given[given.index("held.jsonl")] = "s"
    assert "s has shards: give a text" in error_line(groundup("train", *given, folder=tmp_path))
    out = (*words, "--validation-corpus", "held.jsonl", "--out", "t")
    assert groundup(*out, folder=tmp_path).returncode == 0
    assert sorted(documents_in(tmp_path / "t", "validation")) == sorted(HELD_OUT)
    assert len(documents_in(tmp_path / "t", "train")) == 17
    assert groundup(*out, folder=tmp_path).returncode == 0  # finished: only opened


def test_the_validation_split_counts_in_an_evaluation(tmp_path: Path):
    from groundup.evaluation.text_loss import only_corpus

    folder = write_split(tmp_path / "mine", "train.jsonl", "valid.jsonl")
    assert only_corpus(str(folder)).text == "\n".join(HELD_OUT)


def test_the_number_of_shards_is_a_function_of_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same documents compressed, in one file and in many, and of another first density."""
    from groundup.prepare import encoding

    monkeypatch.setattr(encoding, "SHARD_TOKENS", 2000)
    texts = ["x" * 500] + [some_text()[at : at + 100] for at in range(0, 5900, 25)]
    sources = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.parquet"]
    for source in sources:
        write_rows(source, texts)
    (tmp_path / "many").mkdir()
    for number in range(5):
        write_rows(tmp_path / "many" / f"{number}.jsonl", texts[::-1][number::5])
    tokenizer, found = str(small_tokenizer(tmp_path / "small")), []
    for source in [*sources, tmp_path / "many"]:
        out = tmp_path / f"out-{source.name}"
        prepare(Preparation(str(source), tokenizer, validation=0.4), out, 1)
        folder = open_folder(out)
        found.append((folder.fingerprint, *map(len, folder.shards.values())))
        for shards in folder.shards.values():
            sizes = [len(shard.tokens) for shard in shards]
            assert np.mean(sizes) == pytest.approx(2000, rel=0.2)
    assert len(set(found)) == 1
    assert min(found[0][1:]) > 1
