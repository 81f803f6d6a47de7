"""Claim: a recipe reaches the validation loss that it states (median over several seeds).

    python benchmarks/recipe_loss.py RECIPE [--seeds 1 2 3] [any flag of groundup train]

Trains the recipe once a seed, through the command line in a temporary folder. Give a corpus of your
own by its whole path.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import conclude
from groundup.recipes.files import load_recipe, packaged


def best_loss(recipe: str, seed: int, flags: list[str], folder: Path) -> float:
    """The best validation loss of one run, in nats a token."""
    name = f"seed-{seed}"
    command = [
        sys.executable,
        "-m",
        "groundup",
        "train",
        recipe,
        "--seed",
        str(seed),
        "--name",
        name,
        *flags,
    ]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    lines = map(
        json.loads, (folder / "runs" / name / "metrics.jsonl").read_text("utf-8").splitlines()
    )
    return min(line["validation_loss"] for line in lines if line["kind"] == "evaluation")


def stated_loss(recipe: str) -> float:
    """The loss that a recipe says to expect; of a range, its upper end."""
    text = load_recipe(packaged(recipe)).about.loss
    return max(float(number) for number in re.findall(r"\d+\.\d+", text))


def main(words: list[str] | None = None) -> None:
    """Train and compare as the words of the command line ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given, flags = parser.parse_known_args(words)
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in given.seeds:
            losses.append(best_loss(given.recipe, seed, flags, Path(folder)))
            print(f"seed {seed}: best validation loss {losses[-1]:.4f}", flush=True)
    median, stated = statistics.median(losses), stated_loss(given.recipe)
    print(
        f"median {median:.4f}, from {min(losses):.4f} to {max(losses):.4f}; the recipe states "
        f"{stated:g}"
    )
    claim = f"the recipe {given.recipe} reaches the validation loss that it states"
    conclude(claim, ours=median, peer=stated, ratio=stated / median, unit="nats a token")


if __name__ == "__main__":
    main()
