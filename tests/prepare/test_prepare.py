"""`groundup prepare`: the shards are a function of the documents, the tokenizer and the seed, and
of nothing else.
"""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from commands import groundup, started
from conftest import error_line, some_text
from groundup.data.shard_folder import open_folder
from groundup.prepare import encoding, inputs, pipeline
from groundup.prepare.plan import Preparation
from groundup.tokenizers.load import load_tokenizer
from groundup.tokenizers.train import learn_tokenizer
from sample_sources import (
    FORMATS,
    documents_in,
    files_of,
    small_tokenizer,
    some_documents,
    write_rows,
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return small_tokenizer(tmp_path / "small")


def prepared(source: Path, out: Path, *flags: object, workers: int = 1) -> Path:
    """`groundup prepare`, which must succeed."""
    finished = groundup(
        "prepare", source, "--out", out, "--workers", workers, *flags, folder=source.parent
    )
    assert finished.returncode == 0, finished.stderr
    return out


@pytest.mark.parametrize("suffix", FORMATS)
def test_shards_hold_every_document_once_after_an_end_of_text(
    suffix: str, tmp_path: Path, tokenizer: Path
):
    wanted = some_documents()
    out = prepared(
        write_rows(tmp_path / f"a{suffix}", wanted), tmp_path / "out", "--tokenizer", tokenizer
    )
    training, validation = documents_in(out, "train"), documents_in(out, "validation")
    assert Counter(training + validation) == Counter(wanted)
    assert 0 < len(validation) < 20
    order = [wanted.index(document) for document in training]
    assert order != sorted(order)
    index = json.loads((out / "index.json").read_text("utf-8"))
    for split, found in (("train", training), ("validation", validation)):
        totals = index["splits"][split]
        assert totals["documents"] == len(found)
        assert totals["bytes"] == sum(len(document.encode()) for document in found)
        assert totals["tokens"] == sum(
            len(shard.tokens) for shard in open_folder(out).shards[split]
        )
    assert not (out / ".work").exists()


def test_formats_orders_and_workers_make_no_difference(tmp_path: Path, tokenizer: Path):
    documents = some_documents()
    outs = [
        prepared(
            write_rows(tmp_path / f"a{suffix}", documents),
            tmp_path / f"out{suffix}",
            "--tokenizer",
            tokenizer,
        )
        for suffix in FORMATS
    ]
    (tmp_path / "folder").mkdir()
    write_rows(tmp_path / "folder" / "1.jsonl", documents[30:])
    write_rows(tmp_path / "folder" / "2.parquet", documents[:30])
    outs.append(
        prepared(tmp_path / "folder", tmp_path / "out-folder", "--tokenizer", tokenizer, workers=2)
    )
    shards = [
        {name: sha for name, sha in files_of(out).items() if name.endswith(".bin")} for out in outs
    ]
    assert len(shards[0]) == 2
    assert all(other == shards[0] for other in shards)
    assert len({open_folder(out).fingerprint for out in outs}) == 1


def test_the_split_is_the_documents_own(tmp_path: Path, tokenizer: Path):
    """Neither more documents nor another seed moves one from training to validation; the seed
    changes the order.
    """
    documents = some_documents(200)
    few = prepared(
        write_rows(tmp_path / "few.jsonl", documents[:100]),
        tmp_path / "1",
        "--tokenizer",
        tokenizer,
    )
    many = prepared(
        write_rows(tmp_path / "many.jsonl", documents), tmp_path / "2", "--tokenizer", tokenizer
    )
    other = prepared(tmp_path / "many.jsonl", tmp_path / "3", "--tokenizer", tokenizer, "--seed", 2)
    assert set(documents_in(few, "validation")) == set(documents_in(many, "validation")) & set(
        documents[:100]
    )
    assert sorted(documents_in(many, "train")) == sorted(documents_in(other, "train"))
    assert documents_in(many, "train") != documents_in(other, "train")
    nothing = prepared(
        tmp_path / "few.jsonl", tmp_path / "4", "--tokenizer", tokenizer, "--validation", 0
    )
    assert sorted(documents_in(nothing, "train")) == sorted(documents[:100])


def test_several_shards_are_one_shuffled_order(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
):
    documents = some_documents(200)
    path = write_rows(tmp_path / "a.jsonl", documents)
    monkeypatch.setattr(encoding, "SHARD_TOKENS", 1000)
    monkeypatch.setattr(encoding, "HELD_TOKENS", 200)
    monkeypatch.setattr(encoding, "RUN_TOKENS", 500)
    monkeypatch.setattr(inputs, "PART", 3000)
    folder = pipeline.prepare(
        Preparation(str(path), tokenizer=str(tokenizer)), tmp_path / "many", workers=1
    )
    assert len(folder.shards["train"]) > 5
    assert len(folder.shards["validation"]) > 1
    monkeypatch.undo()
    pipeline.prepare(Preparation(str(path), tokenizer=str(tokenizer)), tmp_path / "one", workers=1)
    for split in ("train", "validation"):
        assert documents_in(tmp_path / "many", split) == documents_in(tmp_path / "one", split)
    for shard in folder.all_shards():
        shard.verify()


def test_equal_documents_are_counted_or_left_out(tmp_path: Path, tokenizer: Path):
    documents = some_documents(50)
    path = write_rows(tmp_path / "a.jsonl", documents + documents[:10] + documents[:5])
    kept = prepared(path, tmp_path / "1", "--tokenizer", tokenizer)
    once = prepared(path, tmp_path / "2", "--tokenizer", tokenizer, "--deduplicate")
    for out, count in ((kept, 65), (once, 50)):
        splits = open_folder(out).index["splits"]
        assert sum(split["documents"] for split in splits.values()) == count
        assert sum(split["duplicates"] for split in splits.values()) == 15
    assert sorted(documents_in(once, "train") + documents_in(once, "validation")) == sorted(
        documents
    )


@pytest.mark.parametrize("limit", [1, 300, 2000, 10**9])
@pytest.mark.parametrize("workers", [1, 2])
def test_tokens_stops_after_the_document_that_reaches_them(
    limit: int, workers: int, tmp_path: Path, tokenizer: Path
):
    documents = some_documents(80)
    (tmp_path / "rows").mkdir()
    for number in range(8):
        write_rows(tmp_path / "rows" / f"{number}.jsonl", documents[10 * number :][:10])
    out = prepared(
        tmp_path / "rows",
        tmp_path / "out",
        "--tokenizer",
        tokenizer,
        "--tokens",
        limit,
        workers=workers,
    )
    lengths = [len(load_tokenizer(tokenizer).encode(document)) for document in documents]
    count = next(
        (n + 1 for n, total in enumerate(np.cumsum(lengths)) if total >= limit), len(documents)
    )
    assert sorted(documents_in(out, "train") + documents_in(out, "validation")) == sorted(
        documents[:count]
    )


def test_a_text_is_cut_into_documents(tmp_path: Path, tokenizer: Path):
    text = "".join(f"paragraph {number}\n{some_text()}\n\n" for number in range(20))
    (tmp_path / "a.txt").write_text(text)
    out = prepared(tmp_path / "a.txt", tmp_path / "out", "--tokenizer", tokenizer)
    pieces = documents_in(out, "train") + documents_in(out, "validation")
    assert len(pieces) > 5
    assert "".join(sorted(pieces, key=text.index)) == text


def test_characters(tmp_path: Path):
    documents = some_documents()
    out = prepared(
        write_rows(tmp_path / "a.jsonl", documents), tmp_path / "out", "--tokenizer", "characters"
    )
    tokenizer = load_tokenizer(out / "tokenizer")
    assert tokenizer.vocab_size == len(set("".join(documents)) | {"\n"})
    for split in ("train", "validation"):
        assert tokenizer.decode(open_folder(out).shards[split][0].tokens).startswith("\n")


def test_what_no_tokenizer_takes_is_repaired(tmp_path: Path):
    """Half a surrogate pair, which JSON can bring, and a million spaces, which can't be cut into
    words.
    """
    half = '{"text": "half \\ud83d of a smile"}\n'
    spaces = json.dumps({"text": " " * 1_100_000 + "x"}) + "\n"
    (tmp_path / "a.jsonl").write_text(half + spaces)
    out = prepared(tmp_path / "a.jsonl", tmp_path / "out", "--validation", 0)
    assert sorted(documents_in(out, "train")) == [" " * 1_100_000 + "x", "half \ufffd of a smile"]


def test_named_corpora(tmp_path: Path):
    finished = groundup("prepare", "shakespeare", "--out", "out", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    splits = open_folder(tmp_path / "out").index["splits"]
    assert splits["train"]["bytes"] + splits["validation"]["bytes"] == 1_115_394
    assert open_folder(tmp_path / "out").index["tokenizer"]["vocab_size"] == 50_257


def test_a_second_run_does_nothing_and_another_one_is_refused(tmp_path: Path, tokenizer: Path):
    path = write_rows(tmp_path / "a.jsonl", some_documents())
    out = prepared(path, tmp_path / "out", "--tokenizer", tokenizer)
    before = files_of(out), (out / "train-00000.bin").stat().st_mtime_ns
    prepared(path, out, "--tokenizer", tokenizer)
    assert (files_of(out), (out / "train-00000.bin").stat().st_mtime_ns) == before
    refused = groundup(
        "prepare", path, "--out", out, "--tokenizer", tokenizer, "--seed", 2, folder=tmp_path
    )
    assert "was begun with seed = 1337, not 2" in error_line(refused)
    write_rows(path, some_documents(61))
    refused = groundup("prepare", path, "--out", out, "--tokenizer", tokenizer, folder=tmp_path)
    assert "was prepared from other files" in error_line(refused)
    assert files_of(out) == before[0]


def test_files_that_come_while_it_works_or_after_it(tmp_path: Path, tokenizer: Path):
    """They aren't in it: an unfinished one says so before it goes on, a finished one when it is
    asked for again.
    """
    (tmp_path / "rows").mkdir()
    for number in range(2):
        write_rows(tmp_path / "rows" / f"{number}.jsonl", some_documents(1000, seed=number))
    command = ("prepare", "rows", "--out", "out", "--tokenizer", tokenizer, "--workers", 1)
    groundup(*command, folder=tmp_path, file_size=100_000)
    assert (tmp_path / "out" / ".work" / "plan.json").exists()
    write_rows(tmp_path / "rows" / "2.jsonl", some_documents())
    assert "rows has changed since this preparation began" in error_line(
        groundup(*command, folder=tmp_path)
    )
    (tmp_path / "rows" / "2.jsonl").unlink()
    assert groundup(*command, folder=tmp_path).returncode == 0
    write_rows(tmp_path / "rows" / "2.jsonl", some_documents())
    assert "was prepared from other files" in error_line(groundup(*command, folder=tmp_path))


def test_shards_are_no_source(tmp_path: Path, tokenizer: Path):
    out = prepared(
        write_rows(tmp_path / "a.jsonl", some_documents()),
        tmp_path / "out",
        "--tokenizer",
        tokenizer,
    )
    assert "has shards already" in error_line(
        groundup("prepare", out, "--out", "again", folder=tmp_path)
    )


def test_another_tokenizer_under_the_same_name_is_refused(tmp_path: Path, tokenizer: Path):
    path = write_rows(tmp_path / "a.jsonl", some_documents())
    out = prepared(path, tmp_path / "out", "--tokenizer", tokenizer)
    learn_tokenizer(["another text entirely"], 270).save(tokenizer)
    refused = groundup("prepare", path, "--out", out, "--tokenizer", tokenizer, folder=tmp_path)
    assert "isn't the one that" in error_line(refused)


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path, tokenizer: Path):
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows" / "a.jsonl", some_documents())
    for name in ("a.bz2", "b.bz2", "c.jpg"):
        (tmp_path / "rows" / name).write_bytes(b"x")
    finished = groundup(
        "prepare", "rows", "--out", "out", "--tokenizer", tokenizer, "--workers", 1, folder=tmp_path
    )
    assert "3 files that aren't text (2 .bz2, 1 .jpg)" in finished.stderr


def test_ctrl_c_ends_it_and_its_workers_at_once_and_it_goes_on(tmp_path: Path, tokenizer: Path):
    (tmp_path / "rows").mkdir()
    for number in range(20):
        write_rows(tmp_path / "rows" / f"{number}.parquet", some_documents(1000, seed=number))
    command = ("prepare", "rows", "--tokenizer", tokenizer, "--workers", 2, "--out")
    with started(*command, "out", folder=tmp_path) as running:
        while not list(tmp_path.glob("out/.work/*.run")) and running.process.is_alive():
            time.sleep(0.001)
        running.send(signal.SIGINT)
        finished = running.wait(timeout=60)
    assert finished.returncode in {0, 130}
    assert "Traceback" not in finished.stderr
    assert groundup(*command, "out", folder=tmp_path).returncode == 0
    assert groundup(*command, "whole", folder=tmp_path).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_script_without_a_main_guard_can_use_several_workers(tmp_path: Path, tokenizer: Path):
    (tmp_path / "rows").mkdir()
    for number in range(3):
        write_rows(tmp_path / "rows" / f"{number}.jsonl", some_documents(seed=number))
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from groundup.prepare.pipeline import Preparation, prepare\n"
        "print('begin')\n"
        f"folder = prepare(Preparation('rows', {str(tokenizer)!r}), Path('out'), workers=2)\n"
        "print(folder.index['splits']['train']['documents'])\n"
    )
    finished = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    begin, documents = finished.stdout.split()
    assert begin == "begin"
    assert int(documents) > 100


def test_nothing_of_a_preparation_imports_torch(tmp_path: Path):
    code = (
        "import sys, groundup.prepare.pipeline, groundup.prepare.ray; print('torch' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "False"
