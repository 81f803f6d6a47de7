"""Claim: a step costs what the formula says, from 1 to 100 times the work (fitted exponents beside
the theory's).

    python benchmarks/scaling.py [--repeat 5] [flags of groundup train]

One thing at a time is made larger, up to 100 times: layers, width, context, vocabulary, batch. The
measured exponent is the slope of log(seconds of a step) over log(size), the theory's that of the
formula's operations, both by least squares through the same points. Not compiled, in float32, with
AdamW: the plainest training there is.
"""

import argparse
import math

from common import conclude, recipe_with
from groundup.profiling.bench import bench
from groundup.profiling.synthetic import synthetic_dataset
from groundup.training.session import Session
from groundup.training.setup import build_trainer

PLAIN = ["--train.compile", "off", "--train.precision", "float32", "--optim.optimizer", "adamw"]
SHAPE = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 64,
    "block_size": 32,
    "batch_size": 4,
    "vocab_size": 256,
}
GROWING = {
    "n_layer": (1, 10, 100),
    "n_embd": (16, 160, 1600),
    "block_size": (16, 160, 1600),
    "vocab_size": (500, 5_000, 50_000),
    "batch_size": (2, 20, 200),
}


def measure(shape: dict[str, int], flags: list[str], repeat: int) -> tuple[float, float]:
    """(seconds of a step, operations of a step) of a model of that shape."""
    model = {f"--model.{name.replace('_', '-')}": value for name, value in shape.items()}
    batch_size, vocab_size = model.pop("--model.batch-size"), model.pop("--model.vocab-size")
    words = [word for flag, value in model.items() for word in (flag, str(value))]
    recipe = recipe_with(
        "shakespeare-cpu", [*PLAIN, *words, "--train.batch-size", str(batch_size), *flags]
    )
    dataset = synthetic_dataset(recipe, vocab_size)
    found = bench(build_trainer(recipe, dataset, Session(), measures_minutes=False), repeat)
    return found.step_seconds, found.operations_per_token * found.tokens_per_step


def slope(sizes: tuple[int, ...], values: list[float]) -> float:
    """The exponent: the least-squares slope of log(value) over log(size)."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True))
    return above / sum((one - mean_x) ** 2 for one in x)


def main(words: list[str] | None = None) -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5)
    given, flags = parser.parse_known_args(words)
    print("| growing | sizes | milliseconds a step | exponent | of the operations |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for name, sizes in GROWING.items():
        measured = [measure(SHAPE | {name: size}, flags, given.repeat) for size in sizes]
        seconds, operations = map(list, zip(*measured, strict=True))
        exponent, theory = slope(sizes, seconds), slope(sizes, operations)
        worst = max(worst, exponent / theory)
        times = ", ".join(f"{1e3 * value:,.1f}" for value in seconds)
        print(
            f"| {name} | {', '.join(map(str, sizes))} | {times} | {exponent:.2f} | {theory:.2f} |",
            flush=True,
        )
    claim = (
        "the cost of a step grows no faster than its operations (largest exponent over the "
        "theory's)"
    )
    conclude(claim, ours=worst, peer=1.0, ratio=1.0 / worst, unit="exponent over exponent")


if __name__ == "__main__":
    main()
