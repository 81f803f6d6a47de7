"""Claim: two processes that train together end cleanly, every time: gloo's threads abort none of
them at exit.

    python benchmarks/two_process_exits.py [--runs 20]

Starts that many short runs of `torchrun --nproc-per-node 2 -m groundup train`, one after the other,
and counts those that exit with 0.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import conclude

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TINY = (
    *(
        "--model.block-size",
        "16",
        "--model.n-layer",
        "2",
        "--model.n-head",
        "2",
        "--model.n-embd",
        "16",
    ),
    *("--train.batch-size", "4", "--train.device", "cpu", "--train.compile", "off", "--steps", "6"),
    *("--eval.every", "3", "--eval.sample-length", "10", "--corpus", "text.txt"),
)


def exits(runs: int, folder: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    """Each run as it ended."""
    generator = random.Random(1)
    (folder / "text.txt").write_text("".join(generator.choices("abcdefgh .\n", k=4000)), "utf-8")
    for _ in range(runs):
        yield subprocess.run(
            [sys.executable, *TORCHRUN, "-m", "groundup", "train", *TINY],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )


def main(words: list[str] | None = None) -> None:
    """Run as often as the words of the command line ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args(words)
    clean = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, finished in enumerate(exits(given.runs, Path(folder)), 1):
            clean += finished.returncode == 0
            print(f"run {number}: exit status {finished.returncode}", flush=True)
            if finished.returncode:
                print(finished.stderr)
    print(f"{clean} of {given.runs} runs exited with 0")
    claim = "two-process runs end with exit status 0"
    conclude(claim, ours=clean, peer=given.runs, ratio=clean / given.runs, unit="runs")


if __name__ == "__main__":
    main()
