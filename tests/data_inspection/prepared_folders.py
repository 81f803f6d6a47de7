"""Folders of shards for tests: written with the shard writer, and an index by hand."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.shard_file import write_shard_file
from groundup.data_inspection.statistics import Statistics
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer, tokenizer_sha256
from groundup.tokenizers.train import learn_tokenizer

WORDS = "fox dog cow hen owl rat elk ape bee ant cat pig ram yak emu"


@cache
def small_tokenizer() -> Tokenizer:
    """Byte-level BPE of 380 tokens: bytes, a few words, and <|endoftext|>."""
    return learn_tokenizer([f"{WORDS} the quick brown fox jumps over a lazy dog; " * 20], 380)


def tokens_of(documents: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    """Each document after <|endoftext|>: [tokens] uint16."""
    separator = np.array([tokenizer.special_tokens[END_OF_TEXT]])
    parts = [part for text in documents for part in (separator, tokenizer.encode(repaired(text)))]
    return np.concatenate([*parts, np.empty(0, np.int64)]).astype("<u2")


def repaired(text: str) -> str:
    """U+FFFD for each lone surrogate."""
    return "".join(
        "\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text
    )


def write_prepared(
    folder: Path, train: Sequence[str], validation: Sequence[str], shards: int = 2, **changes: Any
) -> Path:
    """What `groundup prepare` leaves for these documents; changes: keys of the index with other
    values.
    """
    folder.mkdir()
    tokenizer, splits, statistics = small_tokenizer(), {}, {}
    for split, documents in (("train", train), ("validation", validation)):
        gathered, entries = Statistics(), []
        for number, text in enumerate(documents):
            gathered.examine(text, repaired(text).encode(), f"{split}.txt:{number + 1}")
        count = shards if split == "train" else 1
        for number in range(count):
            entries.append(
                _write(folder, f"{split}-{number:05d}.bin", documents[number::count], tokenizer)
            )
        splits[split] = {
            "tokens": sum(entry["tokens"] for entry in entries),
            "documents": len(documents),
            "bytes": sum(len(repaired(text).encode()) for text in documents),
            "duplicates": len(documents) - len(set(documents)),
            "shards": entries,
        }
        statistics[split] = gathered.to_json()
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    index = {
        "format": "groundup shards",
        "version": 1,
        "fingerprint": hashlib.sha256(json.dumps(splits).encode()).hexdigest(),
        "tokenizer": {
            "name": "small",
            "sha256": tokenizer_sha256(tokenizer),
            "vocab_size": tokenizer.vocab_size,
        },
        "splits": splits,
        "statistics": statistics,
    }
    (folder / "index.json").write_text(json.dumps(index | changes), "utf-8")
    return folder


def _write(
    folder: Path, name: str, documents: Sequence[str], tokenizer: Tokenizer
) -> dict[str, Any]:
    tokens = tokens_of(documents, tokenizer)
    made_by = tokenizer.vocab_size, tokenizer_sha256(tokenizer)
    sha256 = write_shard_file(folder / name, [tokens], tokens.dtype, *made_by).sha256
    return {"file": name, "tokens": len(tokens), "documents": len(documents), "sha256": sha256}


def change_index(folder: Path, *keys: str | int, value: Any) -> None:
    """Set index[key][key]... to a value."""
    index = json.loads((folder / "index.json").read_text("utf-8"))
    place = index
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "index.json").write_text(json.dumps(index), "utf-8")
