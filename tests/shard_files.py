"""Folders of shards for tests, as `groundup prepare` leaves them, made by hand."""

import hashlib
import json
from pathlib import Path

import numpy as np

from conftest import some_text
from groundup.data.shard_file import DTYPES, write_shard_file
from groundup.tokenizers import CharacterTokenizer
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer, tokenizer_sha256
from groundup.tokenizers.train import learn_tokenizer


def learned() -> Tokenizer:
    """A byte-level tokenizer of 300 tokens, end-of-text among them."""
    return learn_tokenizer([some_text()], 300)


def documents(size: int = 60, text: str = "") -> list[str]:
    """A text cut into documents of so many characters."""
    text = text or some_text()
    return [text[start : start + size] for start in range(0, len(text), size)]


def encoded(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Documents as tokens, the end-of-text token before each where there is one."""
    start = (
        [tokenizer.special_tokens[END_OF_TEXT]] if END_OF_TEXT in tokenizer.special_tokens else []
    )
    return np.concatenate([[*start, *tokenizer.encode(text)] for text in texts])


def write_shards(folder: Path, tokenizer: Tokenizer, texts: list[str], *, shards: int = 3) -> Path:
    """A folder of shards: of every ten documents one validates, the others are dealt out to
    `shards` for training.
    """
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    validation = texts[::10]
    training = [text for number, text in enumerate(texts) if number % 10]
    groups = {
        "train": [training[number::shards] for number in range(shards)],
        "validation": [validation],
    }
    splits = {}
    for split, parts in groups.items():
        listed = [
            _write(folder, f"{split}-{number:05d}.bin", tokenizer, part)
            for number, part in enumerate(parts)
        ]
        splits[split] = {
            "tokens": sum(entry["tokens"] for entry in listed),
            "documents": sum(entry["documents"] for entry in listed),
            "bytes": sum(len(text.encode("utf-8")) for part in parts for text in part),
            "shards": listed,
        }
    hashes = "".join(entry["sha256"] for split in splits.values() for entry in split["shards"])
    index = {
        "format": "groundup shards",
        "version": 1,
        "fingerprint": hashlib.sha256(hashes.encode("ascii")).hexdigest(),
        "tokenizer": {
            "name": "mine",
            "sha256": tokenizer_sha256(tokenizer),
            "vocab_size": tokenizer.vocab_size,
        },
        "splits": splits,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=2), "utf-8")
    return folder


def _write(folder: Path, name: str, tokenizer: Tokenizer, texts: list[str]) -> dict[str, object]:
    dtype = DTYPES[2 if tokenizer.vocab_size <= 2**16 else 4]
    pieces, made_by = [encoded(tokenizer, texts).astype(dtype)], tokenizer_sha256(tokenizer)
    tokens, sha256 = write_shard_file(folder / name, pieces, dtype, tokenizer.vocab_size, made_by)
    return {"file": name, "tokens": tokens, "documents": len(texts), "sha256": sha256}


def characters() -> CharacterTokenizer:
    """The tokenizer of the characters of `some_text`."""
    return CharacterTokenizer(some_text())
