"""Claim: a recipe's settings are no worse than their neighbours (medians over seeds).

    python benchmarks/sweep.py RECIPE [flags over RECIPE, for all] \\
        --vary "momentum 0.95: --optim.muon-momentum 0.95" --vary ... [--seeds 1 2 3]

The first row of the table is the recipe itself. Flags are those of `groundup train`; with
--train.minutes all get equal training time, else equal steps.
"""

import argparse
import shlex
import statistics

from common import conclude, recipe_with
from trained import Variant, compare, markdown, text_of


def main(words: list[str] | None = None) -> None:
    """Train the recipe and its variants, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--vary", action="append", default=[], help="NAME: FLAGS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given, flags = parser.parse_known_args(words)
    variants = [Variant("the recipe", recipe_with(given.recipe, flags))]
    for line in given.vary:
        name, _, changes = line.partition(":")
        variants.append(Variant(name, recipe_with(given.recipe, [*flags, *shlex.split(changes)])))
    found = compare(variants, given.seeds, text_of(variants[0].recipe))
    print(markdown(found))
    medians = {
        name: statistics.median(outcome.loss for outcome in outcomes)
        for name, outcomes in found.items()
    }
    ours = medians.pop("the recipe")
    best = min(medians.values(), default=ours)
    claim = f"the settings of {given.recipe} are no worse than their neighbours"
    conclude(claim, ours=ours, peer=best, ratio=best / ours, unit="nats a token")


if __name__ == "__main__":
    main()
