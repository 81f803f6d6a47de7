"""Documents to prepare, in every format that `groundup prepare` reads, and what it made of them."""

import gzip
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import zstandard

from conftest import some_text
from groundup.data.shard_folder import open_folder
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer
from groundup.tokenizers.load import load_tokenizer
from groundup.tokenizers.train import learn_tokenizer

FORMATS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def some_documents(count: int = 60, seed: int = 1) -> list[str]:
    """Different documents of 1 to 400 characters, not all of them ASCII."""
    text, generator = some_text(), random.Random(seed)
    starts = [generator.randrange(len(text) - 400) for _ in range(count)]
    return [
        f"{number} {text[start : start + generator.randrange(1, 400)]}"
        for number, start in enumerate(starts)
    ]


def write_rows(path: Path, documents: list[str], column: str = "text") -> Path:
    """A file of documents, in the format that its name says."""
    lines = "".join(
        json.dumps({"id": 1, column: document}) + "\n" for document in documents
    ).encode()
    if path.suffix == ".parquet":
        table = pyarrow.table({"id": [1] * len(documents), column: documents})
        pyarrow.parquet.write_table(table, path, row_group_size=7)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines))
    elif path.suffix == ".zst":
        path.write_bytes(zstandard.compress(lines))
    else:
        path.write_bytes(lines)
    return path


def small_tokenizer(folder: Path) -> Path:
    """A folder with byte-level BPE of 300 tokens, which loads at once."""
    folder.mkdir()
    learn_tokenizer([some_text()], 300).save(folder)
    return folder


def documents_in(out: Path, split: str) -> list[str]:
    """What the shards of a split hold, document by document."""
    folder = open_folder(out)
    tokenizer = load_tokenizer(out / "tokenizer")
    return [document for shard in folder.shards[split] for document in cut(shard.tokens, tokenizer)]


def cut(tokens: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """The texts after each end-of-text, which every shard must begin with."""
    starts = np.flatnonzero(tokens == tokenizer.special_tokens[END_OF_TEXT])
    assert not len(tokens) or starts[0] == 0
    return [tokenizer.decode(piece[1:]) for piece in np.split(tokens, starts[1:]) if len(piece)]


def files_of(folder: Path) -> dict[str, str]:
    """Every file below a folder and the SHA-256 of its bytes; hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
