"""The trainer's step by itself: what reaches the optimizers, and what each forward pass draws."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from groundup.data.corpora import Corpus
from groundup.data.dataset import make_dataset
from groundup.recipes.schema import Recipe
from groundup.training.session import Session
from groundup.training.setup import build_trainer
from groundup.training.trainer import Trainer

# Each window of 8 is every other, so that passes differ by their dropout alone.
SAME_WINDOWS = "abcdefgh" * 250


def trainer_of(*, dropout: float = 0.0, clip_norm: float = 0.0, **train: Any) -> Trainer:
    recipe = Recipe().with_steps(3)
    shape = {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 16, "dropout": dropout}
    chosen = {"batch_size": 4, "device": "cpu", "precision": "float32", "threads": 1}
    recipe = replace(
        recipe,
        model=replace(recipe.model, **shape),
        optim=replace(recipe.optim, clip_norm=clip_norm),
        train=replace(recipe.train, **chosen | {"compile": "off"} | train),
    )
    return build_trainer(
        recipe, make_dataset([Corpus("text", SAME_WINDOWS)], recipe, None), Session()
    )


def norm_at_the_update(trainer: Trainer) -> float:
    """The norm of all gradients when the optimizer of a first step takes them."""
    found: list[float] = []

    def read(*_: object) -> None:
        gradients = [
            parameter.grad.flatten()
            for parameter in trainer.model.parameters()
            if parameter.grad is not None
        ]
        found.append(torch.cat(gradients).norm().item())

    trainer.optimizers[0].register_step_pre_hook(read)
    trainer.train_step(0)
    return found[0]


def test_the_gradient_is_scaled_to_the_recipes_norm() -> None:
    """0 doesn't clip; a norm above the gradient's leaves it alone; below, it is scaled to it."""
    whole = norm_at_the_update(trainer_of())
    assert whole > 0.01
    for share in (0.5, 0.01):
        trainer = trainer_of(clip_norm=share * whole)
        assert norm_at_the_update(trainer) == pytest.approx(share * whole, rel=1e-4)
    assert norm_at_the_update(trainer_of(clip_norm=2 * whole)) == whole


def test_the_record_has_the_norm_before_it_is_clipped() -> None:
    free, clipped = trainer_of(), trainer_of(clip_norm=1e-3)
    assert clipped.train_step(0).gradient_norm == free.train_step(0).gradient_norm > 1e-2


def losses_of(trainer: Trainer, step: int) -> list[float]:
    """The loss of each forward pass of a step."""
    found: list[float] = []
    handle = trainer.objective.register_forward_hook(lambda *seen: found.append(seen[2].item()))
    trainer.accumulate_gradients(step)
    handle.remove()
    return found


def test_dropout_differs_between_micro_steps_and_steps_and_not_between_attempts() -> None:
    """Weights and windows are the same in all passes."""
    trainer = trainer_of(dropout=0.5, micro_batch_size=1)
    drawn = [losses_of(trainer, step) for step in (0, 1)]
    assert len({loss for losses in drawn for loss in losses}) == 8
    assert [losses_of(trainer, step) for step in (0, 1)] == drawn
    assert len(set(losses_of(trainer_of(micro_batch_size=1), 0))) == 1


def test_evaluating_and_the_clock_change_no_weight() -> None:
    trainer, undisturbed = trainer_of(dropout=0.5), trainer_of(dropout=0.5)
    for step in range(2):
        trainer.measure_losses()
        assert trainer.train_step(step).loss == undisturbed.train_step(step).loss
    for mine, other in zip(trainer.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(mine, other)
