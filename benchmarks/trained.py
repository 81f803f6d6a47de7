"""Training a recipe inside a benchmark: the package's own trainer, without a run folder, and what
came of it.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from groundup.checkpoints.model_folder import LoadedModel
from groundup.data.corpora import load_corpus
from groundup.data.dataset import Dataset, make_dataset
from groundup.models.registry import Model, build
from groundup.recipes.schema import Recipe
from groundup.training.session import Session
from groundup.training.setup import build_trainer

Change = Callable[[Model], None]


@dataclass(frozen=True)
class Outcome:
    """A finished training: loss in nats a token over the whole validation split, seconds without
    evaluations.
    """

    loss: float
    steps: int
    tokens: int
    seconds: float


def text_of(recipe: Recipe) -> Dataset:
    """The recipe's corpus as tokens."""
    return make_dataset([load_corpus(recipe.data.corpus)], recipe, None)


def train(recipe: Recipe, text: Dataset, change: Change | None = None) -> Outcome:
    """Train to the end, from the recipe's own weights or from them changed; a length in minutes is
    training time.
    """
    torch._dynamo.reset()  # every training compiles for itself, as in a process of its own
    recipe = replace(recipe, eval=replace(recipe.eval, every=0, tokens=0, train_tokens=0))
    torch.manual_seed(recipe.train.seed)
    model = build(recipe.model.architecture, recipe.model_config(text.tokenizer.vocab_size))
    if change is not None:
        change(model)
    trainer = build_trainer(recipe, text, Session(), LoadedModel(model, text.tokenizer, Path()))
    recipe = trainer.recipe
    seconds = 0.0
    for step in range(recipe.train.steps):
        seconds += trainer.train_step(step).seconds
    with trainer.uncompiled():
        _, loss, _ = trainer.measure_losses()
    return Outcome(loss, recipe.train.steps, recipe.train.steps * recipe.tokens_per_step, seconds)


@dataclass(frozen=True)
class Variant:
    """A name for a table, the recipe, and what is changed in the model before training."""

    name: str
    recipe: Recipe
    change: Change | None = None


def compare(variants: list[Variant], seeds: list[int], text: Dataset) -> dict[str, list[Outcome]]:
    """Every variant once a seed, seed by seed, so that a machine that slows down slows down all."""
    found: dict[str, list[Outcome]] = {variant.name: [] for variant in variants}
    for seed in seeds:
        for variant in variants:
            seeded = replace(variant.recipe, train=replace(variant.recipe.train, seed=seed))
            outcome = train(seeded, text, variant.change)
            found[variant.name].append(outcome)
            print(
                f"{variant.name}, seed {seed}: loss {outcome.loss:.4f} after {outcome.steps:,} "
                f"steps, {outcome.tokens:,} tokens and {outcome.seconds:.1f} s",
                flush=True,
            )
    return found


def markdown(found: dict[str, list[Outcome]]) -> str:
    """A table in Markdown: medians with the spread over the seeds, and the difference to the first
    row.
    """
    lines = [
        "| variant | loss | from .. to | difference | tokens | seconds |",
        "|---|---|---|---|---|---|",
    ]
    first = statistics.median(outcome.loss for outcome in next(iter(found.values())))
    for name, outcomes in found.items():
        losses = sorted(outcome.loss for outcome in outcomes)
        loss = statistics.median(losses)
        tokens = statistics.median(outcome.tokens for outcome in outcomes)
        seconds = statistics.median(outcome.seconds for outcome in outcomes)
        lines.append(
            f"| {name} | {loss:.4f} | {losses[0]:.4f} .. {losses[-1]:.4f} | {loss - first:+.4f} | "
            f"{tokens:,.0f} | {seconds:.1f} |"
        )
    return "\n".join(lines)
