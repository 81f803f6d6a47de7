"""What a preparation does, call by call: encode a part, write a shard. Each call may be repeated,
anywhere.

A call leaves a file of its own name when it is done, and does nothing if that file is there. The
folder of the work lies in the output folder until the index is written.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from groundup.console import report
from groundup.data.shard_file import ShardWriter
from groundup.data.shard_folder import FORMAT, INDEX, SPLITS, TOKENIZER_FOLDER, VERSION
from groundup.data.tokens import token_dtype
from groundup.data_inspection.statistics import Statistics
from groundup.errors import CorpusError
from groundup.prepare.documents import Reading, read_documents
from groundup.prepare.encoding import (
    Layout,
    RunWriter,
    digest_of,
    encode_anyway,
    read_shard,
    repaired,
    separator_of,
)
from groundup.prepare.inputs import Part
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.load import load_tokenizer

WORK = ".work"
PLAN = "plan.json"
DOWNLOADS = "downloads"
APPEND = 2**20  # tokens written at a time


@dataclass(frozen=True)
class Preparation:
    """What to prepare, and how. limit: tokens, 0 for all. validation: the share of the documents
    kept for it.
    """

    source: str
    tokenizer: str = "gpt2"
    sample: str = ""
    column: str = "text"
    replace_errors: bool = False
    seed: int = 1337
    validation: float = 0.1
    deduplicate: bool = False
    limit: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise CorpusError(
                f"--validation {self.validation} must be a share of the documents, in [0, 1)"
            )
        if not 0 <= self.seed < 2**63:
            raise CorpusError(f"--seed {self.seed} must be a whole number from 0, below 2^63")
        if self.limit < 0:
            raise CorpusError(
                f"--tokens {self.limit} must be a number of tokens, from 1; leave it out to take "
                "all"
            )

    def reading(self, out: Path) -> Reading:
        """How its documents are read; remote files are brought to the folder of the work."""
        return Reading(self.column, self.replace_errors, out / WORK / DOWNLOADS, report)


@dataclass(frozen=True)
class Plan:
    """A preparation worked out. inputs: SHA-256 of what there is to read. tokens_per_byte: of the
    first documents.

    made_by: SHA-256 of the tokenizer.
    """

    preparation: Preparation
    inputs: str
    layout: Layout
    tokens_per_byte: float
    vocab_size: int
    made_by: str
    parts: tuple[Part, ...]

    @property
    def expected_tokens(self) -> float:
        """Of both splits, about."""
        expected = sum(part.size for part in self.parts) * self.tokens_per_byte
        return min(expected, self.preparation.limit or expected)

    def write(self, folder: Path) -> None:
        """As `plan.json`."""
        write_json(folder / PLAN, asdict(self) | {"parts": [part.to_json() for part in self.parts]})

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """What `write` wrote."""
        values = json.loads((folder / PLAN).read_text("utf-8"))
        made = {
            "preparation": Preparation(**values["preparation"]),
            "layout": Layout(**values["layout"]),
            "parts": tuple(map(Part.from_json, values["parts"])),
        }
        return cls(**values | made)


@dataclass(frozen=True)
class Job:
    """What every call needs: the output folder, its plan and its tokenizer."""

    out: Path
    plan: Plan
    tokenizer: Tokenizer

    @property
    def work(self) -> Path:
        """The folder of what isn't finished."""
        return self.out / WORK

    @property
    def dtype(self) -> np.dtype:
        """Of the shards' tokens."""
        return token_dtype(self.plan.vocab_size)

    def result_of(self, name: str) -> dict[str, Any] | None:
        """What a call left, None if it isn't done."""
        path = self.work / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None


def open_job(out: str) -> Job:
    """The job in a folder; a process reads its plan and its tokenizer once."""
    return _open_job(out, (Path(out) / WORK / PLAN).stat().st_mtime_ns)


@lru_cache(1)
def _open_job(out: str, _written: int) -> Job:
    folder = Path(out)
    return Job(
        folder, Plan.read(folder / WORK), load_tokenizer(folder / TOKENIZER_FOLDER, lambda _: None)
    )


def encode_part(out: str, number: int, limit: int) -> dict[str, Any]:
    """Encode the documents of a part into runs, until there are `limit` tokens (0: all). What it
    did, in numbers.

    Raises CorpusError and TokenizerError.
    """
    job = open_job(out)
    name = f"part-{number:06d}"
    done = job.result_of(name)
    if done is not None and done["limit"] == limit:
        return done
    part, layout = job.plan.parts[number], job.plan.layout
    runs = RunWriter(job.work, name, layout, job.dtype)
    statistics = {split: Statistics() for split in SPLITS}
    tokens = documents = size = 0
    with explained(job.out):
        for document in read_documents(part, job.plan.preparation.reading(job.out)):
            text = repaired(document.text)
            data = text.encode("utf-8")
            ids = encode_anyway(job.tokenizer, text)
            validates = runs.add(ids, digest_of(data), len(data))
            statistics[SPLITS[validates]].examine(document.text, data, document.origin)
            documents, tokens, size = documents + 1, tokens + len(ids), size + len(data)
            if 0 < limit <= tokens:
                break
        runs.flush()
        result = {
            **{
                "limit": limit,
                "documents": documents,
                "tokens": tokens,
                "bytes": size,
                "runs": runs.names,
            },
            "statistics": {split: found.to_json() for split, found in statistics.items()},
        }
        write_json(job.work / f"{name}.json", result)
        if part.remote and not limit:  # with a limit it may be needed again
            (job.work / DOWNLOADS / part.remote.path).unlink(missing_ok=True)
    return result


def write_shard(out: str, number: int, parts: int) -> dict[str, Any]:
    """Gather a shard's documents from the runs of the first `parts` parts, and write them in their
    order: its entry.
    """
    job = open_job(out)
    name = f"shard-{number:06d}"
    done = job.result_of(name)
    if done is not None:
        return done
    layout = job.plan.layout
    validates = number >= layout.training_shards
    file = f"{SPLITS[validates]}-{number - validates * layout.training_shards:05d}.bin"
    results = [job.result_of(f"part-{part:06d}") for part in range(parts)]
    runs = [job.work / run for result in results if result is not None for run in result["runs"]]
    separator = separator_of(job.tokenizer)
    between = np.array([] if separator is None else [separator], job.dtype)
    entry: dict[str, Any] = {"file": file, "split": SPLITS[validates]}
    counts = dict.fromkeys(("documents", "bytes", "duplicates"), 0)
    made_by = job.tokenizer.vocab_size, tokenizer_sha256(job.tokenizer)
    with (
        explained(job.out),
        ShardWriter(job.out / file, job.dtype, *made_by, temporary=job.work) as writer,
    ):
        waiting: list[np.ndarray] = []
        for row, tokens, duplicate in read_shard(runs, layout, number, job.dtype):
            counts["duplicates"] += duplicate
            if duplicate and job.plan.preparation.deduplicate:
                continue
            counts["documents"] += 1
            counts["bytes"] += int(row["bytes"])
            waiting += [between, tokens]
            if len(waiting) >= 1000:
                writer.append(np.concatenate(waiting))
                waiting.clear()
        writer.append(np.concatenate([between[:0], *waiting]))
        entry |= {"sha256": writer.publish(), "tokens": writer.count} | counts
        write_json(job.work / f"{name}.json", entry)
    return entry


def write_index(out: str, parts: int) -> dict[str, Any]:
    """Leave `index.json`, which depends on nothing like time, place or the number of workers: what
    it says.
    """
    job = open_job(out)
    plan, tokenizer = job.plan, job.tokenizer
    entries = [job.result_of(f"shard-{number:06d}") or {} for number in range(plan.layout.shards)]
    digest = tokenizer_sha256(tokenizer)
    statistics = {split: Statistics() for split in SPLITS}
    for number in range(parts):
        for split, found in (job.result_of(f"part-{number:06d}") or {})["statistics"].items():
            statistics[split].merge(Statistics.from_json(found))
    splits = {}
    for split in SPLITS:
        shards = [entry for entry in entries if entry["split"] == split]
        totals = {
            key: sum(shard[key] for shard in shards)
            for key in ("tokens", "documents", "bytes", "duplicates")
        }
        listed = [
            {key: shard[key] for key in ("file", "tokens", "documents", "sha256")}
            for shard in shards
        ]
        splits[split] = totals | {"shards": listed}
    hashes = [digest, *(f"{entry['split']} {entry['sha256']}" for entry in entries)]
    index = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "tokenizer": {
            "name": plan.preparation.tokenizer,
            "sha256": digest,
            "vocab_size": tokenizer.vocab_size,
        },
        "splits": splits,
        "statistics": {split: found.to_json() for split, found in statistics.items()},
        "preparation": asdict(plan.preparation),
        "inputs": plan.inputs,
    }
    with explained(job.out):
        write_json(job.out / INDEX, index, job.work)
    return index


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error of one line."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"can't write into {out}: {error.strerror or error}. What is done is kept: make room, "
            "and run the same command again to go on"
        ) from error


def write_json(path: Path, values: dict[str, Any], temporary: Path | None = None) -> None:
    """A whole file or none, and durable. temporary: the folder where it is written, on the same
    disk.
    """
    temporary = (temporary or path.parent) / (f"{path.name}.{uuid4().hex}.part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=1)  # ASCII: the names of files may be no text
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
