"""The steps of a preparation: encode a part, write a shard, write the index.

Each step may be repeated, in any process on any machine that shares the disk. A step that encodes a
part or writes a shard saves its result in a file, and isn't done again if that file is there. The
result files lie in a folder of the output folder until the preparation is finished.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from groundup.console import messages_to
from groundup.data.formats import FORMAT, INDEX
from groundup.data.shard_file import write_shard_file
from groundup.data.shard_folder import TOKENIZER_FOLDER, VERSION
from groundup.data.splits import SPLITS, token_dtype
from groundup.data_inspection.statistics import Statistics
from groundup.files import write_json
from groundup.prepare import encoding
from groundup.prepare.encoding import (
    RunWriter,
    ShardPlace,
    digest_of,
    encode_anyway,
    number_of_shards,
    repaired,
)
from groundup.prepare.inputs import read_documents
from groundup.prepare.plan import DOWNLOADS, PLAN, WORK, Plan, explained
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.load import load_tokenizer

WAITING = 500  # documents that are gathered before they are written


@dataclass(frozen=True)
class Job:
    """What every step of a preparation needs: the output folder, the plan and the tokenizer."""

    out: Path
    plan: Plan
    tokenizer: Tokenizer

    @property
    def work(self) -> Path:
        """The folder of unfinished work in the output folder."""
        return self.out / WORK

    @property
    def dtype(self) -> np.dtype:
        """The type of the shards' tokens."""
        return token_dtype(self.plan.vocab_size)

    def result_of(self, name: str) -> dict[str, Any] | None:
        """Read the saved result of a step, or return None if the step isn't done."""
        path = self.work / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def keep(self, name: str, result: dict[str, Any]) -> dict[str, Any]:
        """Save the result of a step, which marks the step as done."""
        write_json(self.work / f"{name}.json", result, indent=1, apart=self.work)
        return result

    def places(self, parts: int) -> list[ShardPlace]:
        """List the shards of both splits, those for training first."""
        counts = count_shards(str(self.out), parts)
        return [ShardPlace(s, number, counts[s]) for s in SPLITS for number in range(counts[s])]


def open_job(out: str) -> Job:
    """Read the plan and the tokenizer in an output folder; a process keeps them for later steps."""
    return _open_job(out, (Path(out) / WORK / PLAN).stat().st_mtime_ns)


@lru_cache(1)
def _open_job(out: str, _written: int) -> Job:
    folder = Path(out)
    with messages_to(lambda _: None):  # what there is to say was said when the plan was made
        tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    return Job(folder, Plan.read(folder / WORK), tokenizer)


def encode_part(out: str, number: int, limit: int) -> dict[str, Any]:
    """Encode the documents of a part into run files.

    Args:
        out: The output folder.
        number: The part's number in the plan.
        limit: The number of tokens after which to stop; 0 takes all documents.

    Returns:
        The numbers of documents, tokens and bytes, the names of the run files, and the statistics
        of both splits.

    Raises:
        CorpusError: The part can't be read, or a file can't be written.
        TokenizerError: A document has what the tokenizer can't encode.
    """
    job, name = open_job(out), f"part-{number:06d}"
    done = job.result_of(name)
    if done is not None and done["limit"] == limit:
        return done
    part, layout = job.plan.parts[number], job.plan.layout
    runs = RunWriter(job.work, name, layout, job.dtype)
    statistics = {split: Statistics() for split in SPLITS}
    totals = {"documents": 0, "tokens": 0, "bytes": 0, "validation_tokens": 0}
    with explained(job.out):
        for document in read_documents(part, job.plan.reading, job.work / DOWNLOADS):
            text = repaired(document.text)
            data = text.encode("utf-8")
            tokens, digest = encode_anyway(job.tokenizer, text), digest_of(data)
            validates = part.split == "validation" or (not part.split and layout.validates(digest))
            runs.add(tokens, digest, len(data), validates)
            statistics[SPLITS[validates]].examine(document.text, data, document.origin)
            totals["documents"] += 1
            totals["tokens"] += len(tokens)
            totals["bytes"] += len(data)
            totals["validation_tokens"] += len(tokens) * validates
            if 0 < limit <= totals["tokens"]:
                break
        runs.flush()
        found = {split: counted.to_json() for split, counted in statistics.items()}
        result = job.keep(name, {"limit": limit, **totals, "runs": runs.names, "statistics": found})
        if part.remote and not limit:  # with a limit it may be needed again: see `encode_parts`
            (job.work / DOWNLOADS / part.remote.path).unlink(missing_ok=True)
    return result


def count_shards(out: str, parts: int) -> dict[str, Any]:
    """Decide by the tokens that were encoded into how many shards each split is cut.

    Args:
        out: The output folder.
        parts: How many parts, from the first on, were encoded.

    Returns:
        The number of shards of each split.
    """
    job = open_job(out)
    if (done := job.result_of("shards")) is not None:
        return done
    results = [job.result_of(f"part-{part:06d}") or {} for part in range(parts)]
    held_out = sum(result["validation_tokens"] for result in results)
    training = sum(result["tokens"] for result in results) - held_out
    some = number_of_shards(held_out) if held_out or job.plan.layout.validation else 0
    return job.keep("shards", {"train": number_of_shards(training), "validation": some})


def write_shard(out: str, number: int, parts: int) -> dict[str, Any]:
    """Gather a shard's documents from the run files, and write the shard.

    Args:
        out: The output folder.
        number: The shard's number among the shards of both splits.
        parts: How many parts, from the first on, were encoded.

    Returns:
        The shard's entry in the index, with its split and its counts.

    Raises:
        CorpusError: A run file ends early, or a file can't be written.
    """
    job, name = open_job(out), f"shard-{number:06d}"
    if (done := job.result_of(name)) is not None:
        return done
    place, tokenizer = job.places(parts)[number], job.tokenizer
    split, file = place.split, f"{place.split}-{place.number:05d}.bin"
    results = [job.result_of(f"part-{part:06d}") for part in range(parts)]
    runs = [job.work / run for result in results if result is not None for run in result["runs"]]
    between = np.array([encoding.separator_of(tokenizer)], job.dtype)
    counts = dict.fromkeys(("documents", "bytes", "duplicates"), 0)

    def pieces() -> Iterator[np.ndarray]:
        waiting = [between[:0]]
        for row, tokens, is_duplicate in encoding.read_shard(runs, place, job.dtype):
            counts["duplicates"] += is_duplicate
            if is_duplicate and job.plan.preparation.deduplicate:
                continue
            counts["documents"] += 1
            counts["bytes"] += int(row["bytes"])
            waiting += [between, tokens]
            if len(waiting) > 2 * WAITING:
                yield np.concatenate(waiting)
                waiting = [between[:0]]
        yield np.concatenate(waiting)

    made_by = tokenizer.vocab_size, tokenizer_sha256(tokenizer)
    with explained(job.out):
        written = write_shard_file(job.out / file, pieces(), job.dtype, *made_by, apart=job.work)
        entry = {"file": file, "split": split, "sha256": written.sha256, "tokens": written.tokens}
        return job.keep(name, entry | counts)


def write_index(out: str, parts: int) -> dict[str, Any]:
    """Write `index.json`, which doesn't depend on the time or on the number of workers.

    Args:
        out: The output folder.
        parts: How many parts, from the first on, were encoded.

    Returns:
        What the index says.

    Raises:
        CorpusError: A file can't be written.
    """
    job = open_job(out)
    plan, tokenizer = job.plan, job.tokenizer
    numbers = range(len(job.places(parts)))
    entries = [job.result_of(f"shard-{number:06d}") or {} for number in numbers]
    digest = tokenizer_sha256(tokenizer)
    statistics = {split: Statistics() for split in SPLITS}
    for number in range(parts):
        for split, found in (job.result_of(f"part-{number:06d}") or {})["statistics"].items():
            statistics[split].merge(Statistics.from_json(found))
    splits = {}
    for split in SPLITS:
        shards = [entry for entry in entries if entry["split"] == split]
        totals = ("tokens", "documents", "bytes", "duplicates")
        listed = ("file", "tokens", "documents", "sha256")
        splits[split] = {key: sum(shard[key] for shard in shards) for key in totals} | {
            "shards": [{key: shard[key] for key in listed} for shard in shards]
        }
    hashes = [digest, *(f"{entry['split']} {entry['sha256']}" for entry in entries)]
    made_by = {"name": plan.preparation.tokenizer, "sha256": digest}
    index = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "tokenizer": made_by | {"vocab_size": tokenizer.vocab_size},
        "splits": splits,
        "statistics": {split: found.to_json() for split, found in statistics.items()},
        "preparation": asdict(plan.preparation),
        "inputs": plan.inputs,
    }
    with explained(job.out):
        write_json(job.out / INDEX, index, indent=1, apart=job.work)
    return index
