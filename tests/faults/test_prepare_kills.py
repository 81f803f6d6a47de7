"""`groundup prepare` killed at random moments: what has a final name is whole, and the end is
always the same bytes.
"""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from commands import groundup, started
from groundup.data.shard_file import open_shard
from groundup.data.shard_folder import open_folder
from sample_sources import files_of, small_tokenizer, some_documents, write_rows

KILLS = 50


def source(folder: Path) -> Path:
    """Ten parts of every format."""
    (folder / "rows").mkdir()
    for number, suffix in enumerate(5 * [".jsonl.gz", ".parquet"]):
        write_rows(folder / "rows" / f"{number}{suffix}", some_documents(200, seed=number))
    return folder / "rows"


@pytest.mark.parametrize(
    ("workers", "kills"),
    [
        *((1, 8), (2, 4)),
        *(pytest.param(*much, marks=pytest.mark.long) for much in ((1, KILLS - 10), (2, 10))),
    ],
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    workers: int, kills: int, tmp_path: Path
):
    rows, tokenizer, generator = (
        source(tmp_path),
        small_tokenizer(tmp_path / "small"),
        random.Random(workers),
    )
    command = ("prepare", rows, "--tokenizer", tokenizer, "--workers", workers, "--out")
    groundup("--version", folder=tmp_path)  # what forks the others is ready now
    begun = time.monotonic()
    assert groundup(*command, "whole", folder=tmp_path).returncode == 0
    seconds, wanted = time.monotonic() - begun, files_of(tmp_path / "whole")
    killed = rounds = 0
    while killed < kills:
        rounds += 1
        out = tmp_path / f"out-{rounds}"
        while not (out / "index.json").exists():
            with started(*command, out, folder=tmp_path) as running:
                running.process.join(generator.uniform(0, seconds))
                if running.process.is_alive():
                    running.send(signal.SIGKILL)
                    killed += 1
                finished = running.wait()
            assert finished.returncode in {0, -signal.SIGKILL}, finished.stderr
            for shard in out.glob("*.bin"):
                open_shard(shard).verify()
            for results in out.glob(".work/*.json"):
                json.loads(results.read_text("utf-8"))
        # a kill may have come after the index
        assert groundup(*command, out, folder=tmp_path).returncode == 0
        assert files_of(out) == wanted
    assert len(open_folder(tmp_path / "whole").index["splits"]["train"]["shards"]) == 1
