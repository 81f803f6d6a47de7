"""What is read is what there is: every format, every cut, no byte lost or read twice."""

import io
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import documents
from groundup.data.documents import cut_of
from groundup.data.encodings import Reading
from groundup.prepare import inputs
from groundup.prepare.inputs import find_parts, read_documents
from sample_sources import FORMATS, some_documents, write_rows


def texts(source: Path, reading: Reading | None = None) -> list[str]:
    reading = reading or Reading()
    parts = find_parts(str(source), reading)
    return [document.text for part in parts for document in read_documents(part, reading)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_documents_in_their_order(suffix: str, tmp_path: Path):
    wanted = some_documents()
    assert texts(write_rows(tmp_path / f"a{suffix}", wanted)) == wanted


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("part", [1, 100, 1000, 10**9])
def test_parts_of_any_size_give_each_document_once(
    suffix: str, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = some_documents()
    path = write_rows(tmp_path / f"a{suffix}", wanted)
    monkeypatch.setattr(inputs, "PART", part)
    assert texts(path) == wanted
    number = len(find_parts(str(path), Reading()))
    assert number == 1 if part == 10**9 else number > 3


@given(
    text=st.text(alphabet="ab \nč中", max_size=300),
    passage=st.integers(1, 20),
    part=st.integers(1, 50),
)
def test_passages_put_together_are_the_text(
    text: str, passage: int, part: int, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(inputs, "PART", part)
        reading = Reading(passage=passage)
        monkeypatch.setattr(documents, "BLOCK", 7)
        found = texts(folder / "a.txt", reading) if text else []
    assert "".join(found) == text
    assert all(
        len(passage_of.encode()) <= 4 * passage + 3 or part < 4 * passage for passage_of in found
    )


def test_a_passage_ends_with_a_paragraph():
    assert cut_of(b"one\ntwo\n\nthree", 1) == len(b"one\ntwo\n\n")
    assert cut_of(b"one\ntwo three", 1) == len(b"one\n")
    assert cut_of(b"one two", 1) == len(b"one ")
    assert cut_of("čč".encode(), 1) == 2
    text = ("x" * 99 + "\n") * 81 + "\n"  # a little less than a passage
    read = list(documents.passages_of(io.BytesIO((text * 5).encode()).read, "a", 0, Reading()))
    assert [document.text for document in read] == [2 * text, 2 * text, text]
    assert [document.origin for document in read] == [
        "a, byte 0",
        "a, byte 16,202",
        "a, byte 32,404",
    ]


def test_folders_are_read_in_the_order_of_their_paths(tmp_path: Path):
    for name, content in {
        "b.txt": "b",
        "a/z.md": "az",
        "a/.hidden/x.txt": "-",
        "c.jpg": "-",
        ".d.txt": "-",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    write_rows(tmp_path / "a" / "rows.jsonl.gz", ["row"])
    assert texts(tmp_path) == ["row", "az", "b"]


def test_empty_documents_are_left_out(tmp_path: Path):
    assert texts(write_rows(tmp_path / "a.jsonl", ["one", "", "two"])) == ["one", "two"]
    (tmp_path / "b.jsonl").write_text('\n{"text": "x"}\n\n')
    assert texts(tmp_path / "b.jsonl") == ["x"]


def test_another_column(tmp_path: Path):
    for suffix in (".jsonl", ".parquet"):
        assert texts(
            write_rows(tmp_path / f"a{suffix}", ["one"], "body"), Reading(column="body")
        ) == ["one"]


def test_several_members_of_a_compressed_file(tmp_path: Path):
    for suffix in (".gz", ".zst"):
        one, two = (
            write_rows(tmp_path / f"{name}.jsonl{suffix}", [name]).read_bytes()
            for name in ("one", "two")
        )
        (tmp_path / f"both.jsonl{suffix}").write_bytes(one + two)
        assert texts(tmp_path / f"both.jsonl{suffix}") == ["one", "two"]


def test_bytes_that_are_not_utf8_can_be_replaced(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9!")
    assert texts(tmp_path / "a.txt", Reading(replace=True)) == ["caf\ufffd!"]


def test_bytes_of_parquet_that_are_not_utf8(tmp_path: Path):
    column = pyarrow.array([b"one", b"caf\xe9!", None, b"two"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", Reading(replace=True)) == ["one", "caf\ufffd!", "two"]
    with pytest.raises(ValueError, match=r"a\.parquet, row 1 is not UTF-8: byte 0xe9 at offset 3"):
        texts(tmp_path / "a.parquet")


def test_a_byte_order_mark_at_the_beginning_is_no_text(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}')
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert texts(tmp_path / "a.jsonl") == ["one", "two"]
    assert texts(tmp_path / "a.txt") == ["one\r\ntwo"]


def test_a_line_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_rows(tmp_path / "a.jsonl", ["one", "x" * 1000])
    monkeypatch.setattr(documents, "LONGEST_LINE", 500)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 has .* too long"):
        texts(tmp_path / "a.jsonl")


def test_repetitive_text_compressed_a_thousandfold(tmp_path: Path):
    documents_of_one_kind = [f"{number} " + "again and again " * 20_000 for number in range(20)]
    assert (
        texts(write_rows(tmp_path / "a.jsonl.zst", documents_of_one_kind)) == documents_of_one_kind
    )


def test_the_number_of_a_bad_line_is_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines = [json.dumps({"text": document}) for document in some_documents()]
    lines[41] = '{"text": "'
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(inputs, "PART", 500)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 42 is not JSON"):
        texts(tmp_path / "a.jsonl")


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path):
    path = write_rows(tmp_path / "a.jsonl", some_documents())
    parts = find_parts(str(path), Reading())
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match="has changed since this preparation began"):
        list(read_documents(parts[0], Reading()))
