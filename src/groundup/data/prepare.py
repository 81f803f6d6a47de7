"""`groundup prepare`: any text to shuffled, verified shards, in constant memory; stopped anywhere, it goes on.

First every part of the input is encoded into runs, then every shard is gathered from the runs; the index comes last.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from groundup.cores import usable_cores
from groundup.data.documents import Reading, read_documents
from groundup.data.encoding import Layout, encode_anyway, repaired, token_dtype
from groundup.data.parts import Part, find_parts
from groundup.data.preparation import PLAN, WORK, Plan, Preparation, explained, open_job, say, write_json
from groundup.data.progress import Progress
from groundup.data.remote import named_dataset
from groundup.data.shard_folder import INDEX, SPLITS, TOKENIZER_FOLDER, ShardFolder, open_folder
from groundup.data.statistics import Statistics
from groundup.data.workers import Call, Results, Workers, run_here
from groundup.errors import CorpusError
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.loading import load_tokenizer

SHARD_TOKENS = 2**25  # of a shard, about: what phase two holds in memory
SAMPLE_BYTES = 2**18  # of the source, to judge how many tokens it has
LOCK_SECONDS = 1.0


class Runner(Protocol):
    """Whatever works off calls: this process, several, or a cluster."""

    def __call__(self, calls: Iterable[Call]) -> Results: ...


def prepare(preparation: Preparation, out: Path, workers: int = 0, ray: str = "") -> ShardFolder:
    """Shards of a source in the folder `out`, and what was learned about them: the open folder.

    workers: processes; 0 takes the cores there are. ray: the address of a cluster that shares the disk. A preparation
    that was stopped goes on; one that is finished is only opened. Raises GroundupError.
    """
    out = out.expanduser().resolve()
    _check_output(out)
    if not (out / INDEX).is_file():
        with explained(out):
            (out / WORK).mkdir(parents=True, exist_ok=True)
        try:
            with _locked(out):
                if not (out / INDEX).is_file():  # another process may have come first
                    _prepare(out, preparation, workers, ray)
        finally:
            _remove_if_not_begun(out)
    _check_finished(out, preparation)
    shutil.rmtree(out / WORK, ignore_errors=True)
    return open_folder(out)


def default_validation(source: str) -> float:
    """The share of documents to keep for validation, where none is given: a corpus of the web has enough in less."""
    return 0.001 if source in {"fineweb-edu", "openwebtext"} or source.startswith("hf://") else 0.1


def _check_output(out: Path) -> None:
    """Raises CorpusError for a folder with something else in it."""
    if out.exists() and not out.is_dir():
        raise CorpusError(f"--out {out} is a file; give a folder")
    if out.is_dir() and not (out / WORK).is_dir() and not (out / INDEX).is_file() and any(out.iterdir()):
        raise CorpusError(f"--out {out} has something else in it; give an empty folder, or one that isn't there yet")


def _remove_if_not_begun(out: Path) -> None:
    """What was refused before there was a plan leaves nothing behind."""
    if (out / WORK).is_dir() and {path.name for path in (out / WORK).iterdir()} <= {"lock"}:
        shutil.rmtree(out / WORK)
        shutil.rmtree(out / TOKENIZER_FOLDER, ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One process at a time. Raises CorpusError."""
    try:
        with FileLock(out / WORK / "lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise CorpusError(f"another process is preparing {out}: wait for it, or end it") from error


def plan_in(out: Path, preparation: Preparation) -> Plan:
    """The plan that was begun, if it is of this preparation; else a new one. Raises GroundupError."""
    if (out / WORK / PLAN).is_file():
        plan = Plan.read(out / WORK)
        _check_same(out, plan.preparation, preparation)
        for part in plan.parts:
            part.check_unchanged()
        return plan
    parts = tuple(find_parts(preparation.source, preparation.column, preparation.sample, say))
    reading = preparation.reading(out)
    tokenizer = _tokenizer_of(preparation, parts, reading)
    size, tokens = _sample(parts, reading, tokenizer)
    expected = sum(part.size for part in parts) * tokens / size
    expected = min(expected, preparation.limit or expected)
    validation = round(expected * preparation.validation)
    layout = Layout(
        seed=preparation.seed,
        validation=preparation.validation,
        training_shards=max(1, round((expected - validation) / SHARD_TOKENS)),
        validation_shards=max(1, round(validation / SHARD_TOKENS)) if preparation.validation else 0,
    )
    plan = Plan(preparation, inputs_of(parts), layout, tokens / size, parts)
    with explained(out):
        (out / TOKENIZER_FOLDER).mkdir(exist_ok=True)
        tokenizer.save(out / TOKENIZER_FOLDER)
        plan.write(out / WORK)
    return plan


def inputs_of(parts: Iterable[Part]) -> str:
    """SHA-256 of what there is to read: names, ranges and sizes."""
    named = [
        asdict(part) | {"files": [Path(name).name for name in part.files], "facts": [size for size, _ in part.facts]}
        for part in parts
    ]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _check_finished(out: Path, preparation: Preparation) -> None:
    """Raises CorpusError if what is in `out` is another preparation, or its source has other files now."""
    index = json.loads((out / INDEX).read_text("utf-8"))
    _check_same(out, Preparation(**index["preparation"]), preparation)
    remote = named_dataset(preparation.source, preparation.sample or None) is not None  # and pinned when it was begun
    if not remote and index["inputs"] != inputs_of(find_parts(preparation.source, preparation.column)):
        raise CorpusError(f"{out} was prepared from other files than {preparation.source} has now: give another --out")


def _check_same(out: Path, before: Preparation, now: Preparation) -> None:
    for name, value in asdict(before).items():
        if getattr(now, name) != value:
            raise CorpusError(
                f"{out} was begun with {name} = {value}, not {getattr(now, name)}: give another --out, or delete it"
            )


def _tokenizer_of(preparation: Preparation, parts: Iterable[Part], reading: Reading) -> Tokenizer:
    """The tokenizer that is named; `characters` is made of those that the source has."""
    if preparation.tokenizer != "characters":
        return load_tokenizer(preparation.tokenizer, say)
    if any(part.remote for part in parts):
        raise CorpusError(
            f"--tokenizer characters reads the whole source first, so not {preparation.source}: take gpt2"
        )
    characters: set[str] = {"\n"}  # it comes between documents
    for part in parts:
        for document in read_documents(part, reading):
            characters |= set(repaired(document.text))
    return CharacterTokenizer(characters)


def _sample(parts: Iterable[Part], reading: Reading, tokenizer: Tokenizer) -> tuple[int, int]:
    """Bytes and tokens of the first documents. Raises CorpusError if there are none."""
    for part in parts:
        size = tokens = 0
        for document in read_documents(part, reading):
            text = repaired(document.text)[:SAMPLE_BYTES]
            size, tokens = size + len(text.encode()), tokens + len(encode_anyway(tokenizer, text))
            if size >= SAMPLE_BYTES:
                break
        if tokens:
            return size, tokens
    raise CorpusError("the source is empty: it has no documents with any text")


def _check_disk(out: Path, plan: Plan) -> None:
    """Raises CorpusError if what will be written can't have room."""
    dtype = token_dtype(load_tokenizer(out / TOKENIZER_FOLDER, lambda _: None).vocab_size)
    need = int(2.1 * plan.expected_tokens * dtype.itemsize)  # the runs and the shards, for a while both
    need += 2 * max(part.remote.size if part.remote else 0 for part in plan.parts)  # a file for each worker, about
    need -= sum(path.stat().st_size for path in (out / WORK).rglob("*"))
    free = shutil.disk_usage(out).free
    if free < need:
        raise CorpusError(
            f"{out} needs about {need / 1e9:.1f} GB, half of it for the time of the preparation, but its disk has "
            f"{free / 1e9:.1f} GB free. Make room, choose another disk with --out, or take less with --tokens"
        )


@contextmanager
def runner(workers: int, ray: str, parts: int) -> Iterator[Runner]:
    """What works off the calls."""
    if ray:
        from groundup.data.cluster import on_cluster

        yield on_cluster(ray)
        return
    if workers < 0:
        raise CorpusError(f"--workers {workers} must be a number of processes, from 1")
    count = min(workers or usable_cores(), parts)
    if count == 1:
        yield run_here
    else:
        with Workers(count) as processes:
            yield processes.run


def _prepare(out: Path, preparation: Preparation, workers: int, ray: str) -> None:
    """Both phases, and the index."""
    plan = plan_in(out, preparation)
    _check_disk(out, plan)
    with runner(workers, ray, len(plan.parts)) as run, Progress(plan) as progress:
        taken = encode_parts(out, plan, run, progress)
        calls = (("write_shard", {"out": str(out), "number": n, "parts": taken}) for n in range(plan.layout.shards))
        entries = {}
        for call, entry in run(calls):
            entries[call[1]["number"]] = entry
            progress.shard(len(entries), plan.layout.shards)
    with explained(out):
        write_json(out / INDEX, _index(out, taken, [entries[number] for number in sorted(entries)]))


def encode_parts(out: Path, plan: Plan, run: Runner, progress: Progress) -> int:
    """Encode as many parts as it takes: their number. The last one ends with the document that reaches the limit."""
    limit, taken, total, tokens = plan.preparation.limit, 0, 0, 0

    def call(number: int, most: int) -> Call:
        return "encode_part", {"out": str(out), "number": number, "limit": most}

    while taken < len(plan.parts) and (not limit or total < limit):
        found = {}
        for done, result in run(call(number, limit) for number in _wave(plan, taken, limit - total)):
            found[done[1]["number"]] = result["tokens"]
            progress.part(plan.parts[done[1]["number"]], result)
        while taken in found and (not limit or total < limit):
            tokens = found[taken]
            total, taken = total + tokens, taken + 1
    if 0 < limit < total:
        for _ in run([call(taken - 1, limit - (total - tokens))]):
            pass
    return taken


def _wave(plan: Plan, first: int, wanted: int) -> Iterator[int]:
    """Parts from `first` on that are expected to have as many tokens as are wanted; all of them without a limit."""
    for number in range(first, len(plan.parts)):
        yield number
        wanted -= int(plan.parts[number].size * plan.tokens_per_byte)
        if plan.preparation.limit and wanted <= 0:
            return


def _index(out: Path, parts: int, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What `index.json` says: nothing that depends on when, where or by how many workers it was made."""
    job = open_job(str(out))
    plan, tokenizer = job.plan, job.tokenizer
    digest = tokenizer_sha256(tokenizer)
    statistics = {split: Statistics() for split in SPLITS}
    for number in range(parts):
        for split, found in (job.result_of(f"part-{number:06d}") or {})["statistics"].items():
            statistics[split].merge(Statistics.from_json(found))
    splits = {}
    for split in SPLITS:
        shards = [entry for entry in entries if entry["split"] == split]
        totals = {key: sum(shard[key] for shard in shards) for key in ("tokens", "documents", "bytes", "duplicates")}
        listed = [{key: shard[key] for key in ("file", "tokens", "documents", "sha256")} for shard in shards]
        splits[split] = totals | {"shards": listed}
    hashes = [digest, *(f"{entry['split']} {entry['sha256']}" for entry in entries)]
    return {
        "format": "groundup shards",
        "version": 1,
        "fingerprint": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "tokenizer": {"name": plan.preparation.tokenizer, "sha256": digest, "vocab_size": tokenizer.vocab_size},
        "splits": splits,
        "statistics": {split: found.to_json() for split, found in statistics.items()},
        "preparation": asdict(plan.preparation),
        "inputs": plan.inputs,
    }
