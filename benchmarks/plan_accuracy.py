"""Claim: `groundup plan` predicts the peak memory within 10% and the training time within 15%.

    python benchmarks/plan_accuracy.py [--seconds 12]

Each recipe of a grid (model, batch, context, dtype) is planned, then trained for about `--seconds`
in a process of its own; what that process's resident memory was at its highest, as the kernel
counts it, and what its steps took are compared with the plan.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from common import conclude

MODERN = ["--model.architecture", "modern", "--optim.optimizer", "muon", "--model.dropout", "0.0"]
FLOAT32, BFLOAT16 = ["--train.precision", "float32"], ["--train.precision", "bfloat16"]
LARGE = [
    "--model.n-layer",
    "6",
    "--model.n-head",
    "6",
    "--model.n-embd",
    "384",
    "--model.block-size",
    "256",
]
GRID = {
    "bigram": ["bigram"],
    "shakespeare-cpu": ["shakespeare-cpu"],
    "shakespeare-cpu, float32": ["shakespeare-cpu", *FLOAT32],
    "gpt2 4 x 4 x 128, context 256, batch 32": [
        "shakespeare-cpu", "--model.block-size", "256", "--train.batch-size", "32", *BFLOAT16,
    ],
    "shakespeare-fast": ["shakespeare-fast"],
    "modern 4 x 4 x 192, context 128, batch 64": [
        "shakespeare-cpu", *MODERN, "--model.n-embd", "192", "--model.block-size", "128",
        "--train.batch-size", "64",
    ],
    "readable, dropout": [
        "shakespeare-cpu", "--model.architecture", "readable", "--model.dropout", "0.1", *FLOAT32,
    ],
    "modern 6 x 6 x 384, batch 8": ["shakespeare-cpu", *MODERN, *LARGE, "--train.batch-size", "8"],
    "gpt2 6 x 6 x 384, batch 16 by 4, float32": [
        "shakespeare", "--train.batch-size", "16", "--train.micro-batch-size", "4", *FLOAT32,
    ],
    "modern 4 x 4 x 192": ["shakespeare-cpu", *MODERN, "--model.n-embd", "192"],
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Bytes at the peak and the median seconds of a step."""

    memory: float
    step: float
    compiled: bool


def planned(words: list[str], folder: str) -> Run:
    """What `groundup plan` says."""
    command = [sys.executable, "-m", "groundup", "plan", *words, "--json"]
    finished = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    found = json.loads(finished.stdout.splitlines()[-1])
    return Run(
        found["memory"]["peak"], found["time"]["step"], found["machine"].endswith("compiled")
    )


def trained(words: list[str], plan: Run, about: float, folder: str) -> Run:
    """What `groundup train` takes, for about so many seconds, compiled if the whole training would
    be.
    """
    steps = max(20, int(about / plan.step))
    shorter = ["--steps", str(steps), "--name", "measured", "--eval.every", "0"]
    shorter += ["--train.compile", "on" if plan.compiled else "off"]
    command = [sys.executable, "-m", "groundup", "train", *words, *shorter]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    lines = map(
        json.loads,
        (Path(folder) / "runs" / "measured" / "metrics.jsonl").read_text("utf-8").splitlines(),
    )
    seconds = [line["seconds"] for line in lines if line["kind"] == "step"]
    steps_alone = [after - before for before, after in pairwise(seconds)]
    return Run(usage.ru_maxrss * 1024, statistics.median(steps_alone), plan.compiled)


def main(words: list[str] | None = None) -> None:
    """Plan, train and compare each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0)
    given = parser.parse_args(words)
    print("| recipe | memory planned | measured | off by | step planned | measured | off by |")
    print("|---|---|---|---|---|---|---|")
    worst_memory = worst_time = 0.0
    for name, recipe in GRID.items():
        with tempfile.TemporaryDirectory() as folder:
            plan = planned(recipe, folder)
            run = trained(recipe, plan, given.seconds, folder)
        memory, step = plan.memory / run.memory - 1.0, plan.step / run.step - 1.0
        worst_memory, worst_time = max(worst_memory, abs(memory)), max(worst_time, abs(step))
        print(
            f"| {name} | {plan.memory / 2**20:,.0f} MiB | {run.memory / 2**20:,.0f} MiB | "
            f"{memory:+.1%} | {1e3 * plan.step:,.1f} ms | {1e3 * run.step:,.1f} ms | {step:+.1%} |",
            flush=True,
        )
    print(f"at worst: memory off by {worst_memory:.1%}, time by {worst_time:.1%}")
    claim = (
        "plan is off by at most 10% in memory and 15% in time (the worse of both, as a share of "
        "what is allowed)"
    )
    worst = max(worst_memory / 0.10, worst_time / 0.15)
    conclude(claim, ours=worst, peer=1.0, ratio=1.0 / worst, unit="of the allowed error")


if __name__ == "__main__":
    main()
