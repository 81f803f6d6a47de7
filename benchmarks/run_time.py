"""Claim: a run that has minutes to keep to ends within 5% of them, and `groundup plan` predicts the
time of a whole run within 15%.

    python benchmarks/run_time.py [CASE ...] [--seconds 60] [--rounds 3] [--file ITEMS.jsonl]

Three runs: the quickstart's model, one that is scored on HellaSwag on the way, and adapters on a
small GPT-2. Each is planned with a length in minutes, trained for these minutes, and trained for
the steps that were planned; each of the three `--rounds` times, and the medians count. What a run
took is what it recorded, from its first step to the end of its last checkpoint. Without --file,
the items are those of the official file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common import conclude

QUICKSTART = ["quickstart", "--eval.every", "100"]
SCORED = [
    "shakespeare-bpe", "--data.corpus", "python-docs", "--eval.every", "100",
    "--eval.tokens", "32768", "--eval.train-tokens", "8192",
    "--eval.task-every", "100", "--eval.task-items", "40",
]  # fmt: skip
ADAPTERS = [
    "finetune", "--init", "base", "--corpus", "python-docs", "--lora.rank", "8",
    "--optim.learning-rate", "3e-4",
]  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Seconds: what was asked for, what a run in minutes took, what was planned for some steps, and
    what these steps took.
    """

    asked: float
    kept: float
    planned: float
    took: float


def groundup(words: list[str], folder: str) -> str:
    """What a command prints, which must succeed."""
    command = [sys.executable, "-m", "groundup", *words]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def seconds_of(name: str, folder: str) -> float:
    """What a finished run took, by its last checkpoint: until its state was written, and then until
    the checkpoint had its name.
    """
    checkpoints = Path(folder) / "runs" / name / "checkpoints"
    state = checkpoints / "latest" / "training" / "state.json"
    named = (checkpoints / "steps.json").stat().st_mtime
    return json.loads(state.read_text("utf-8"))["spent"] + named - state.stat().st_mtime


def measure(words: list[str], seconds: float, number: int, folder: str) -> Found:
    """Plan and train once."""
    minutes = ["--train.minutes", f"{seconds / 60:g}"]
    plan = json.loads(groundup(["plan", *words, *minutes, "--json"], folder).splitlines()[-1])
    groundup(["train", *words, *minutes, "--name", f"minutes-{number}"], folder)
    steps = ["--steps", str(plan["steps"])]
    groundup(["train", *words, *steps, "--name", f"steps-{number}"], folder)
    return Found(
        seconds,
        seconds_of(f"minutes-{number}", folder),
        plan["time"]["total"],
        seconds_of(f"steps-{number}", folder),
    )


def main(words: list[str] | None = None) -> None:
    """Plan, train and compare each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "case", nargs="*", help="quickstart, HellaSwag or adapters; all unless given"
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file", type=Path)
    given = parser.parse_args(words)
    items = ["--eval.task-file", str(given.file.resolve())] if given.file else []
    cases = {"quickstart": QUICKSTART, "HellaSwag": [*SCORED, *items], "adapters": ADAPTERS}
    print("| run | asked | took | off by | planned | took | off by |")
    print("|---|---|---|---|---|---|---|")
    worst = 0.0
    for name in given.case or cases:
        recipe = cases[name]
        with tempfile.TemporaryDirectory() as folder:
            if recipe is ADAPTERS:
                base = ["--data.corpus", "python-docs", "--steps", "2", "--name", "base"]
                groundup(["train", "shakespeare-bpe", *base], folder)
            rounds = [
                measure(recipe, given.seconds, number, folder) for number in range(given.rounds)
            ]
        kept = statistics.median(each.kept / each.asked - 1.0 for each in rounds)
        plan = statistics.median(each.planned / each.took - 1.0 for each in rounds)
        worst = max(worst, abs(kept) / 0.05, abs(plan) / 0.15)
        print(
            f"| {name} | {rounds[0].asked:.0f} s | "
            f"{', '.join(f'{each.kept:.1f}' for each in rounds)} | {kept:+.1%} | "
            f"{', '.join(f'{each.planned:.1f}' for each in rounds)} | "
            f"{', '.join(f'{each.took:.1f}' for each in rounds)} | {plan:+.1%} |",
            flush=True,
        )
    claim = (
        "a run in minutes is off by at most 5%, and a plan of the time of a whole run by 15% (the "
        "worse of both, as a share of what is allowed)"
    )
    conclude(claim, ours=worst, peer=1.0, ratio=1.0 / worst, unit="of the allowed error")


if __name__ == "__main__":
    main()
