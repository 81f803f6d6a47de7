"""One function says what a name stands for; a walk leaves hidden files out and keeps the order."""

import os
from pathlib import Path

import pytest

from groundup.data.formats import INDEX, kind_of, recognise
from groundup.errors import CorpusError
from groundup.files import HERE


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text"),
        ("a.JSONL", "rows"),
        ("a.jsonl.gz", "rows"),
        ("a.txt.zst", "text"),
        ("a.csv.gz", "table"),
        ("a.ipynb", "notebook"),
        ("a.arrow", "arrow"),
        ("a.parquet", "parquet"),
        ("a.gz", "other"),
        ("a", "other"),
    ],
)
def test_a_file_is_what_its_name_says(name: str, kind: str, tmp_path: Path):
    for file in (name, f"{name}.jpg"):
        (tmp_path / file).write_bytes(b"")
    assert kind_of(tmp_path / name) == kind
    assert kind_of(tmp_path / f"{name}.jpg") == "other"
    assert recognise(name, [tmp_path]).is_compressed == name.endswith((".gz", ".zst"))


def test_shards_are_known_by_their_index_or_by_the_names_of_their_files(tmp_path: Path):
    folders = {"ours": INDEX, "nanogpt": "train.bin", "llmc": "x_val_0.bin", "no": "part-0.bin"}
    for folder, file in folders.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_bytes(b'{"format": "groundup shards"')
    kinds = [recognise(name, [tmp_path]).kind for name in folders]
    assert kinds == ["shards", "foreign shards", "foreign shards", "folder"]
    assert kind_of(tmp_path / "no" / "part-0.bin") == "foreign shards"
    assert recognise("ours", [tmp_path]).has_shards
    assert not recognise("no", [tmp_path]).has_shards


def test_a_known_name_comes_before_a_folder_and_the_first_folder_before_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for place in ("here", "there"):
        for name in ("python-docs", "texts"):
            (tmp_path / place / name).mkdir(parents=True)
    (tmp_path / "here" / "other").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    there = tmp_path / "there"
    folders = there, *HERE
    assert recognise("python-docs", folders).kind == "named"
    assert recognise("texts", folders).path == there / "texts"
    assert recognise("other", folders).path == Path("other")
    assert recognise("~nobody-known/texts", folders).path == Path("~nobody-known/texts")
    nowhere = recognise("nowhere", folders)
    assert (nowhere.kind, nowhere.exists, nowhere.path) == ("missing", False, Path("nowhere"))


def test_the_files_of_a_folder_come_by_path_without_hidden_ones(tmp_path: Path):
    for name in ("b.txt", "a/z.md", "a.txt", "a/.x", ".git/y.txt", "a/b/.c/d.txt", "a/b/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listing = recognise(str(tmp_path)).listing()
    found = [str(file.path.relative_to(tmp_path)) for file in listing.files]
    assert found == ["a/b/c.py", "a/z.md", "a.txt", "b.txt"]
    assert listing.describe() == "3 hidden ones (.git, a/.x, a/b/.c)"


def test_a_folder_of_which_nothing_is_read_names_what_is_left_out(tmp_path: Path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(CorpusError, match="no text file") as refused:
        recognise(str(tmp_path)).listing()
    assert "Left out: 1 hidden ones (.git); 1 files that aren't text (1 .jpg)" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"a": 1}\n{"a": 2}\n', "rows"),
        (b'\xef\xbb\xbf{"a": "' + b"x" * 2**17 + b'"}\n\n{"a": 2}\n', "rows"),
        (b'[{"a": 1}]', "records"),
        (b'\n[\n  {\n  "a": 1}]', "records"),
        (b"[1, 2]", "json"),
        (b'{"a": 1}', "json"),
        (b'{\n  "a": 1\n}\n', "json"),
        (b"", "json"),
    ],
)
def test_json_is_what_it_begins_with(content: bytes, kind: str, tmp_path: Path):
    (tmp_path / "a.json").write_bytes(content)
    assert kind_of(tmp_path / "a.json") == kind


def test_an_index_of_something_else_and_a_stray_bin_make_no_shards(tmp_path: Path):
    (tmp_path / INDEX).write_text('{"pages": ["a.html"]}')
    (tmp_path / "interval.bin").write_bytes(b"xyz")
    (tmp_path / "page.md").write_text("a page")
    source = recognise(str(tmp_path))
    assert source.kind == "folder"
    assert [file.path.name for file in source.listing().files] == ["page.md"]


def test_what_holds_no_corpus_is_not_descended_into(tmp_path: Path):
    """Of a folder that a user has worked in: earlier shards, a run, a model, a repository."""
    for name, content in {
        "book.txt": "the book",
        "mine/index.json": '{"format": "groundup shards"}',
        "mine/tokenizer/tokenizer.json": "{}",
        "half/.work/plan.json": "{}",
        "half/tokenizer/notes.txt": "no",
        "runs/it/run.json": "{}",
        "runs/it/recipe.toml": "",
        "runs/it/samples.txt": "no",
        "gpt/model.safetensors": "",
        "gpt/README.md": "no",
        "lora/adapter_config.json": "{}",
        "lora/README.md": "no",
        "words/tokenizer.json": "{}",
        "words/merges.txt": "no",
        ".git/description": "no",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "mine")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    listing = recognise(str(tmp_path)).listing()
    assert [file.path.name for file in listing.files] == ["book.txt"]
    said = listing.describe()
    for part in (
        "2 folders of shards (half, mine)",
        "1 runs (runs/it)",
        "3 model folders (gpt, lora, words)",
        "1 hidden ones (.git)",
        "1 links to folders (elsewhere)",
        "1 links to nothing (gone.txt)",
    ):
        assert part in said


def test_an_unreadable_file_and_a_pipe_are_named_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a.txt", "locked.txt"):
        (tmp_path / name).write_text("read")
    os.mkfifo(tmp_path / "pipe.txt")
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "locked.txt")
    listing = recognise(str(tmp_path)).listing()
    assert [file.path.name for file in listing.files] == ["a.txt"]
    assert "1 unreadable files (locked.txt)" in listing.describe()
    assert "1 files that aren't text (1 .txt)" in listing.describe()


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt").write_text("read")
    (tmp_path / "locked").mkdir()
    iterdir = Path.iterdir

    def refuse(path: Path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    listing = recognise(str(tmp_path)).listing()
    assert listing.describe() == "1 unreadable folders, Permission denied (locked)"
    with pytest.raises(CorpusError, match="locked can't be read: Permission denied"):
        recognise(str(tmp_path / "locked")).listing()
