"""Claim: the settings of shakespeare-best, found on one text, beat the classic recipe on others
too, at equal time.

    python benchmarks/other_texts.py [--minutes 3] [--seeds 1 2 3]

The others: the documentation that comes with Python, and the source code of Python's standard
library. The classic recipe is shakespeare-cpu: nanoGPT's settings for this machine. Losses are nats
a character, over the whole validation split.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from common import conclude, recipe_with
from trained import Variant, compare, markdown, text_of

SOURCE_CHARACTERS = 2_000_000


def standard_library(folder: Path) -> Path:
    """Modules of Python's standard library as one file, the first of them by name."""
    modules = sorted(Path(os.__file__).parent.glob("*.py"))
    text = "".join(module.read_text("utf-8", errors="replace") for module in modules)
    file = folder / "python-source.txt"
    file.write_text(
        "".join(character for character in text[:SOURCE_CHARACTERS] if character.isascii()), "utf-8"
    )
    return file


def main(words: list[str] | None = None) -> None:
    """Both recipes on both texts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given, flags = parser.parse_known_args(words)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for corpus in ("python-docs", str(standard_library(Path(folder)))):
            more = ["--data.corpus", corpus, "--train.minutes", str(given.minutes), *flags]
            variants = [
                Variant(name, recipe_with(name, more))
                for name in ("shakespeare-best", "shakespeare-cpu")
            ]
            found = compare(variants, given.seeds, text_of(variants[0].recipe))
            print(f"\n{Path(corpus).name}\n{markdown(found)}\n", flush=True)
            best, classic = (
                statistics.median(outcome.loss for outcome in found[variant.name])
                for variant in variants
            )
            ratios.append((classic / best, best, classic))
    ratio, best, classic = min(ratios)
    claim = (
        "the settings of shakespeare-best beat the classic recipe on other texts at equal time "
        "(the closer of both)"
    )
    conclude(claim, ours=best, peer=classic, ratio=ratio, unit="nats a character")


if __name__ == "__main__":
    main()
