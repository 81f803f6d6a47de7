"""One function says what a name stands for; a walk leaves hidden files out and keeps the order."""

from pathlib import Path

import pytest

from groundup.data.formats import INDEX, kind_of, recognise


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text"),
        ("a.JSONL", "rows"),
        ("a.jsonl.gz", "rows"),
        ("a.txt.zst", "text"),
        ("a.json.gz", "text"),
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
    found = {file.path.name: file for file in recognise(str(tmp_path)).files()}
    assert found[name].kind == kind
    assert found[name].is_compressed == name.endswith((".gz", ".zst"))


def test_shards_are_known_by_their_index_or_by_the_names_of_their_files(tmp_path: Path):
    folders = {"ours": INDEX, "nanogpt": "train.bin", "llmc": "x_val_0.bin", "no": "part-0.bin"}
    for folder, file in folders.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_bytes(b"")
    kinds = [recognise(name, tmp_path).kind for name in folders]
    assert kinds == ["shards", "foreign shards", "foreign shards", "folder"]
    assert kind_of(tmp_path / "no" / "part-0.bin") == "foreign shards"
    assert recognise("ours", tmp_path).has_shards
    assert not recognise("no", tmp_path).has_shards


def test_a_known_name_comes_before_a_folder_and_here_before_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for place in ("here", "there"):
        for name in ("python-docs", "texts"):
            (tmp_path / place / name).mkdir(parents=True)
    (tmp_path / "there" / "other").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    there = tmp_path / "there"
    assert recognise("python-docs", there).kind == "named"
    assert recognise("texts", there).path == Path("texts")
    assert recognise("other", there).path == there / "other"
    nowhere = recognise("nowhere", there)
    assert (nowhere.kind, nowhere.exists) == ("missing", False)


def test_the_files_of_a_folder_come_by_path_without_hidden_ones(tmp_path: Path):
    for name in ("b.txt", "a/z", "a.txt", "a/.x", ".git/y.txt", "a/b/.c/d.txt", "a/b/c.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [str(file.path.relative_to(tmp_path)) for file in recognise(str(tmp_path)).files()]
    assert found == ["a/b/c.bin", "a/z", "a.txt", "b.txt"]
