"""Training, evaluation, preparation and the tokenizer's commands read the same documents of a
file, or refuse it in the same words.
"""

import csv
import gzip
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from commands import flags, groundup
from conftest import error_line, some_text
from groundup import load_corpus
from groundup.data.encodings import Reading
from groundup.errors import CorpusError
from groundup.prepare.inputs import find_parts, read_documents

TEXTS = ['one, "quoted"', "two\nlines, čaj", "three", "中文"]


def write_table(path: Path, texts: list[str], column: str = "text") -> Path:
    """Rows with a number and a text, in the format that the file's name says."""
    rows = [{"id": number, column: text} for number, text in enumerate(texts)]
    table = pyarrow.Table.from_pylist(rows)
    name = path.name.removesuffix(".gz")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, path)
    elif name.endswith("stream.arrow"):  # what `save_to_disk` writes
        with pyarrow.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    elif name.endswith(".arrow"):
        with pyarrow.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    elif name.endswith((".csv", ".tsv")):
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter = "\t" if name.endswith(".tsv") else ","
            writer = csv.DictWriter(file, ["id", column], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(("array.json", "indented.json")):
        path.write_text(json.dumps(rows, indent=2 if "indented" in name else None), "utf-8")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines, "utf-8")
    return path


NAMES = ["a.jsonl", "a.ndjson", "a.json", "c4.json.gz", "a.jsonl.gz", "array.json", "indented.json"]
NAMES += ["a.csv", "a.tsv", "a.parquet", "a.arrow", "stream.arrow"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_read_by_column_everywhere(name: str, tmp_path: Path):
    path = str(write_table(tmp_path / name, TEXTS, "body"))
    assert load_corpus(path, column="body").text == "\n".join(TEXTS)
    parts, reading = find_parts(path, Reading("body")), Reading("body")
    assert [found.text for part in parts for found in read_documents(part, reading)] == TEXTS
    with pytest.raises(CorpusError, match=r"'text'.*id, body. Choose with --column"):
        load_corpus(path)


def test_commands_take_the_column(tmp_path: Path):
    write_table(tmp_path / "rows.jsonl", some_text().split("\n"), "body")
    line = error_line(groundup("train", *flags({"--corpus": "rows.jsonl"}), folder=tmp_path))
    assert "no text under 'text', but id, body. Choose with --data.column" in line
    given = flags({"--corpus": "rows.jsonl", "--data.column": "body", "--train.steps": 1})
    trained = groundup("train", *given, "--name", "it", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "'body'" in trained.stdout
    facts = json.loads((tmp_path / "runs" / "it" / "run.json").read_text("utf-8"))
    assert facts["vocab_size"] == len(set(some_text()))  # no braces, no quotes
    evaluate = ("it", "--task", "loss", "--corpus", "rows.jsonl")
    assert "Choose with --column" in error_line(groundup("evaluate", *evaluate, folder=tmp_path))
    for command in ("evaluate", "compare"):
        words = evaluate if command == "evaluate" else ("it", *evaluate)
        done = groundup(command, *words, "--column", "body", "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
    learn = ("tokenizer", "train", "rows.jsonl", "--out", "tok", "--vocab-size", 300)
    assert "Choose with --column" in error_line(groundup(*learn, folder=tmp_path))
    assert groundup(*learn, "--column", "body", folder=tmp_path).returncode == 0


NOTEBOOK = {"cells": [{"cell_type": "code", "source": ["1"]}], "nbformat": 4}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ipynb", NOTEBOOK, "nbconvert --to markdown"),
        ("state.json", {"_data_files": [{"filename": "data.arrow"}]}, "jq -c"),
        ("list.json", ["one", "two"], "jq -c"),
    ],
)
def test_json_that_holds_no_records_is_refused_with_what_converts_it(
    name: str, content: Any, said: str, tmp_path: Path
):
    path = tmp_path / name
    path.write_text(json.dumps(content, indent=1), "utf-8")
    for read in (load_corpus, lambda source: find_parts(source, Reading())):
        with pytest.raises(CorpusError, match=said):
            read(str(path))


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", b"%PDF-1.5\n\xe2\xe3"])
def test_a_binary_is_called_one(content: bytes, tmp_path: Path):
    (tmp_path / "x.dat").write_bytes(content)
    with pytest.raises(CorpusError, match="It is binary") as raised:
        load_corpus(str(tmp_path / "x.dat"))
    assert "iconv" not in str(raised.value)


def test_a_folder_of_save_to_disk_gives_its_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "saved"
    folder.mkdir()
    table = pyarrow.table({"text": TEXTS})
    with pyarrow.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("dataset_info.json", "state.json"):
        (folder / name).write_text('{\n  "citation": ""\n}')
    with caplog.at_level("INFO", logger="groundup"):
        assert load_corpus(str(folder)).text == "\n".join(TEXTS)
    assert "2 JSON files without records (dataset_info.json, state.json)" in caplog.text


def test_a_folder_is_read_alike_and_what_is_left_out_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write_table(tmp_path / "a.jsonl", ["row"])
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "c.md").write_text("plain")
    (tmp_path / "n.ipynb").write_text(json.dumps(NOTEBOOK))
    for name in ("x.png", "y.png"):
        (tmp_path / name).write_bytes(b"\x89PNG")
    with caplog.at_level("INFO", logger="groundup"):
        assert load_corpus(str(tmp_path)).text == "row\npacked\nplain"
    assert "1 notebooks (n.ipynb)" in caplog.text
    assert "2 files that aren't text (2 .png)" in caplog.text
    texts = [
        document.text
        for part in find_parts(str(tmp_path), Reading())
        for document in read_documents(part, Reading())
    ]
    assert texts == ["row", "packed", "plain"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path):
    for name in ("a.parquet", "a.arrow"):
        table = pyarrow.table([["x"], ["y"]], names=["text", "text"])
        if name == "a.parquet":
            pyarrow.parquet.write_table(table, tmp_path / name)
        else:
            with pyarrow.ipc.new_file(tmp_path / name, table.schema) as writer:
                writer.write_table(table)
    (tmp_path / "a.csv").write_text("text,text\nx,y\n")
    for name in ("a.parquet", "a.arrow", "a.csv"):
        with pytest.raises(CorpusError, match="columns 'text'"):
            load_corpus(str(tmp_path / name))


ENCODED = {
    "UTF-16": "žluť — “quoted”\n",
    "UTF-16-LE": "plain ASCII, as Windows writes it\n",
    "UTF-16-BE": "plain ASCII, without a mark\n",
    "UTF-32": "žluť\n",
    "CP1252": "It’s a “quoted” café – €5\n",
    "LATIN1": "caf\xe9 au lait, na\xefve\n",
}


@pytest.mark.parametrize("where", ["file", "folder"])
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl"])
@pytest.mark.parametrize("encoding", ENCODED)
def test_the_remedy_for_another_encoding_makes_the_text_readable(
    encoding: str, suffix: str, where: str, tmp_path: Path
):
    """iconv itself is the oracle: the printed command is run as it is."""
    text = ENCODED[encoding] * 20
    content = json.dumps({"text": text}, ensure_ascii=False) + "\n" if "json" in suffix else text
    data = content.encode(encoding)
    path = tmp_path / f"it's{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    source = str(path if where == "file" else tmp_path)
    with pytest.raises(CorpusError) as raised:
        load_corpus(source)
    with pytest.raises(CorpusError) as again:
        list(read_documents(find_parts(source, Reading())[0], Reading()))
    for error in (raised, again):
        assert "is not UTF-8" in str(error.value)
        command = str(error.value).partition("Convert it: ")[2]
        assert shlex.split(command)[0] == "mv"
    subprocess.run(["sh", "-c", command], check=True)
    assert load_corpus(source).text == text


def test_damaged_utf8_is_not_taken_for_latin1(tmp_path: Path):
    path, text = tmp_path / "a.txt", "žluťoučký kůň " * 50
    path.write_bytes(text.encode() + b"\xff" + text.encode())
    with pytest.raises(CorpusError) as raised:
        load_corpus(str(path))
    command = str(raised.value).partition("Leave such bytes out: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert load_corpus(str(path)).text == 2 * text


def test_an_encoding_that_nothing_tells_is_not_guessed(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(("Привет, мир. " * 20).encode("koi8-r"))
    with pytest.raises(CorpusError, match="ENCODING") as raised:
        load_corpus(str(path))
    assert "LATIN1" not in str(raised.value)
    assert "1252" not in str(raised.value)
