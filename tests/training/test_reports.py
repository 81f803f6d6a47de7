"""What only reports never ends training: pipes that close, narrow encodings, pictures, samples."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import checkpoint, flags, groundup, trained, write_text
from groundup.runs.folder import RunFolder
from groundup.training import journal
from groundup.training.journal import MainJournal


def test_training_goes_on_when_its_reader_has_gone(tmp_path: Path) -> None:
    """`groundup train | head -1`."""
    write_text(tmp_path)
    words = ["train", *flags({"--steps": 20, "--name": "run", "--eval.every": 1})]
    command = f"set -o pipefail; {sys.executable} -m groundup {' '.join(words)} | head -1"
    finished = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert checkpoint(tmp_path / "runs" / "run", 20).is_dir()
    said = "groundup: nobody reads stdout any more (Broken pipe): training goes on"
    assert finished.stderr.splitlines() == [said]


def test_a_pipe_that_lacks_characters_gets_them_escaped(tmp_path: Path) -> None:
    """The corpus has Czech and Chinese words, of which Latin-1 has few."""
    text = write_text(tmp_path).rename(tmp_path / "čtyři.txt")
    arguments = flags({"--corpus": text.name, "--steps": 1, "--name": "run"})
    with (tmp_path / "printed").open("wb") as printed:
        finished = subprocess.run(
            [sys.executable, "-m", "groundup", "train", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONIOENCODING": "latin-1"},
            stdout=printed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    assert b"text: \\u010dty\\u0159i.txt" in (tmp_path / "printed").read_bytes()
    assert groundup("generate", "run", folder=tmp_path).returncode == 0


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    write_text(tmp_path)
    finished = trained(*flags({"--steps": 1, "--name": "a$_$b"}), folder=tmp_path)
    assert (tmp_path / "runs" / "a$_$b" / "loss.png").is_file()
    assert "failed" not in finished.stdout
    trained(*flags({"--steps": 1, "--name": "c$_$d"}), folder=tmp_path)
    compared = groundup("compare", "a$_$b", "c$_$d", folder=tmp_path)
    assert compared.returncode == 0, compared.stderr


def test_a_picture_and_a_sample_that_fail_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no fonts here\nat all")

    monkeypatch.setattr(journal, "plot_losses", fail)
    kept = MainJournal()
    with kept.open(RunFolder(tmp_path), 0, 1, tensorboard=False), kept.harmless("the sample"):
        fail()
    said = capsys.readouterr().out
    assert "the sample failed (no fonts here): training goes on" in said
    assert "the picture of the losses failed (no fonts here): training goes on" in said
