"""Claim: `groundup prepare` encodes at 0.85 of raw tiktoken's speed a process, parquet included at
0.7 of it.

    python benchmarks/prepare_throughput.py [--megabytes 200] [--workers 2] [--rounds 3]

The peer is a loop of tiktoken's `encode_ordinary` over the same documents, held in memory, in one
process: nothing is read, hashed, examined or kept. Ours is the encoding of a part, as a worker does
it: JSON lines or parquet read from the disk, tokens and their documents in runs on it; then all
parts by as many workers as asked for, which are started, and load their tokenizer, within that
time. Rounds alternate; the medians count. With --memory GIGABYTES nothing is timed: the largest
memory of all processes together is stated for an input of that size.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import tiktoken

from common import conclude, quoted
from groundup.data.corpora import load_corpus
from groundup.data.encodings import Reading
from groundup.prepare.inputs import find_parts, read_documents
from groundup.prepare.pipeline import encode_parts, plan_in, runner
from groundup.prepare.plan import WORK, Preparation
from groundup.prepare.progress import Progress
from groundup.prepare.steps import encode_part, open_job
from groundup.prepare.workers import run_here
from groundup.tokenizers.load import load_tokenizer

ROWS_AT_ONCE = 2000


def some_documents(megabytes: float, seed: int = 1) -> Iterator[str]:
    """Documents of 500 to 5,000 characters: Tiny Shakespeare and Python's documentation, repeated
    with variation.
    """
    text, generator = (
        load_corpus("shakespeare").text + load_corpus("python-docs").text,
        random.Random(seed),
    )
    left = int(1e6 * megabytes)
    while left > 0:
        start, length = generator.randrange(len(text) - 5000), generator.randrange(500, 5000)
        document = f"{generator.getrandbits(64):x} {text[start : start + length]}"
        left -= len(document)
        yield document


def write(path: Path, megabytes: float) -> Path:
    """JSON lines or parquet."""
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            for document in some_documents(megabytes):
                file.write(json.dumps({"text": document}) + "\n")
        return path
    schema = pyarrow.schema([("text", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        rows = []
        for document in some_documents(megabytes):
            rows.append(document)
            if len(rows) == ROWS_AT_ONCE:
                writer.write_table(pyarrow.table({"text": rows}))
                rows = []
        writer.write_table(pyarrow.table({"text": rows}, schema=schema))
    return path


def speed_of_tiktoken(documents: list[str], encoding: tiktoken.Encoding) -> float:
    """MB/s of a loop over documents in memory."""
    size = sum(len(document.encode()) for document in documents)
    started = time.perf_counter()
    for document in documents:
        encoding.encode_ordinary(document)
    return size / 1e6 / (time.perf_counter() - started)


def speed_of_a_part(source: Path, folder: Path) -> float:
    """MB/s of encoding one part in this process, reading and writing included."""
    out = Path(tempfile.mkdtemp(dir=folder))
    (out / WORK).mkdir()
    plan_in(out, Preparation(str(source)), run_here)
    open_job(str(out))  # loads the tokenizer, as a worker does once
    started = time.perf_counter()
    done = encode_part(str(out), 0, 0)
    return done["bytes"] / 1e6 / (time.perf_counter() - started)


def speed_of_workers(source: Path, folder: Path, workers: int) -> float:
    """MB/s of encoding the whole source, from starting the workers to the last run."""
    out = Path(tempfile.mkdtemp(dir=folder))
    (out / WORK).mkdir()
    plan = plan_in(out, Preparation(str(source)), run_here)
    started = time.perf_counter()
    with runner(workers, "") as run, Progress(plan) as progress:
        encode_parts(out, plan, run, progress, workers)
        return progress.bytes / 1e6 / (time.perf_counter() - started)


def _command(source: Path, out: Path, workers: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "groundup",
        "prepare",
        str(source),
        "--out",
        str(out),
        "--workers",
        str(workers),
    ]


def largest_memory(source: Path, folder: Path, workers: int) -> float:
    """Megabytes that all processes of `groundup prepare` have resident together, at the most;
    sampled.
    """
    process = subprocess.Popen(_command(source, folder / "out", workers), stdout=subprocess.DEVNULL)
    most = 0.0
    while process.poll() is None:
        most = max(most, sum(_resident(pid) for pid in _family(process.pid)))
        time.sleep(0.05)
    assert process.returncode == 0
    return most


def _family(pid: int) -> list[int]:
    """A process and its children, which have none themselves."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    threads = Path(f"/proc/{pid}/task")
    for thread in threads.iterdir() if threads.exists() else ():
        try:
            children += (thread / "children").read_text().split()
        except OSError:
            continue
    return [pid, *map(int, set(children))]


def _resident(pid: int) -> float:
    """Megabytes; pages that several processes share, as those of libraries, count once (PSS)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def main(words: list[str] | None = None) -> None:
    """All figures; the line of JSON is of one process's encoding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=400.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=float, default=0.0)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.memory:
            measure_memory(folder, given.memory, given.workers)
        else:
            script = quoted("prepare_throughput", parser, given)
            measure_speed(folder, given.megabytes, given.workers, given.rounds, script)


def measure_memory(folder: Path, gigabytes: float, workers: int) -> None:
    """Of parquet and of JSON lines."""
    most = 0.0
    for suffix in (".parquet", ".jsonl"):
        source = write(folder / f"a{suffix}", 1000 * gigabytes)
        (folder / suffix).mkdir()
        found = largest_memory(source, folder / suffix, workers)
        print(
            f"{gigabytes:g} GB of {suffix}, {workers} workers: {found:,.0f} MB at the most, all "
            "processes together"
        )
        most = max(most, found)
    conclude("prepare takes under 600 MB", ours=most, peer=600.0, ratio=600.0 / most, unit="MB")


def measure_speed(folder: Path, megabytes: float, workers: int, rounds: int, script: str) -> None:
    """Raw tiktoken, a part of JSON lines, a part of parquet; then one worker and several."""
    sources = {suffix: write(folder / f"a{suffix}", megabytes) for suffix in (".jsonl", ".parquet")}
    encoding = load_tokenizer("gpt2")._encoding  # type: ignore[attr-defined]
    part = find_parts(str(sources[".jsonl"]), Reading())[0]
    documents = [document.text for document in read_documents(part, Reading())]
    raw, ours, several = [], {suffix: [] for suffix in sources}, []
    for _ in range(rounds):
        raw.append(speed_of_tiktoken(documents, encoding))
        for suffix, source in sources.items():
            ours[suffix].append(speed_of_a_part(source, folder))
        several.append(speed_of_workers(sources[".jsonl"], folder, workers))
    peer = statistics.median(raw)
    print(f"raw tiktoken {peer:.2f} MB/s")
    for suffix, speeds in ours.items():
        speed = statistics.median(speeds)
        print(f"a part of {suffix}: {speed:.2f} MB/s, {speed / peer:.2f} of it")
    together = statistics.median(several)
    print(
        f"{workers} workers, their start included: {together:.2f} MB/s, {together / peer:.2f} of it"
    )
    speed = statistics.median(ours[".jsonl"])
    conclude(
        "prepare encodes at raw tiktoken's speed",
        ours=speed,
        peer=peer,
        ratio=speed / peer,
        unit="MB/s",
        script=script,
    )


if __name__ == "__main__":
    main()
