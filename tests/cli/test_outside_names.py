"""Names from outside, of files above all: what can't be shown as it is, is escaped; what is too
long is a line; and results are kept before they are printed.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from commands import flags, groundup
from conftest import error_line, some_text
from groundup.cli.evaluate import evaluate
from groundup.cli.main import app
from sample_sources import small_tokenizer, write_rows
from terminal import terminal

LATIN = os.fsdecode(b"caf\xe9.txt")
MARKUP = "a[/b][bold].txt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `it`, and its text under awkward names."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "a[").mkdir()
    for name in ("text.txt", LATIN, "a[/b].txt", MARKUP.replace("/", "_")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(some_text(), "utf-8")
    done = groundup("train", *flags({"--train.steps": 1}), "--name", "it", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", [LATIN, "a[/b].txt"])
def test_an_evaluation_of_any_name_is_printed_and_kept(name: str, trained: Path):
    words = ("evaluate", "it", "--task", "loss", "--corpus", name)
    kept = trained / "runs" / "it" / "evaluations"
    shutil.rmtree(kept, ignore_errors=True)
    for more in ((), ("--json",)):
        done = groundup(*words, *more, folder=trained, env={"PYTHONIOENCODING": "utf-8"})
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["corpus"] == name
    [file] = kept.glob("*.json")
    assert json.loads(file.read_text("utf-8"))["corpus"] == name
    for encoding in ("ascii", "latin-1"):
        done = groundup(*words, folder=trained, env={"PYTHONIOENCODING": encoding})
        assert done.returncode == 0, done.stderr


def test_what_can_not_be_printed_is_kept(trained: Path, monkeypatch: pytest.MonkeyPatch):
    from groundup.cli import evaluate as command

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(trained)
    monkeypatch.setattr(command, "print_finding", refuse)
    kept = trained / "runs" / "it" / "evaluations"
    shutil.rmtree(kept, ignore_errors=True)
    with pytest.raises(OSError, match="No space"):
        evaluate("it", task="loss", corpus="text.txt")
    assert len(list(kept.glob("*.json"))) == 1
    items, each = trained / "few.jsonl", trained / "each.jsonl"
    items.write_text('{"context": "the", "endings": [" quick", " dog;"], "label": 0}\n')
    with pytest.raises(OSError, match="No space"):
        evaluate("it", task="choices", file=items, per_item=each)
    assert len(list(kept.glob("*.json"))) == 2
    assert json.loads(each.read_text())["label"] == 0


def test_what_can_not_be_kept_is_printed(trained: Path):
    kept = trained / "runs" / "it" / "evaluations"
    shutil.rmtree(kept, ignore_errors=True)
    kept.write_text("no folder")
    words = ("evaluate", "it", "--task", "loss", "--corpus", "text.txt", "--json")
    done = groundup(*words, folder=trained)
    kept.unlink()
    assert json.loads(done.stdout)["loss"] > 0
    assert done.returncode == 2
    assert "can't be kept" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "it", "it", "--task", "loss", "--corpus", "a[/b].txt"),
        ("tokenizer", "compare", "characters", "--corpus", "a[/b].txt"),
        ("tokenizer", "compare", "characters", "--corpus", LATIN),
    ],
)
def test_markup_in_names_is_text(words: tuple[str, ...], trained: Path):
    done = groundup(*words, folder=trained)
    assert done.returncode == 0, done.stderr
    assert ("a[/b].txt" in done.stdout) == (words[-1] != LATIN)


def test_a_run_on_a_name_with_markup_is_listed(trained: Path):
    given = flags({"--corpus": "a[/b].txt", "--train.steps": 1})
    assert groundup("train", *given, "--name", "[bold]x", folder=trained).returncode == 0
    done = groundup("runs", folder=trained)
    assert done.returncode == 0, done.stderr
    assert "[bold]x" in done.stdout
    assert "a[/b].txt" in done.stdout
    for task in ((), ("--task", "loss", "--corpus", "text.txt")):
        assert "B: [bold]x" in groundup("compare", "it", "[bold]x", *task, folder=trained).stdout
    given = flags({"--corpus": LATIN, "--train.steps": 1})
    assert "UTF-8" in error_line(groundup("train", *given, "--name", "other", folder=trained))


def test_a_progress_bar_shows_a_name_as_it_is(trained: Path):
    """Of `[red]x` it showed a red x."""
    words = ("train", *flags({"--train.steps": 20}), "--name", "[red]x[bold]")
    with terminal(*words, folder=trained) as person:
        assert person.end() == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", person.shown)
    assert re.search(r"\[red\]x\[bold\] [━╸╺]+ +\d+/20 loss ", shown), shown


def test_the_data_doctor_shows_a_name_as_it_is(tmp_path: Path):
    small_tokenizer(tmp_path / "small")
    write_rows(tmp_path / "[red]a.jsonl", ["one", "two"])
    words = ("prepare", "[red]a.jsonl", "--tokenizer", "small", "--out", "[red]s")
    assert groundup(*words, folder=tmp_path).returncode == 0
    with terminal("data", "check", "[red]s", folder=tmp_path) as person:
        assert person.end() == 0
    assert re.search(r"\[red\]s: \d+ warning", person.shown), person.shown


LONG = "a long prompt by position " * 20


@pytest.mark.parametrize(
    "words",
    [
        ("generate", LONG),
        ("evaluate", LONG, "--task", "loss", "--corpus", "text.txt"),
        ("evaluate", "it", "--task", "loss", "--corpus", LONG),
        ("train", LONG),
        ("train", "--config", LONG),
        ("train", "--corpus", LONG, "--steps", "1"),
        ("train", "--init", LONG, "--steps", "1", "--corpus", "text.txt"),
        ("train", "--resume", LONG),
        ("train", "--data.tokenizer", LONG, "--steps", "1", "--corpus", "text.txt"),
        ("prepare", LONG, "--out", "out"),
        ("prepare", "text.txt", "--tokenizer", LONG, "--out", "out"),
        ("prepare", "text.txt", "--tokenizer", "characters", "--out", LONG),
        ("export", LONG, "--to", "gguf"),
        ("verify", LONG),
        ("compare", LONG, "it"),
        ("data", "check", LONG),
        ("tokenizer", "show", "x", "--tokenizer", LONG),
        ("tokenizer", "train", "text.txt", "--out", LONG),
        ("evaluate", "it", "--task", "choices", "--file", LONG),
        ("generate", "\0"),
    ],
)
def test_a_name_that_no_file_can_have_is_a_line(words: tuple[str, ...], trained: Path):
    done = groundup(*words, folder=trained)
    assert done.returncode in (1, 2), done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("groundup: ")


def test_results_per_item_replace_files_alone(trained: Path, monkeypatch: pytest.MonkeyPatch):
    """/dev/stdout is written to, never renamed over, which root could."""
    monkeypatch.chdir(trained)
    pipe = trained / "pipe"
    os.mkfifo(pipe)
    items = trained / "items.jsonl"
    rows = [{"context": "the", "endings": [" quick", " dog;"], "label": 0}] * 3
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", "it", "--task", "choices", "--file", "items.jsonl", "--per-item"]
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    app([*words, str(pipe)], exit_on_error=False, print_error=False, result_action="return_value")
    assert pipe.is_fifo()
    assert os.read(reader, 2**16).count(b"\n") == 3
    os.close(reader)
    link, target = trained / "link.jsonl", trained / "target.jsonl"
    target.write_text("")
    link.symlink_to(target)
    app([*words, str(link)], exit_on_error=False, print_error=False, result_action="return_value")
    assert link.is_symlink()
    assert target.read_text().count("\n") == 3


def test_pictures_and_exports_replace_files_alone(trained: Path):
    pipe, link, target = (trained / name for name in ("pipe-to", "link.png", "target.png"))
    os.mkfifo(pipe)
    target.write_text("")
    link.symlink_to(target)
    for kind in ("gguf", "onnx", "folder"):
        for out in (pipe, link):
            words = ("export", "it", "--to", kind, "--out", out, "--force")
            line = error_line(groundup(*words, folder=trained))
            assert f"{out} is no file, but a link or a device. Choose another --out" in line
    assert groundup("compare", "it", "it", "--out", link, folder=trained).returncode == 0
    assert link.is_symlink()
    assert target.read_bytes().startswith(b"\x89PNG")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert groundup("compare", "it", "it", "--out", pipe, folder=trained).returncode == 0
    assert pipe.is_fifo()
    assert os.read(reader, 4) == b"\x89PNG"
    os.close(reader)
