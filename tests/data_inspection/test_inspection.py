"""The data doctor at the command line: each finding planted once, and seen."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared_folders import WORDS, change_index, small_tokenizer, tokens_of, write_prepared

from commands import flip_bit, groundup
from conftest import error_line

ITEM = {
    "ind": 7,
    "ctx": "A man sits on a very high roof. he",
    "label": 1,
    "endings": ["x", "starts pulling it up."],
}


def texts(seed: int, count: int, words: int = 400) -> list[str]:
    """Documents that share no long run of words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS.split(), words)) + ".\n" for _ in range(count)]


def clean(
    folder: Path,
    train: list[str] | None = None,
    validation: list[str] | None = None,
    **changes: Any,
) -> Path:
    """A folder in which nothing is wrong, with some documents added."""
    return write_prepared(
        folder / "shards",
        texts(1, 60) + (train or []),
        texts(2, 70) + (validation or []),
        **changes,
    )


def items_file(folder: Path, *items: object) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return path


def check(shards: Path, *flags: object, status: int = 0) -> dict[str, dict[str, Any]]:
    """The findings by name."""
    finished = groundup("data", "check", shards, "--json", *flags, folder=shards.parent)
    assert finished.returncode == status, finished.stderr
    return {row["what"]: row for row in json.loads(finished.stdout)["findings"]}


def printed(shards: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return groundup("data", "check", shards, *flags, folder=shards.parent)


def test_a_sound_folder_has_no_warning(tmp_path: Path):
    shards = clean(tmp_path)
    finished = printed(shards, "--strict", "--hellaswag", items_file(tmp_path, ITEM))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = [line.split("\t") for line in finished.stdout.splitlines()]
    assert lines[-1] == [f"{shards}: 0 warnings"]
    rows = {line[1]: line for line in lines[:-1]}
    assert rows["documents"][2] == "train 60, validation 70"
    assert (
        rows["duplicates"][2]
        == rows["encoding damage"][2]
        == rows["characters unseen in training"][2]
        == "none"
    )
    assert rows["validation in training"][2] == "0% mostly, 0% in part, of 70 documents"
    assert rows["HellaSwag"][2] == "0 of 1 items in training, 0 in validation"
    assert rows["shards"][2].startswith("3 of 3 verified")


def test_every_finding_on_texts_is_seen_where_it_was_planted(tmp_path: Path):
    damaged = "caf\ufffd \ud83d \0 \x1b[1m \ufeff cafÃ© \x01"
    copies = texts(3, 1) * 4
    shards = clean(tmp_path, [*copies, damaged, "y" * 150_000], ["中 żółw"])
    rows = check(shards)
    assert rows["duplicates"]["level"] == "warning"
    assert rows["duplicates"]["facts"] == {"train": 3, "validation": 0}
    expected = {
        "replacement characters": 1,
        "lone surrogates": 1,
        "NUL characters": 1,
        "control characters": 2,
        "byte-order marks": 1,
        "mojibake": 1,
    }
    assert {kind: rows[kind]["facts"]["count"] for kind in expected} == expected
    assert {rows[kind]["facts"]["example"] for kind in expected} == {"train.txt:65"}
    assert rows["longest lines"]["level"] == "note"
    assert rows["longest lines"]["facts"]["lines"][0] == {
        "characters": 150_000,
        "origin": "train.txt:66",
    }
    assert rows["characters unseen in training"]["facts"]["characters"] == "zółż中".replace("z", "")
    assert "中 (U+4E2D)" in rows["characters unseen in training"]["value"]


def test_a_warning_counts_only_when_strict(tmp_path: Path):
    shards = clean(tmp_path, texts(3, 1) * 9)
    assert printed(shards).returncode == 0
    finished = printed(shards, "--strict")
    assert finished.returncode == 1
    assert finished.stdout.endswith("1 warning\n")
    assert finished.stderr == ""
    check(shards, "--strict", status=1)


@pytest.mark.parametrize(
    ("validation", "name", "value"),
    [
        ([], "validation", "empty"),
        (["a few words " * 9], "validation: uncertainty", "± 0."),
        (["ab"], "validation: documents", "only 1"),
    ],
)
def test_a_validation_split_too_small_to_trust(
    tmp_path: Path, validation: list[str], name: str, value: str
):
    rows = check(write_prepared(tmp_path / "shards", texts(1, 3), validation))
    assert rows[name]["level"] == "warning"
    assert rows[name]["value"].startswith(value)


def test_validation_documents_in_training_are_found(tmp_path: Path):
    copied, partly = texts(3, 2)
    mostly = "".join(copied[:-2]) + " and a new end"
    shards = clean(tmp_path, [copied, partly], [mostly, partly[:100] + texts(4, 1)[0]])
    row = check(shards)["validation in training"]
    assert row["level"] == "warning"
    assert (row["facts"]["any"], row["facts"]["most"], row["facts"]["checked"]) == (2, 1, 72)


@pytest.mark.parametrize("start", ["", "Some words before it. "])
def test_an_item_of_hellaswag_in_training_is_found(tmp_path: Path, start: str):
    text = f"{start}{ITEM['ctx']} {ITEM['endings'][1]} And more."
    other = ITEM | {"ind": 8, "ctx": "Nothing of this is there; she", "label": 0}
    row = check(clean(tmp_path, [text]), "--hellaswag", items_file(tmp_path, other, ITEM))[
        "HellaSwag"
    ]
    assert row["level"] == "warning"
    assert row["facts"]["training"] == [7]
    assert "A man sits on" in row["meaning"]


def test_what_is_no_item_is_named_with_its_line(tmp_path: Path):
    path = items_file(tmp_path, ITEM, ITEM | {"label": 5})
    line = error_line(printed(clean(tmp_path), "--hellaswag", path))
    assert f"{path}, line 2 is no item of HellaSwag" in line


def test_a_flipped_bit_is_named(tmp_path: Path):
    shards = clean(tmp_path)
    flip_bit(shards / "train-00001.bin", 200)
    line = error_line(printed(shards))
    assert "train-00001.bin is damaged: the SHA-256" in line
    assert "train-00000.bin" not in line


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (
            ("splits", "train", "documents"),
            3,
            "index.json says 3 documents for train, its shards have 60",
        ),
        (("splits", "train", "tokens"), 3, "index.json says 3 tokens for train"),
        (
            ("splits", "train", "shards", 0, "documents"),
            3,
            "train-00000.bin has 30 documents, but index.json says 3",
        ),
        (("splits", "train", "shards", 0, "tokens"), 3, "train-00000.bin"),
        (
            ("tokenizer", "vocab_size"),
            70,
            "index.json says 70 tokens in the vocabulary, its tokenizer has 3",
        ),
        (("tokenizer", "sha256"), "00" * 32, "belongs to another corpus"),
        (("statistics", "train"), 3, "statistics.train is damaged"),
    ],
)
def test_an_index_that_lies_is_refused(
    tmp_path: Path, keys: tuple[str | int, ...], value: object, named: str
):
    shards = clean(tmp_path)
    change_index(shards, *keys, value=value)
    assert named in error_line(printed(shards))


def foreign(folder: Path) -> Path:
    """What nanoGPT leaves: tokens in two files."""
    (folder / "shards").mkdir()
    copies = [*texts(1, 60), "a caf\ufffd\n", "a caf\ufffd\n"]
    tokens_of(copies, small_tokenizer()).tofile(folder / "shards" / "train.bin")
    tokens_of([*texts(2, 70), "ü"], small_tokenizer()).tofile(folder / "shards" / "val.bin")
    small_tokenizer().save(folder)
    return folder / "shards"


def test_foreign_shards_say_what_they_can(tmp_path: Path):
    shards = foreign(tmp_path)
    rows = check(shards, "--strict")
    assert rows["without an index"]["level"] == "note"
    assert rows["HellaSwag"]["value"] == "not checked"
    assert "documents" not in rows


def test_foreign_shards_are_decoded_with_their_tokenizer(tmp_path: Path):
    rows = check(foreign(tmp_path), "--tokenizer", tmp_path / "tokenizer.json")
    assert rows["documents"]["facts"] == {"train": 62, "validation": 71}
    assert rows["duplicates"]["facts"] == {"train": 1, "validation": 0}
    assert rows["replacement characters"]["facts"]["count"] == 2
    assert rows["characters unseen in training"]["facts"]["characters"] == "ü"
    tokens = len(np.fromfile(tmp_path / "shards" / "train.bin", "<u2"))
    size = sum(len(text.encode()) for text in [*texts(1, 60), "a caf\ufffd\n", "a caf\ufffd\n"])
    assert rows["bytes per token"]["facts"]["train"] == size / tokens


def test_foreign_shards_of_another_tokenizer_are_refused(tmp_path: Path):
    shards = foreign(tmp_path)
    np.array([1, small_tokenizer().vocab_size, 2], "<u2").tofile(shards / "val.bin")
    line = error_line(printed(shards, "--tokenizer", tmp_path / "tokenizer.json"))
    size = small_tokenizer().vocab_size
    assert f"val.bin has token {size}, but the vocabulary ends at {size - 1}" in line


def test_what_is_not_there_and_what_is_not_needed_are_said(tmp_path: Path):
    assert "nowhere doesn't exist" in error_line(printed(tmp_path / "nowhere"))
    assert "leave it out" in error_line(printed(clean(tmp_path), "--tokenizer", "gpt2"))


def test_a_foreign_text_without_separators_has_no_documents_to_count(tmp_path: Path):
    shards = foreign(tmp_path)
    for name, seed in (("train", 1), ("val", 2)):
        small_tokenizer().encode("".join(texts(seed, 60))).astype("<u2").tofile(
            shards / f"{name}.bin"
        )
    rows = check(shards, "--tokenizer", tmp_path / "tokenizer.json", "--strict")
    assert not {"documents", "duplicates", "validation: documents"} & rows.keys()
    assert rows["encoding damage"]["value"] == "none"
