"""Bad sources, full disks and wrong flags: one line that names the thing, exit 2, nothing left
under a final name.
"""

import errno
import gzip
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from filelock import FileLock

from commands import groundup, started
from conftest import error_line, small_disk
from groundup.data.shard_file import open_shard
from sample_sources import documents_in, files_of, small_tokenizer, some_documents, write_rows


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return small_tokenizer(tmp_path / "small")


def refusal(tmp_path: Path, source: Path | str, *flags: object) -> str:
    """What `groundup prepare` says of a source that it can't take; it leaves no folder."""
    command = ("prepare", source, "--out", "out", "--tokenizer", "small", *flags)
    line = error_line(groundup(*command, folder=tmp_path))
    assert not list(tmp_path.glob("out/*"))
    return line


def changed(value: Any, place: tuple[str | int, ...], new: object) -> Any:
    """The value of a JSON file with another value in one place."""
    if not place:
        return new
    first, *rest = place
    value[first] = changed(value[first] if rest else None, tuple(rest), new)
    return value


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("tokenizer")
class TestRefused:
    def test_a_source_that_is_not_there(self, tmp_path: Path):
        line = refusal(tmp_path, "nowhere.txt")
        assert "nowhere.txt" in line
        assert "shakespeare" in line

    def test_an_empty_file(self, tmp_path: Path):
        assert "empty.txt is empty" in refusal(tmp_path, written(tmp_path / "empty.txt", b""))

    def test_a_file_without_documents(self, tmp_path: Path):
        assert "has no documents" in refusal(
            tmp_path, written(tmp_path / "a.jsonl", b'\n{"text": ""}\n')
        )

    def test_a_folder_without_texts(self, tmp_path: Path):
        (tmp_path / "pictures").mkdir()
        written(tmp_path / "pictures" / "a.jpg", b"x")
        assert "holds no text file" in refusal(tmp_path, tmp_path / "pictures")

    def test_bytes_that_are_not_utf8(self, tmp_path: Path):
        line = refusal(tmp_path, written(tmp_path / "a.txt", b"caf\xe9"))
        assert "a.txt is not UTF-8: byte 0xe9 at offset 3" in line
        assert "--encoding-errors replace" in line

    def test_a_line_that_is_not_json(self, tmp_path: Path):
        assert "a.jsonl, line 2 is not JSON" in refusal(
            tmp_path, written(tmp_path / "a.jsonl", b'{"text": "x"}\n{"text": \n')
        )

    def test_a_line_without_the_column(self, tmp_path: Path):
        path = written(tmp_path / "a.jsonl", b'{"text": "x"}\n{"body": "y", "id": 3}\n')
        assert "line 2 has no text under 'text', but body, id" in refusal(tmp_path, path)
        assert "line 2 has no text under 'id', but 'id': 3" in refusal(
            tmp_path, written(tmp_path / "b.jsonl", b'{"id": "x"}\n{"id": 3}\n'), "--column", "id"
        )

    def test_a_line_that_is_no_object(self, tmp_path: Path):
        assert "line 1 has no text under 'text', but list" in refusal(
            tmp_path, written(tmp_path / "a.jsonl", b"[1]\n")
        )

    def test_parquet_without_the_column(self, tmp_path: Path):
        path = write_rows(tmp_path / "a.parquet", ["x"], "body")
        assert "has no column 'text'; it has id, body" in refusal(tmp_path, path)
        assert "column 'id' holds int64, not text. Of text: body" in refusal(
            tmp_path, path, "--column", "id"
        )

    def test_parquet_that_is_cut_off_or_damaged(self, tmp_path: Path):
        whole = write_rows(tmp_path / "a.parquet", some_documents()).read_bytes()
        assert "not a whole parquet file" in refusal(
            tmp_path, written(tmp_path / "b.parquet", whole[:-100])
        )
        damaged = whole[:40] + bytes(2000) + whole[2040:]
        assert "c.parquet is damaged after row" in refusal(
            tmp_path, written(tmp_path / "c.parquet", damaged)
        )

    @pytest.mark.parametrize("damage", ["cut", "flipped", "nothing"])
    def test_a_broken_compressed_file(self, damage: str, tmp_path: Path):
        lines = b"".join(b'{"text": "%d"}\n' % number for number in range(5000))
        # as the command zstd writes it
        zst = zstandard.ZstdCompressor(write_checksum=True).compress(lines)
        for suffix, whole in ((".gz", gzip.compress(lines)), (".zst", zst)):
            middle = len(whole) // 2
            content = {
                "cut": whole[:-20],
                "flipped": whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :],
                "nothing": b"no member at all",
            }[damage]
            path = written(tmp_path / f"a.jsonl{suffix}", content)
            line = refusal(tmp_path, path)
            assert f"a.jsonl{suffix} is a damaged {suffix} file" in line or "is not" in line

    def test_a_tokenizer_that_is_not_there(self, tmp_path: Path):
        path = write_rows(tmp_path / "a.jsonl", ["x"])
        assert "tokenizer nowhere is neither" in error_line(
            groundup("prepare", path, "--out", "out", "--tokenizer", "nowhere", folder=tmp_path)
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--validation", 1), "--validation 1.0 must be a share"),
            (("--validation", "nan"), "--validation nan must be a share"),
            (("--tokens", -1), "--tokens -1 must be"),
            (("--workers", -1), "--workers -1 must be"),
            (("--seed", -1), "--seed -1 must be"),
            (("--encoding-errors", "ignore"), "ignore"),
        ],
    )
    def test_wrong_flags(self, flags: tuple[object, ...], said: str, tmp_path: Path):
        assert said in refusal(tmp_path, write_rows(tmp_path / "a.jsonl", ["x"]), *flags)

    def test_an_output_folder_with_something_else_in_it(self, tmp_path: Path):
        path = write_rows(tmp_path / "a.jsonl", ["x"])
        (tmp_path / "mine").mkdir()
        kept = written(tmp_path / "mine" / "thesis.txt", b"x")
        for out, said in (("mine", "something else in it"), ("a.jsonl", "is a file")):
            finished = groundup(
                "prepare", path, "--out", out, "--tokenizer", "small", folder=tmp_path
            )
            assert said in error_line(finished)
        assert kept.read_bytes() == b"x"

    def test_an_output_folder_within_the_source(self, tmp_path: Path):
        (tmp_path / "rows").mkdir()
        write_rows(tmp_path / "rows" / "a.jsonl", ["x"])
        finished = groundup(
            "prepare", "rows", "--out", "rows/out", "--tokenizer", "small", folder=tmp_path
        )
        assert "would be read itself" in error_line(finished)
        assert not (tmp_path / "rows" / "out").exists()

    @pytest.mark.parametrize("index", [b"{", b"[]", b'{"weights": 3}'])
    def test_an_output_folder_with_another_index(self, index: bytes, tmp_path: Path):
        path = write_rows(tmp_path / "a.jsonl", ["x"])
        (tmp_path / "mine").mkdir()
        kept = written(tmp_path / "mine" / "index.json", index)
        assert "index.json" in error_line(
            groundup("prepare", path, "--out", "mine", "--tokenizer", "small", folder=tmp_path)
        )
        assert kept.read_bytes() == index

    def test_names_that_are_no_text(self, tmp_path: Path):
        (tmp_path / "rows").mkdir()
        write_rows(tmp_path / "rows" / "caf\udce9.jsonl", some_documents())
        finished = groundup(
            "prepare", "rows", "--out", "out", "--tokenizer", "small", folder=tmp_path
        )
        assert finished.returncode == 0, finished.stderr

    def test_two_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = write_rows(tmp_path / "a.jsonl", ["x", "y", "z"])
        (tmp_path / "out" / ".work").mkdir(parents=True)
        with FileLock(tmp_path / "out" / ".work" / "lock"):
            finished = groundup(
                "prepare", path, "--out", "out", "--tokenizer", "small", folder=tmp_path
            )
        assert "another process is preparing" in error_line(finished)
        assert (tmp_path / "out" / ".work" / "lock").exists()


@pytest.mark.usefixtures("tokenizer")
def test_a_source_that_changed_since_it_was_begun_is_refused(tmp_path: Path):
    path = write_rows(tmp_path / "a.jsonl", some_documents(3000))
    limited = groundup(
        *("prepare", path, "--out", "out", "--tokenizer", "small", "--workers", 1),
        folder=tmp_path,
        file_size=200_000,
    )
    assert "can't write into" in error_line(limited)
    os.utime(path, ns=(1, 1))
    finished = groundup("prepare", path, "--out", "out", "--tokenizer", "small", folder=tmp_path)
    assert "a.jsonl has changed since this preparation began" in error_line(finished)


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(
    "place",
    [(), ("preparation",), ("layout",), ("parts", 0)],
    ids=lambda place: "-".join(map(str, place)) or "plan",
)
@pytest.mark.parametrize("value", ["unknown", None])
def test_a_plan_of_another_version_is_a_line(
    place: tuple[str | int, ...], value: str | None, tmp_path: Path
):
    """A key that this version doesn't know, or a table that isn't one."""
    path = write_rows(tmp_path / "a.jsonl", some_documents(2000))
    command = ("prepare", path, "--out", "out", "--tokenizer", "small", "--workers", 1)
    groundup(*command, folder=tmp_path, file_size=50_000)
    file = tmp_path / "out" / ".work" / "plan.json"
    plan = json.loads(file.read_text("utf-8"))
    plan = changed(plan, place, None) if value is None else changed(plan, (*place, value), 3)
    file.write_text(json.dumps(plan), "utf-8")
    before = files_of(tmp_path / "out")
    line = error_line(groundup(*command, folder=tmp_path))
    assert "out/.work/plan.json is damaged, or of another version of groundup" in line
    assert f"Delete {tmp_path / 'out'} and prepare again" in line
    assert files_of(tmp_path / "out") == before


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("preparation", "unknown"), 3, "out was prepared by another version of groundup"),
        (("preparation",), None, "out was prepared by another version of groundup"),
        (("preparation", "validation"), "much", "out was prepared by another version of groundup"),
        (("tokenizer",), ["name", "sha256"], "out/index.json is damaged"),
        (("splits", "train", "shards"), [["file", "tokens", "sha256"]], "index.json is damaged"),
    ],
)
def test_an_index_of_another_version_is_a_line(
    place: tuple[str, ...], value: object, said: str, tmp_path: Path
):
    path = write_rows(tmp_path / "a.jsonl", some_documents())
    command = ("prepare", path, "--out", "out", "--tokenizer", "small", "--workers", 1)
    assert groundup(*command, folder=tmp_path).returncode == 0
    file = tmp_path / "out" / "index.json"
    index = changed(json.loads(file.read_text("utf-8")), place, value)
    file.write_text(json.dumps(index), "utf-8")
    assert said in error_line(groundup(*command, folder=tmp_path))
    assert file.read_text("utf-8") == json.dumps(index)


@pytest.mark.usefixtures("tokenizer")
def test_more_than_an_index_needs_is_left_alone(tmp_path: Path):
    """What a later version adds, where this one needs nothing of it."""
    path = write_rows(tmp_path / "a.jsonl", some_documents())
    command = ("prepare", path, "--out", "out", "--tokenizer", "small", "--workers", 1)
    assert groundup(*command, folder=tmp_path).returncode == 0
    file = tmp_path / "out" / "index.json"
    index = json.loads(file.read_text("utf-8"))
    for place in (("unknown",), ("tokenizer", "unknown"), ("splits", "train", "unknown")):
        index = changed(index, place, 3)
    file.write_text(json.dumps(index), "utf-8")
    assert groundup(*command, folder=tmp_path).returncode == 0
    checked = groundup("data", "check", "out", folder=tmp_path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_size_limit_stops_it_and_without_it_it_goes_on(workers: int, tmp_path: Path):
    (tmp_path / "rows").mkdir()
    for number in range(3):
        write_rows(tmp_path / "rows" / f"{number}.jsonl", some_documents(1000, seed=number))
    command = ("prepare", "rows", "--tokenizer", "small", "--workers", workers, "--out")
    assert groundup(*command, "whole", folder=tmp_path).returncode == 0
    limit = (tmp_path / "whole" / "train-00000.bin").stat().st_size - 1000
    line = error_line(groundup(*command, "out", folder=tmp_path, file_size=limit))
    assert "can't write into" in line
    assert "the same command" in line
    for shard in (tmp_path / "out").glob("*.bin"):
        open_shard(shard).verify()
    assert not (tmp_path / "out" / "index.json").exists()
    assert groundup(*command, "out", folder=tmp_path).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    with small_disk(tmp_path, 400) as mounted:
        yield mounted


@pytest.mark.usefixtures("tokenizer")
def test_a_disk_without_room_is_found_before_anything_is_encoded(tmp_path: Path, disk: Path):
    path = write_rows(tmp_path / "a.jsonl", some_documents(3000))
    finished = groundup(
        "prepare", path, "--out", disk / "out", "--tokenizer", "small", folder=tmp_path
    )
    assert "GB free" in error_line(finished)


@pytest.mark.usefixtures("tokenizer")
def test_a_disk_that_fills_up_names_itself_and_with_room_it_goes_on(tmp_path: Path, disk: Path):
    """Other files take what the check before had found free."""
    path = write_rows(tmp_path / "a.jsonl", some_documents(400))
    command = ("prepare", path, "--tokenizer", "small", "--workers", 1, "--out")
    assert groundup(*command, "whole", folder=tmp_path).returncode == 0
    with started(*command, disk / "out", folder=tmp_path) as running:
        while not list(disk.glob("out/.work/*.run")) and running.process.is_alive():
            pass
        with suppress(OSError):
            (disk / "other").write_bytes(bytes(400_000))
        finished = running.wait()
    if finished.returncode:  # it may have been quicker than the other files
        assert "No space left" in error_line(finished)
    (disk / "other").unlink()
    finished = groundup(*command, disk / "out", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert files_of(disk / "out") == files_of(tmp_path / "whole")
    assert len(documents_in(tmp_path / "whole", "train")) > 300


def refuse_after(writes: int) -> None:
    """Let this process open so many files for writing; then the disk is full."""
    opened, left = Path.open, itertools.count(writes, -1)

    def open_file(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "w" in mode and next(left) <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, mode, *args, **options)

    Path.open = open_file


@pytest.mark.usefixtures("tokenizer")
def test_a_full_disk_is_one_line_whatever_is_written_then(tmp_path: Path):
    path = write_rows(tmp_path / "a.jsonl", some_documents(40))
    command = ("prepare", path, "--tokenizer", "small", "--workers", 1, "--out", "out")
    for writes in itertools.count():
        finished = groundup(*command, folder=tmp_path, before=partial(refuse_after, writes))
        if finished.returncode == 0:
            break
        assert "No space left" in error_line(finished)
    assert writes > 3
