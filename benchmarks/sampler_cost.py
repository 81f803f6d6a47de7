"""Claim: a sampler batch costs under 2% of a step of the smallest recipe; ten billion tokens open
in under a second.

python benchmarks/sampler_cost.py [--recipe bigram] [--streams 32] [--steps 200] [--tokens N]
[--shards 300]

The bigram has the shortest step. Its own trainer steps on random tokens, and between two steps the
sampler makes a batch of the same shape from that many shards on the disk: the cost is the ratio of
their medians. The ten billion tokens are shards with headers and nothing behind them (sparse
files); opening them is what a run does before it reads: the index, each header, each map, and the
sampler's first batch.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from common import conclude, recipe_with
from groundup.data.sampler import Sampler
from groundup.data.shard_file import DTYPES, HEADER, MAGIC, open_shard, write_shard_file
from groundup.data.shard_folder import FORMAT, INDEX, VERSION, open_folder
from groundup.data.splits import Tokens
from groundup.profiling.synthetic import synthetic_dataset
from groundup.recipes.schema import Recipe
from groundup.training.session import Session
from groundup.training.setup import build_trainer

MAKER = "00" * 32
VOCAB_SIZE = 65
TOKENS_OF_A_STREAM = 1_000_000


def seconds_of_a_batch(
    recipe: Recipe, streams: int, steps: int, folder: Path
) -> tuple[float, float]:
    """The medians of a step, and of a batch from shards."""
    tokens = Tokens(tuple(random_shards(folder, streams)), tuple(map(str, range(streams))))
    sampler = Sampler(tokens, recipe.model.block_size, recipe.train.batch_size, recipe.train.seed)
    trainer = build_trainer(recipe, synthetic_dataset(recipe, 0), Session(), measures_minutes=False)
    times: list[tuple[float, float]] = []
    for step in range(steps):
        started = time.perf_counter()
        trainer.train_step(step)
        between = time.perf_counter()
        sampler.batch(step)
        times.append((between - started, time.perf_counter() - between))
    of_steps, of_batches = zip(*times, strict=True)
    return statistics.median(of_steps), statistics.median(of_batches)


def random_shards(folder: Path, streams: int) -> list[np.ndarray]:
    """Shards of random tokens, mapped into memory."""
    found = []
    for number in range(streams):
        path = folder / f"{number}.bin"
        draw = np.random.default_rng(number)
        tokens = draw.integers(VOCAB_SIZE, size=TOKENS_OF_A_STREAM).astype("<u2")
        write_shard_file(path, [tokens], DTYPES[2], VOCAB_SIZE, MAKER)
        found.append(open_shard(path).tokens)
    return found


def write_sparse(folder: Path, tokens: int, shards: int) -> None:
    """A corpus of headers and holes, and its index."""
    count = tokens // shards
    entries = [
        {"file": f"{number:05d}.bin", "tokens": count, "documents": 1, "sha256": MAKER}
        for number in range(shards)
    ]
    for entry in entries:
        with (folder / entry["file"]).open("wb") as file:
            file.write(HEADER.pack(MAGIC, 1, 2, count, VOCAB_SIZE, 0, bytes(32), bytes(32)))
            file.truncate(HEADER.size + 2 * count)
    parts = {"train": entries[1:], "validation": entries[:1]}
    splits = {
        name: {
            "tokens": count * len(part),
            "documents": len(part),
            "bytes": 4 * count * len(part),
            "shards": part,
        }
        for name, part in parts.items()
    }
    tokenizer = {"name": "none", "sha256": MAKER, "vocab_size": VOCAB_SIZE}
    index = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": MAKER,
        "tokenizer": tokenizer,
        "splits": splits,
    }
    (folder / INDEX).write_text(json.dumps(index), "utf-8")


def seconds_to_open(folder: Path, recipe: Recipe) -> tuple[float, int]:
    """From a folder to its first batch; the tokens that were opened."""
    started = time.perf_counter()
    shards = open_folder(folder)
    training, validation = (shards.tokens(split, VOCAB_SIZE) for split in ("train", "validation"))
    Sampler(training, recipe.model.block_size, recipe.train.batch_size, recipe.train.seed).batch(0)
    return time.perf_counter() - started, len(training) + len(validation)


def main(words: list[str] | None = None) -> None:
    """Both claims; the line of JSON is of the one that holds by less."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="bigram")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=10_000_000_000)
    parser.add_argument("--shards", type=int, default=300)
    given, flags = parser.parse_known_args(words)
    recipe = recipe_with(given.recipe, flags)
    with tempfile.TemporaryDirectory() as folder:
        step, batch = seconds_of_a_batch(recipe, given.streams, given.steps, Path(folder))
    print(
        f"{given.recipe}: a step {1e3 * step:.2f} ms, a batch from {given.streams} shards "
        f"{1e6 * batch:.0f} us"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_sparse(Path(folder), given.tokens, given.shards)
        seconds, tokens = seconds_to_open(Path(folder), recipe)
    print(
        f"{tokens:,} tokens in {given.shards} shards open, first batch included, in {seconds:.3f} s"
    )
    if 0.02 / (batch / step) <= 1.0 / seconds:
        claim = f"a sampler batch costs under 2% of a step of {given.recipe}"
        conclude(claim, ours=batch / step, peer=0.02, ratio=0.02 / (batch / step), unit="of a step")
    else:
        claim = f"{given.tokens:,} tokens open in under a second"
        conclude(claim, ours=seconds, peer=1.0, ratio=1.0 / seconds, unit="seconds")


if __name__ == "__main__":
    main()
