"""Claim: groundup reaches nanoGPT's laptop loss on Tiny Shakespeare at least 6 times sooner (4,
start-up included).

    python benchmarks/time_to_loss.py [--seeds 1 2 3] [RECIPE]

The peer is a Hugging Face GPT2LMHeadModel trained as nanoGPT's command for a CPU does: 4 x 4 x 128,
context 64, batch 12, no dropout, 2000 steps of AdamW at 1e-3. L is its final loss over the whole
validation split, the median over the seeds. Ours is `groundup train shakespeare-fast`, a command in
a process of its own; it has reached L at its first evaluation at or below it. Two ratios: of pure
training time, and of whole processes with start-up, compilation, evaluations and, on our side,
checkpoints, samples and pictures.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from common import conclude, quoted

STEPS, WARMUP_STEPS, BATCH, CONTEXT = 2000, 100, 12, 64
PEAK, FLOOR = 1e-3, 1e-4


@dataclass(frozen=True)
class Side:
    """One training: its final loss, seconds of training to the loss, and of the whole process."""

    loss: float
    training: float
    whole: float


def train_peer(seed: int) -> tuple[float, float]:
    """(loss over the validation split, seconds of training), with nothing of groundup but its
    corpus.
    """
    import numpy as np
    import torch
    from torch.nn import functional as F
    from transformers import GPT2Config, GPT2LMHeadModel

    from groundup.data.corpora import load_corpus

    text = load_corpus("shakespeare").text
    ids = {character: number for number, character in enumerate(sorted(set(text)))}
    tokens = np.array([ids[character] for character in text])
    training, validation = tokens[: int(0.9 * len(tokens))], tokens[int(0.9 * len(tokens)) :]
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(ids),
            n_positions=CONTEXT,
            n_embd=128,
            n_layer=4,
            n_head=4,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
            use_cache=False,
        )
    ).train()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99))
    generator = np.random.default_rng(seed)

    def loss_of(windows: np.ndarray, reduction: str = "mean") -> torch.Tensor:
        batch = torch.from_numpy(windows)
        logits = model(input_ids=batch[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction=reduction)

    started = time.perf_counter()
    for step in range(STEPS):
        progress = (step - WARMUP_STEPS) / (STEPS - WARMUP_STEPS)
        decayed = FLOOR + (PEAK - FLOOR) * 0.5 * (1.0 + math.cos(math.pi * progress))
        rate = PEAK * (step + 1) / (WARMUP_STEPS + 1) if step < WARMUP_STEPS else decayed
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = generator.integers(len(training) - CONTEXT, size=BATCH)
        loss_of(training[starts[:, None] + np.arange(CONTEXT + 1)]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        windows = (len(validation) - 1) // CONTEXT  # every token but a rest shorter than a context
        starts = np.arange(windows) * CONTEXT
        batches = [
            validation[part[:, None] + np.arange(CONTEXT + 1)]
            for part in np.array_split(starts, windows // 64)
        ]
        total = sum(float(loss_of(batch, "sum")) for batch in batches)
    return total / (windows * CONTEXT), seconds


def peer(seed: int) -> Side:
    """The peer in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--peer", str(seed)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - started
    loss, training = json.loads(finished.stdout.splitlines()[-1])
    return Side(loss, training, whole)


def ours(recipe: str, seed: int, loss: float, cache: str | None) -> Side:
    """Our command in a process of its own, to its first evaluation at or below `loss`; its whole
    time in all.
    """
    environment = os.environ | ({"TORCHINDUCTOR_CACHE_DIR": cache} if cache else {})
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "groundup",
            "train",
            recipe,
            "--seed",
            str(seed),
            "--name",
            "ours",
        ]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        lines = map(
            json.loads,
            (Path(folder) / "runs" / "ours" / "metrics.jsonl").read_text("utf-8").splitlines(),
        )
        evaluations = [line for line in lines if line["kind"] == "evaluation" and line["step"] > 0]
    reached = next((line for line in evaluations if line["validation_loss"] <= loss), None)
    best = min(line["validation_loss"] for line in evaluations)
    return Side(best, reached["seconds"] if reached else math.inf, whole if reached else math.inf)


def medians(sides: list[Side]) -> Side:
    """Of each measurement by itself."""
    return Side(
        *(
            statistics.median(values)
            for values in zip(*(asdict(side).values() for side in sides), strict=True)
        )
    )


def main(words: list[str] | None = None) -> None:
    """Train both sides by turns and print the two ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="shakespeare-fast")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--peer",
        type=int,
        metavar="SEED",
        help="train the peer here, and print its loss and seconds",
    )
    given = parser.parse_args(words)
    if given.peer is not None:
        print(json.dumps(train_peer(given.peer)))
        return
    theirs = []
    for seed in given.seeds:
        theirs.append(peer(seed))
        print(f"peer, seed {seed}: {theirs[-1]}", flush=True)
    target = statistics.median(side.loss for side in theirs)
    with tempfile.TemporaryDirectory() as cache:  # empty at first: the first seed pays
        mine = []
        for seed in given.seeds:
            mine.append(ours(given.recipe, seed, target, cache))
            print(f"ours, seed {seed}: {mine[-1]}", flush=True)
    one, other = medians(mine), medians(theirs)
    losses = [side.loss for side in mine]
    print(f"L = {target:.4f}; ours ends at {one.loss:.4f} ({min(losses):.4f} to {max(losses):.4f})")
    print(
        f"whole processes: {other.whole:.1f} s against {one.whole:.1f} s, a ratio of "
        f"{other.whole / one.whole:.1f}"
    )
    claim = (
        "training reaches the laptop loss of nanoGPT on Tiny Shakespeare at least 6 times sooner "
        "than the peer"
    )
    ratio = other.training / one.training
    conclude(
        claim,
        ours=one.training,
        peer=other.training,
        ratio=ratio,
        unit="seconds of training",
        script=quoted("time_to_loss", parser, given),
    )


if __name__ == "__main__":
    main()
