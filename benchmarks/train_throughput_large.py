"""Claim: at the size of nanoGPT's baby GPT we train at least 1.7 times as fast as the peer, at half
the peak or more.

    python benchmarks/train_throughput_large.py [--steps 3] [--rounds 5]

The modern model with Muon at 6 x 6 x 384, context 256, batch 16, as `auto` trains it (compiled;
bfloat16 where the machine multiplies it faster), optimizer and logging included, against Hugging
Face's GPT2LMHeadModel of that size in eager float32. The share of the measured matmul peak counts
the formula's operations over the whole step.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from common import conclude, quoted, recipe_with
from groundup.profiling.operations import matmul_peak, operations_per_token
from train_throughput import WARMUP_STEPS, assemble, ours, paired_ratio, peer, take_turns
from trained import text_of

RECIPE = [
    *("--model.architecture", "modern", "--model.dropout", "0.0", "--optim.optimizer", "muon"),
    *("--train.batch-size", "16", "--train.compile", "on"),
]


def main(words: list[str] | None = None) -> None:
    """Take turns, and print both speeds and our share of the peak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3, help="steps of a block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contender")
    given, flags = parser.parse_known_args(words)
    recipe = recipe_with("shakespeare", [*RECIPE, *flags])
    trainer = assemble(recipe, text_of(recipe))
    with tempfile.TemporaryDirectory() as folder:
        contenders = [
            ours("modern", trainer, Path(folder)),
            peer(trainer, WARMUP_STEPS + given.steps * given.rounds),
        ]
        take_turns(contenders, given.steps, given.rounds, recipe.tokens_per_step)
    mine, theirs = (statistics.median(contender.blocks) for contender in contenders)
    precision = trainer.machine.product_dtype
    dtypes = (torch.float32, torch.bfloat16, precision)
    peaks = {dtype: matmul_peak(dtype, trainer.machine.device) for dtype in dict.fromkeys(dtypes)}
    operations = operations_per_token("modern", trainer.model.config)
    share = mine * operations / peaks[precision]
    for contender in contenders:
        print(f"{contender.name}: {statistics.median(contender.blocks):,.0f} tokens/s")
    measured = ", ".join(f"{dtype} {peak / 1e9:,.0f}" for dtype, peak in peaks.items())
    print(f"peaks, in billions of operations a second: {measured}")
    print(
        f"ours reaches {share:.1%} of the {precision} peak, with {operations:,.0f} operations a "
        "token"
    )
    claim = (
        "training 6 x 6 x 384 on a CPU is at least 1.7 times as fast as a GPT2LMHeadModel in "
        "eager float32"
    )
    ratio = paired_ratio(*contenders)
    script = "" if flags else quoted("train_throughput_large", parser, given)
    conclude(claim, ours=mine, peer=theirs, ratio=ratio, unit="tokens/s", script=script)


if __name__ == "__main__":
    main()
