"""A text that can't be learned from is refused by name, size and place (faults.md, 11, 12
and 15).
"""

from pathlib import Path

import pytest

from commands import flags, groundup, metrics, trained, write_text
from conftest import error_line


def refused(folder: Path, corpus: str, **changes: object) -> str:
    """The one line that a corpus is refused with; no run folder is left."""
    line = error_line(
        groundup("train", *flags({"--steps": 2, "--corpus": corpus} | changes), folder=folder)
    )
    assert not (folder / "runs").exists()
    return line


def test_an_empty_corpus_is_named(tmp_path: Path) -> None:
    """faults.md, 11."""
    (tmp_path / "empty.txt").touch()
    line = refused(tmp_path, "empty.txt")
    assert "empty.txt is empty: 0 characters" in line


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    """faults.md, 11."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "picture.png").write_bytes(b"\x89PNG")
    assert "folder folder holds no text file" in refused(tmp_path, "folder")


@pytest.mark.parametrize("characters", [1, 10, 18])
def test_a_corpus_shorter_than_the_context_names_both_numbers(
    tmp_path: Path, characters: int
) -> None:
    """faults.md, 11: a context of 16 needs 17 tokens for training, and 2 for validation."""
    (tmp_path / "short.txt").write_text("ab" * (characters // 2) + "c" * (characters % 2), "utf-8")
    line = refused(tmp_path, "short.txt")
    training = int(characters * 0.9)
    assert (
        f"short.txt is too short: {training} tokens for training and {characters - training}"
        in line
    )
    assert "model.block_size = 16 needs 17" in line


def test_the_shortest_corpus_that_is_long_enough_trains(tmp_path: Path) -> None:
    """faults.md, 11: the refusal's border is where it says."""
    (tmp_path / "short.txt").write_text("ab" * 10, "utf-8")
    trained(*flags({"--steps": 2, "--corpus": "short.txt", "--name": "run"}), folder=tmp_path)
    assert len(metrics(tmp_path / "runs" / "run")) == 2


@pytest.mark.parametrize("in_folder", [False, True])
def test_bytes_that_are_not_utf8_are_named_with_their_offset(
    tmp_path: Path, in_folder: bool
) -> None:
    """faults.md, 12."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("fine " * 100, "utf-8")
    (tmp_path / "text" / "b.txt").write_bytes(b"x" * 1234 + "ž".encode("iso8859-2") + b"y" * 100)
    line = refused(tmp_path, "text" if in_folder else "text/b.txt")
    assert "text/b.txt is not UTF-8: byte 0xbe at offset 1,234" in line
    assert "iconv" in line


def test_a_changed_corpus_is_refused_and_accepted_when_asked(tmp_path: Path) -> None:
    """faults.md, 15: by fingerprint, so a copy under the same name with the same content is the
    same corpus.
    """
    text = write_text(tmp_path)
    trained(*flags({"--steps": 3, "--name": "run"}), folder=tmp_path)
    run, content = tmp_path / "runs" / "run", text.read_text("utf-8")
    text.write_text(content[:-1] + ("a" if content[-1] != "a" else "o"), "utf-8")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = error_line(groundup("train", "--resume", "run", "--steps", 6, folder=tmp_path))
    assert "corpus text.txt has changed since the run began" in line
    assert "--accept-changed-data" in line
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    accepted = trained("--resume", "run", "--steps", 6, "--accept-changed-data", folder=tmp_path)
    assert "the corpus has changed since the run began" in accepted.stdout
    assert len(metrics(run)) == 6

    text.unlink()
    text.write_text(content, "utf-8")
    line = error_line(groundup("train", "--resume", "run", "--steps", 7, folder=tmp_path))
    assert "corpus text.txt has changed since" in line
    trained("--resume", "run", "--steps", 7, "--accept-changed-data", folder=tmp_path)


def test_a_changed_corpus_with_a_new_character_names_it(tmp_path: Path) -> None:
    """faults.md, 15: the run's tokenizer stays, whatever was accepted."""
    text = write_text(tmp_path)
    trained(*flags({"--steps": 3, "--name": "run"}), folder=tmp_path)
    text.write_text(text.read_text("utf-8")[:100] + "@" + text.read_text("utf-8")[100:], "utf-8")
    finished = groundup(
        "train", "--resume", "run", "--steps", 6, "--accept-changed-data", folder=tmp_path
    )
    assert "'@' (U+0040) at position 100" in error_line(finished)
