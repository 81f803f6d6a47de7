"""Claim: loss falls with parameters and with tokens by a law that predicts larger runs.

    python benchmarks/scaling_runs.py [--out notebooks/scaling_runs.json] [--share 1.0]

Trains four sizes of the modern model on the documentation of Python, each on several numbers of
tokens, and writes what came of it into the JSON file that lesson 12 reads. The length of every run
is stated in tokens, so the losses don't depend on how busy the machine is. It takes about five
minutes on two cores. `--share 0.02` shortens every run, to try the script.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from common import processor, recipe_with
from groundup.data.dataset import Dataset
from groundup.training.session import Session
from groundup.training.setup import build_trainer
from trained import text_of

RECIPE = "shakespeare-fast"  # whose flags are those of `groundup train`
COMMON = {
    "data.corpus": "python-docs",
    "train.batch_size": 16,
    "train.device": "cpu",
    "train.precision": "float32",
    "train.compile": "off",
    "optim.schedule": "wsd",
    "optim.decay_share": 0.6,
    "eval.every": 0,
    "eval.tokens": 65_536,
    "eval.train_tokens": 0,
    "eval.sample_length": 0,
}
TOKENS_PER_STEP = 16 * 64
SIZES = {  # layers, heads, width
    "tiny": (1, 1, 32),
    "small": (2, 2, 48),
    "medium": (3, 2, 64),
    "large": (4, 3, 96),
}
EIGHTH, QUARTER, HALF, ONE, TWO = (128 * 2**power for power in range(5))  # steps; ONE: 1M tokens
PARTS = 16  # of the curve of training losses


@dataclass(frozen=True)
class Plan:
    """One run: its size, its steps, how its rates differ from those of the recipe, its seed, and
    what it is for.
    """

    size: str
    steps: int
    rate: float
    seed: int
    role: str  # "rates", "grid", "seeds" or "held out"

    @property
    def flags(self) -> dict[str, Any]:
        """What differs from COMMON, by the names of a recipe's fields."""
        layers, heads, width = SIZES[self.size]
        adamw = 0.01 * self.rate * (96 / width) ** 0.5  # by the width, as `--size` scales it
        return {
            "model.n_layer": layers,
            "model.n_head": heads,
            "model.n_embd": width,
            "optim.learning_rate": float(f"{adamw:.3g}"),
            "optim.muon_learning_rate": 0.02 * self.rate,
            "train.steps": self.steps,
            "train.seed": self.seed,
        }


def flag_words(flags: dict[str, Any]) -> list[str]:
    """The words of a command line."""
    return [
        word
        for name, value in flags.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def train(plan: Plan, text: Dataset) -> dict[str, Any]:
    """Train a run in this process, and describe it."""
    recipe = recipe_with(RECIPE, flag_words(COMMON | plan.flags))
    trainer = build_trainer(recipe, text, Session())
    began, losses = time.perf_counter(), []
    for step in range(plan.steps):
        losses.append(trainer.train_step(step).loss)
    _, loss, _ = trainer.measure_losses()
    seconds = time.perf_counter() - began
    edges = [plan.steps * part // PARTS for part in range(PARTS + 1)]
    curve = [round(statistics.mean(losses[low:high]), 4) for low, high in pairwise(edges)]
    found = {
        "role": plan.role,
        "size": plan.size,
        "parameters": recipe.parameter_count(text.tokenizer.vocab_size),
        "tokens": plan.steps * TOKENS_PER_STEP,
        "rate": plan.rate,
        "loss": round(loss, 5),
        "curve": curve,
        "flags": plan.flags,
    }
    print(
        f"{plan.role}: {plan.size}, {found['tokens']:,} tokens, rates x {plan.rate:g}, seed "
        f"{plan.seed}: {loss:.4f} nats a token, {seconds:.0f} s",
        flush=True,
    )
    return found


def runs(text: Dataset, share: float) -> Iterator[dict[str, Any]]:
    """All runs: short runs of each size choose the rates that its other runs have."""

    def do(size: str, steps: int, rate: float, seed: int, role: str) -> dict[str, Any]:
        return train(Plan(size, max(PARTS, round(steps * share)), rate, seed, role), text)

    best = {}
    for size in ("tiny", "small", "medium"):
        tried = [do(size, QUARTER, rate, 1, "rates") for rate in (1.0, 2.0, 4.0)]
        chosen = min(tried, key=lambda run: run["loss"])
        best[size] = chosen["rate"]
        yield from (run | {"role": "grid"} if run is chosen else run for run in tried)
    for steps in (EIGHTH, HALF, ONE):
        for size, rate in best.items():
            yield do(size, steps, rate, 1, "grid")
    for size in ("tiny", "small"):
        for seed in (2, 3):
            yield do(size, EIGHTH, best[size], seed, "seeds")
    for size in ("tiny", "medium"):
        yield do(size, TWO, best[size], 1, "held out")
    for steps in (HALF, ONE):  # a size whose rates nobody chose: those of the size below
        yield do("large", steps, best["medium"], 1, "held out")


def main(words: list[str] | None = None) -> None:
    """Train all runs, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[1] / "notebooks" / "scaling_runs.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--share", type=float, default=1.0)
    given = parser.parse_args(words)
    text = text_of(recipe_with(RECIPE, flag_words(COMMON)))
    found = {
        "script": "benchmarks/scaling_runs.py",
        "machine": f"{processor()}, torch {torch.__version__}, Python {platform.python_version()}",
        "training_tokens": text.training_tokens,
        "vocab_size": text.tokenizer.vocab_size,
        "recipe": RECIPE,
        "common_flags": COMMON,
        "runs": list(runs(text, given.share)),
    }
    lines = ",\n  ".join(json.dumps(run) for run in found.pop("runs"))
    head = json.dumps(found, indent=1).removesuffix("\n}")
    given.out.write_text(f'{head},\n "runs": [\n  {lines}\n ]\n}}\n', "utf-8")


if __name__ == "__main__":
    main()
