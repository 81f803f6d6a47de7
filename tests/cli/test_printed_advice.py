"""Commands and remedies that are printed apply where they are printed, and run as they are."""

import json
import shlex
from pathlib import Path

import pytest

from commands import flags, groundup, trained, write_text
from conftest import error_line, some_text
from shard_files import characters, documents, learned, write_shards

QUICK = [
    *("--steps", "1", "--train.batch-size", "2", "--model.n-layer", "1", "--train.compile", "off"),
    *("--model.n-embd", "16", "--model.n-head", "2", "--eval.sample-length", "0"),
]


def said_of_a_tokenizer(folder: Path, *words: str) -> str:
    """What `groundup tokenizer train` says of its use."""
    command = ("tokenizer", "train", *words, "--vocab-size", 300, "--out", "my words")
    finished = groundup(*command, folder=folder)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.partition("saved in my words. ")[2].strip()


@pytest.mark.parametrize("size", [6000, 500])
def test_the_use_of_a_tokenizer_is_a_command_that_trains(tmp_path: Path, size: int) -> None:
    """Its text's name isn't a shell's word, and a small one needs a shorter context."""
    (tmp_path / "a text.txt").write_text(some_text()[:size], "utf-8")
    said = said_of_a_tokenizer(tmp_path, "a text.txt")
    words = shlex.split(said.removeprefix("Use it: "))
    assert words[0] == "groundup"
    finished = groundup(*words[1:], *QUICK, folder=tmp_path)
    assert finished.returncode == 0, (said, finished.stderr)


def test_the_use_of_a_tokenizer_names_the_column_of_rows(tmp_path: Path) -> None:
    rows = [json.dumps({"body": text}) for text in documents()]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    said = said_of_a_tokenizer(tmp_path, "rows.jsonl", "--column", "body")
    finished = groundup(*shlex.split(said.removeprefix("Use it: "))[1:], *QUICK, folder=tmp_path)
    assert finished.returncode == 0, (said, finished.stderr)


def test_a_text_too_small_to_train_on_gets_no_command(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("čtyři", "utf-8")
    said = said_of_a_tokenizer(tmp_path, "a.txt")
    assert "too few to train on: give more text" in said
    assert "groundup train" not in said


def test_a_tokenizer_that_was_not_given_is_not_to_be_left_out(tmp_path: Path) -> None:
    """A model's tokenizer and that of shards differ: data.tokenizer has nothing to do with it."""
    write_shards(tmp_path / "shards", learned(), documents())
    write_shards(tmp_path / "letters", characters(), documents(90))
    trained(*flags({"--steps": 1, "--name": "letters", "--corpus": "letters"}), folder=tmp_path)
    begun = {"--steps": 1, "--corpus": "shards", "--init": "letters"}
    line = error_line(groundup("train", *flags(begun), folder=tmp_path))
    assert "that of the model to start from is another one" in line
    assert "data.tokenizer" not in line
    # nor where one is given that is the model's
    given = begun | {"--data.tokenizer": "characters"}
    line = error_line(groundup("train", *flags(given), folder=tmp_path))
    assert "that of the model to start from" in line
    assert "leave" not in line


def test_a_tokenizer_that_a_recipe_states_is_left_out_by_a_flag(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", learned(), documents())
    (tmp_path / "my.toml").write_text('[data]\ntokenizer = "characters"\n', "utf-8")
    arguments = ("train", "--config", "my.toml", *flags({"--steps": 1, "--corpus": "shards"}))
    line = error_line(groundup(*arguments, folder=tmp_path))
    assert "leave data.tokenizer out (--data.tokenizer auto)" in line
    finished = groundup(*arguments, "--data.tokenizer", "auto", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr


def test_a_recipe_that_is_not_there_is_written_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "my recipes").mkdir()
    for name, place in (
        ("my recipes/a.toml", "'my recipes/a.toml'"),
        ("no/a b.toml", "'a b.toml'"),
    ):
        line = error_line(groundup("train", "--config", name, folder=tmp_path))
        assert line.endswith(f"Write one with: groundup recipes quickstart > {place}")


def test_a_folder_of_shards_that_is_not_there_is_quoted(tmp_path: Path) -> None:
    line = error_line(groundup("train", "--corpus", "data/my shards", folder=tmp_path))
    assert line.endswith("groundup prepare SOURCE --out 'data/my shards'")


@pytest.mark.parametrize(
    ("changes", "helps", "not_said"),
    [
        (
            {"--data.tokenizer": "characters", "--model.block-size": 64},
            {"--data.tokenizer": "mine"},
            "--model.block-size",
        ),
        ({"--data.tokenizer": "mine"}, {"--model.block-size": 64}, "knows all texts"),
    ],
)
def test_items_that_cannot_be_scored_get_the_remedy_of_their_cause(
    tmp_path: Path, changes: dict[str, object], helps: dict[str, object], not_said: str
) -> None:
    write_text(tmp_path)
    (tmp_path / "mine").mkdir()
    learned().save(tmp_path / "mine")
    item = {"context": "ẞß Q", "endings": [" the quick brown fox jumps over the lazy dog"] * 2}
    (tmp_path / "items.jsonl").write_text(json.dumps(item | {"label": 0}) + "\n", "utf-8")
    scored = {"--steps": 1, "--eval.task": "choices", "--eval.task-every": 1}
    scored |= {"--eval.task-items": 0, "--eval.task-file": "items.jsonl", "--model.block-size": 8}
    line = error_line(groundup("train", *flags(scored | changes), folder=tmp_path))
    assert not_said not in line
    assert "--eval.task-every 0" in line
    assert all(flag in line for flag in helps)
    trained(*flags(scored | changes | helps), folder=tmp_path)
