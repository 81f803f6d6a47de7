"""Claim: `groundup train` gets no fewer tokens/s from a machine than Hugging Face's GPT-2 of the
same size.

    python benchmarks/train_throughput.py [RECIPE] [--steps 50] [--rounds 9] [--corpus TEXT]

Our training step, as `groundup train` puts it together, runs twice: with whatever precision and
compilation the machine gets by itself, and in float32 uncompiled. The peer is a GPT2LMHeadModel as
its users train it: float32, uncompiled, torch's defaults, AdamW and clipping with the recipe's
settings. It begins with the same weights and is handed the same batches, already made, while ours
are sampled, hashed and logged inside the measured time. All take turns in blocks of `--steps`
steps, so that a machine that slows down slows down all; a ratio compares the two blocks of one
round.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from common import conclude, quoted
from groundup.checkpoints.model_folder import to_hugging_face
from groundup.data.dataset import Dataset
from groundup.machine.device import make_deterministic
from groundup.profiling.operations import matmul_peak, operations_per_token
from groundup.recipes.files import load_recipe, overrides, packaged
from groundup.recipes.schema import OptimSection, Recipe
from groundup.runs.folder import RunFolder
from groundup.training.session import Session
from groundup.training.setup import build_trainer
from groundup.training.trainer import Trainer
from trained import text_of

WARMUP_STEPS = 5


@dataclass
class Contender:
    """Something that trains: `step(k)` makes one update on batch k and returns its loss."""

    name: str
    step: Callable[[int], float]
    precision: str
    deterministic: bool
    done: int = 0
    blocks: list[float] = field(default_factory=list)  # tokens/s of each block
    loss: float = float("nan")  # of the newest step

    def run(self, steps: int) -> float:
        """Seconds for so many steps, under the determinism that this contender trains with."""
        torch.use_deterministic_algorithms(self.deterministic)
        started = time.perf_counter()
        for step in range(self.done, self.done + steps):
            self.loss = self.step(step)
        seconds = time.perf_counter() - started
        self.done += steps
        return seconds


def assemble(recipe: Recipe, text: Dataset) -> Trainer:
    """A trainer as `groundup train` puts it together, in a world of one, telling nobody."""
    return build_trainer(recipe, text, Session(), measures_minutes=False)


def ours(name: str, trainer: Trainer, folder: Path) -> Contender:
    """Our training step and its line of metrics.jsonl, as the trainer writes it after each step."""
    run = RunFolder(folder / name)
    run.path.mkdir()

    def step(number: int) -> float:
        record = trainer.train_step(number)
        run.append_metrics(record.to_json())
        return record.loss

    precision, compiled = trainer.machine.precision, trainer.recipe.train.compile == "on"
    described = f"ours, {name}: {precision}{', compiled' if compiled else ''}"
    return Contender(described, step, precision, torch.are_deterministic_algorithms_enabled())


def peer(trainer: Trainer, steps: int) -> Contender:
    """Hugging Face's GPT-2 with `trainer`'s initial weights, settings and first `steps` batches."""
    model, section = hugging_face_twin(trainer), trainer.recipe.optim
    optimizer = adamw(model, section)
    batches = [
        trainer.loader.sampler.batch(number).to(trainer.machine.device) for number in range(steps)
    ]

    def step(number: int) -> float:
        trainer.schedule.apply([optimizer], number)
        logits = model(input_ids=batches[number][:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batches[number][:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), section.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return Contender("peer, GPT2LMHeadModel: float32", step, "float32", deterministic=False)


def adamw(model: nn.Module, section: OptimSection, **options: Any) -> torch.optim.AdamW:
    """torch's AdamW with a recipe's settings, which lets matrices decay alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": section.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    peak = {"initial_lr": section.learning_rate}
    return torch.optim.AdamW(
        [group | peak for group in groups],
        lr=section.learning_rate,
        betas=section.betas,
        **options,
    )


def hugging_face_twin(trainer: Trainer) -> GPT2LMHeadModel:
    """A GPT2LMHeadModel of the recipe's shape in training mode, with the trainer's weights where it
    is a GPT-2 too.
    """
    shape = trainer.recipe.model
    config = GPT2Config(
        vocab_size=trainer.dataset.tokenizer.vocab_size,
        n_positions=shape.block_size,
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        embd_pdrop=shape.dropout,
        attn_pdrop=shape.dropout,
        resid_pdrop=shape.dropout,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,  # which only costs time in training
    )
    model = GPT2LMHeadModel(config)
    if shape.architecture != "modern":
        weights = to_hugging_face(trainer.model)
        model.load_state_dict(weights | {"lm_head.weight": weights["transformer.wte.weight"]})
    return model.to(trainer.machine.device).train()  # pyright: ignore[reportArgumentType]


def take_turns(contenders: list[Contender], steps: int, rounds: int, tokens_per_step: int) -> None:
    """Fill in each contender's blocks; who begins changes from round to round."""
    for contender in contenders:
        contender.run(WARMUP_STEPS)
    for number in range(rounds):
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            contender.blocks.append(steps * tokens_per_step / contender.run(steps))


def paired_ratio(one: Contender, other: Contender) -> float:
    """The median over the rounds of one's tokens/s through the other's."""
    return statistics.median(
        mine / theirs for mine, theirs in zip(one.blocks, other.blocks, strict=True)
    )


def compare(recipe: Recipe, steps: int, rounds: int) -> tuple[list[Contender], Trainer]:
    """All contenders, after their rounds: ours as it comes, ours in float32 uncompiled, the peer;
    and our trainer.
    """
    plain = replace(recipe, train=replace(recipe.train, precision="float32", compile="off"))
    text = text_of(recipe)
    trainer = assemble(recipe, text)
    with tempfile.TemporaryDirectory() as folder:
        contenders = [
            ours("auto", trainer, Path(folder)),
            ours("plain", assemble(plain, text), Path(folder)),
            peer(trainer, WARMUP_STEPS + steps * rounds),
        ]
        take_turns(contenders, steps, rounds, recipe.tokens_per_step)
    make_deterministic(trainer.machine.device)
    return contenders, trainer


def report(contenders: list[Contender], trainer: Trainer) -> None:
    """The table, and what it means against the machine's matrix products."""
    theirs = contenders[-1]
    operations = operations_per_token(trainer.recipe.model.architecture, trainer.model.config)
    peaks = {
        name: matmul_peak(getattr(torch, name), trainer.machine.device)
        for name in dict.fromkeys(
            ("float32", "bfloat16", *(contender.precision for contender in contenders))
        )
    }
    for contender in contenders:
        speed = statistics.median(contender.blocks)
        share = speed * operations / peaks[contender.precision]
        print(
            f"{contender.name:<36} {speed:>9,.0f} tokens/s ({min(contender.blocks):,.0f} to "
            f"{max(contender.blocks):,.0f})  ratio {paired_ratio(contender, theirs):.2f}  "
            f"{share:6.1%} of the {contender.precision} peak  loss {contender.loss:.4f} at step "
            f"{contender.done}"
        )
    measured = ", ".join(f"{name} {peak / 1e9:,.0f}" for name, peak in peaks.items())
    print(f"operations a token: 6 N + 12 n_layer n_embd block_size = {operations:,.0f}")
    print(f"measured peak of a 2048 x 2048 product, in billions of operations a second: {measured}")


def main(words: list[str] | None = None) -> None:
    """Run the comparison that the words of the command line ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="shakespeare-cpu")
    parser.add_argument("--steps", type=int, default=50, help="steps of a block")
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each contender")
    parser.add_argument("--corpus", help="another text than the recipe's")
    given = parser.parse_args(words)
    corpus = {"data": {"corpus": given.corpus}} if given.corpus else {}
    recipe = load_recipe(packaged(given.recipe), overrides(corpus))
    contenders, trainer = compare(recipe, given.steps, given.rounds)
    report(contenders, trainer)
    mine, theirs = contenders[0], contenders[-1]
    conclude(
        f"training {given.recipe} is at least as fast as a GPT2LMHeadModel of its size",
        ours=statistics.median(mine.blocks),
        peer=statistics.median(theirs.blocks),
        ratio=paired_ratio(mine, theirs),
        unit="tokens/s",
        script=quoted("train_throughput", parser, given, "corpus"),
    )


if __name__ == "__main__":
    main()
