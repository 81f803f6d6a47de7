"""Shards that can't be learned from are refused on the command line, by name, before a step
(faults.md, 11 to 15).
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import flags, flip_bit, groundup, metrics, trained
from conftest import error_line, some_text
from groundup.data import shard_folder
from groundup.data.shard_file import HEADER
from shard_files import characters, documents, encoded, learned, write_shards


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shards` of a learned tokenizer and `letters` of characters."""
    folder = tmp_path_factory.mktemp("prepared")
    write_shards(folder / "shards", learned(), documents())
    write_shards(folder / "letters", characters(), documents(90))
    return folder


@pytest.fixture
def here(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(prepared, tmp_path / "here"))


def refused(folder: Path, corpus: str, **changes: object) -> str:
    """The one line that a corpus is refused with; no run folder is left."""
    chosen = {"--steps": 2, "--corpus": corpus} | {
        f"--{key}": value for key, value in changes.items()
    }
    line = error_line(groundup("train", *flags(chosen), folder=folder))
    assert not (folder / "runs").exists()
    return line


def test_shards_that_are_too_short_name_tokens_and_need(prepared: Path) -> None:
    """faults.md, 11."""
    longest = max(len(part) for part in trained_streams(prepared / "shards"))
    line = refused(prepared, "shards", **{"model.block-size": longest})
    assert (
        f"corpus shards is too short: in its longest shards {longest:,} tokens for training" in line
    )
    assert f"model.block_size = {longest} needs {longest + 1:,} and 2" in line


def trained_streams(path: Path) -> tuple[np.ndarray, ...]:
    return shard_folder.open_folder(path).tokens("train", 300).streams


@pytest.mark.parametrize("cut", [1, 100, 10_000])
def test_a_truncated_shard_names_both_sizes(here: Path, cut: int) -> None:
    """faults.md, 13."""
    shard = here / "shards" / "train-00001.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-cut])
    line = refused(here, "shards")
    assert "shards/train-00001.bin " in line
    assert f"{max(0, len(content) - cut):,} bytes" in line
    if cut < len(content):
        assert f"which makes {len(content):,}" in line


def test_an_odd_foreign_shard_names_both_sizes(tmp_path: Path) -> None:
    """faults.md, 13."""
    (tmp_path / "train.bin").write_bytes(bytes(1001))
    (tmp_path / "val.bin").write_bytes(bytes(1000))
    line = refused(tmp_path, ".", **{"data.tokenizer": "gpt2"})
    assert (
        "train.bin has 1,001 bytes, which is no whole number of 2-byte tokens: 1,000 or 1,002 "
        "would be" in line
    )


def test_a_token_outside_the_vocabulary_is_named(tmp_path: Path) -> None:
    """faults.md, 14: in foreign shards, which say nothing of themselves."""
    tokens = np.arange(2000, dtype=np.uint16)
    tokens[1234] = 60_000
    tokens.tofile(tmp_path / "train.bin")
    tokens[:500].tofile(tmp_path / "val.bin")
    line = refused(tmp_path, ".", **{"data.tokenizer": "gpt2"})
    assert "train.bin has token 60000 at position 1,234, but the vocabulary ends at 50256" in line


def test_of_large_shards_each_window_is_checked_before_the_model_sees_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """faults.md, 14: every second token is damaged, so the first batch has one, in the thread that
    prepares it.
    """
    shard = here / "shards" / "train-00000.bin"
    for position in range(HEADER.size + 1, shard.stat().st_size, 4):
        flip_bit(shard, position, 7)
    for other in ("train-00001.bin", "train-00002.bin"):
        shutil.copy(shard, here / "shards" / other)
    index = json.loads((here / "shards" / "index.json").read_text("utf-8"))
    entries = index["splits"]["train"]["shards"]
    for entry in entries:
        entry |= {"sha256": entries[0]["sha256"], "tokens": entries[0]["tokens"]}
    (here / "shards" / "index.json").write_text(json.dumps(index), "utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setattr(shard_folder, "READ_WHOLE", 0)
    from groundup.cli.main import app
    from groundup.errors import CorpusError

    with pytest.raises(
        CorpusError, match=r"shards/train-0000\d.bin has token 3\d{4} at position [\d,]+, but"
    ):
        app(
            ["train", *flags({"--steps": 5, "--corpus": "shards"})],
            exit_on_error=False,
            print_error=False,
        )
    assert not list(here.glob("runs/*/checkpoints/step-*"))


def test_changed_shards_are_refused_and_accepted_when_asked(here: Path) -> None:
    """faults.md, 15."""
    trained(*flags({"--steps": 3, "--name": "run", "--corpus": "shards"}), folder=here)
    shutil.rmtree(here / "shards")
    write_shards(here / "shards", learned(), documents(55))
    line = error_line(groundup("train", "--resume", "run", "--steps", 6, folder=here))
    assert "corpus shards has changed since the run began: its SHA-256 is" in line
    assert "--accept-changed-data" in line
    trained("--resume", "run", "--steps", 6, "--accept-changed-data", folder=here)
    assert len(metrics(here / "runs" / "run")) == 6
    shutil.rmtree(here / "shards")
    write_shards(here / "shards", characters(), documents())
    finished = groundup(
        "train", "--resume", "run", "--steps", 9, "--accept-changed-data", folder=here
    )
    assert "corpus shards was made by the tokenizer mine" in error_line(finished)
    assert "but that of the run is another one" in error_line(finished)


def test_the_corpus_of_a_mixture_that_changed_is_named(here: Path) -> None:
    """faults.md, 15."""
    (here / "text.txt").write_text(some_text(), "utf-8")
    trained(*flags({"--steps": 2, "--name": "run", "--corpus": "shards:3,text.txt:1"}), folder=here)
    (here / "text.txt").write_text(some_text() + "x", "utf-8")
    line = error_line(groundup("train", "--resume", "run", "--steps", 6, folder=here))
    assert "corpus text.txt has changed since the run began" in line


def test_a_tokenizer_that_did_not_make_the_shards_is_refused(here: Path) -> None:
    line = refused(here, "shards", **{"data.tokenizer": "gpt2"})
    assert "corpus shards was made by the tokenizer mine (" in line
    assert (
        "but data.tokenizer = gpt2 is another one (7d8e8e1d445e...): leave data.tokenizer out"
        in line
    )
    assert "data.tokenizer = characters makes one of characters" in refused(
        here, "shards", **{"data.tokenizer": "characters"}
    )
    assert "a mixture has one tokenizer" in refused(here, "shards:1,letters:1")
    trained(*flags({"--steps": 1, "--name": "letters", "--corpus": "letters"}), folder=here)
    trained(
        *flags({"--steps": 1, "--corpus": "letters", "--data.tokenizer": "characters"}), folder=here
    )
    finished = groundup(
        "train", *flags({"--steps": 1, "--corpus": "shards", "--init": "letters"}), folder=here
    )
    assert "but that of the model to start from is another one" in error_line(finished)
    (here / "shards" / "tokenizer" / "tokenizer.json").write_bytes(
        (here / "letters" / "tokenizer" / "tokenizer.json").read_bytes()
    )
    finished = groundup("train", *flags({"--steps": 1, "--corpus": "shards"}), folder=here)
    assert "shards/tokenizer is not the tokenizer mine" in error_line(finished)


def test_foreign_shards_must_be_given_their_tokenizer(tmp_path: Path) -> None:
    tokens = encoded(learned(), documents())
    folder = tmp_path / "mine"
    folder.mkdir()
    learned().save(folder)
    for name in ("train.bin", "val.bin"):
        tokens.astype(np.uint16).tofile(tmp_path / name)
    line = refused(tmp_path, ".")
    assert "corpus . has .bin files that don't say which tokenizer made them" in line
    assert "--data.tokenizer gpt2" in line
    trained(
        *flags({"--steps": 2, "--corpus": ".", "--data.tokenizer": folder, "--name": "run"}),
        folder=tmp_path,
    )
    (last,) = metrics(tmp_path / "runs" / "run", "evaluation")
    size = len(some_text().encode("utf-8")) / len(tokens)
    assert last["bits_per_byte"] == pytest.approx(last["validation_loss"] / np.log(2) / size)


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        (
            "letters:0.5,text.txt:-1",
            "data.corpus = letters:0.5,text.txt:-1 gives text.txt the weight -1",
        ),
        ("letters:0.5,letters:1", "names letters twice"),
        ("letters:0.5,nothing:1", "corpus nothing is neither a file or folder nor a known name"),
        ("data/nothing", "groundup prepare SOURCE --out data/nothing"),
        ("letters:0.5,shards", "has shards without a weight"),
    ],
)
def test_what_is_no_corpus_is_one_line(prepared: Path, corpus: str, said: str) -> None:
    assert said in refused(prepared, corpus)


def test_documents_are_kept_whole_only_where_they_begin_with_a_token(
    prepared: Path, tmp_path: Path
) -> None:
    line = refused(prepared, "letters", **{"data.documents": "whole"})
    assert "data.documents = whole needs a tokenizer with <|endoftext|>" in line
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    line = refused(
        tmp_path,
        "text.txt",
        **{"data.documents": "whole", "data.tokenizer": prepared / "shards" / "tokenizer"},
    )
    assert "text.txt has no <|endoftext|> that says where documents begin" in line
