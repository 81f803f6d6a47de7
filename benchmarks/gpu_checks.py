"""The stages of gpu.py that check what a GPU computes, and when the processor waits for it."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_place import TESTS_DEVICE, Place, tests_device
from groundup.checkpoints.model_folder import LoadedModel
from groundup.data.dataset import Dataset
from groundup.models.registry import Model, build
from groundup.recipes.schema import Recipe
from groundup.training.session import Session
from groundup.training.setup import build_trainer
from groundup.training.trainer import Trainer
from groundup.verification.differences import Tensors, relative_of_norms
from groundup.verification.model_under_test import gradients_of, logits_of
from groundup.verification.random_models import perturb

# How far a step may be from the CPU's in float64: norms of differences against norms. AdamW's first
# step is the sign of a gradient, which rounding turns where the gradient is about 0, and Muon makes
# small directions of a gradient as long as large ones. At this size a CPU's float32 is up to 1.2e-6
# off in logits, 1.6e-6 in gradients and 1.8e-4 in the step, its bfloat16 0.017, 0.023 and 0.17.
# TF32 has ten bits: it would be some 1e-3 off.
BOUNDS = {
    "float32": {"loss": 1e-6, "logits": 2e-5, "gradients": 2e-5, "step": 2e-3},
    "bfloat16": {"loss": 3e-3, "logits": 0.05, "gradients": 0.1, "step": 0.5},
}
WARMUP_STEPS = 3
READ = "called a synchronizing CUDA operation"


class Failed(Exception):  # noqa: N818
    """What a stage measured isn't what it has to be; the message says what."""


@dataclass(frozen=True)
class Step:
    """A step of training: loss and logits before it, gradients, and how it changed the weights."""

    loss: float
    logits: Tensor
    gradients: Tensors
    change: Tensors


def equality(place: Place) -> Iterator[dict[str, Any]]:
    """Compare a step on the device with the CPU's in float64, for both models and optimizers.

    Raises:
        Failed: A difference is above its bound.
    """
    yield {"bounds": BOUNDS, "float32_products": torch.get_float32_matmul_precision()}
    above = []
    for architecture, optimizer in product(("gpt2", "modern"), ("adamw", "muon")):
        recipe, dataset = place.small(architecture, optimizer, compile="off")
        torch.manual_seed(0)
        model = build(architecture, recipe.model_config(dataset.tokenizer.vocab_size))
        perturb(model, scale=0.05)
        expected = one_step(recipe, dataset, model, "cpu", "float64")
        torch.use_deterministic_algorithms(False)  # which the CPU's trainer demands, and no GPU
        for precision, bounds in BOUNDS.items():
            found = one_step(recipe, dataset, model, recipe.train.device, precision)
            name, differences = f"{architecture} {optimizer} {precision}", compare(found, expected)
            numbers = differences.items()
            yield {name: {key: one if math.isfinite(one) else str(one) for key, one in numbers}}
            above += [f"{name}: {key} {one:.2g}" for key, one in numbers if not one <= bounds[key]]
    if above:
        raise Failed(f"above the bounds: {', '.join(above)}")


def one_step(recipe: Recipe, dataset: Dataset, model: Model, device: str, precision: str) -> Step:
    """Train a copy of a model for one step, and return what came of it, on the CPU."""
    train = replace(recipe.train, device=device, precision=precision)
    initial = LoadedModel(copy.deepcopy(model), dataset.tokenizer, Path())
    trainer = build_trainer(replace(recipe, train=train), dataset, Session(), initial)
    tokens, _ = trainer.loader.take(0, 0)
    logits = logits_of(trainer.model, tokens[:, :-1], in_bfloat16=precision == "bfloat16").cpu()
    trainer.accumulate_gradients(0)
    gradients = {name: each.cpu() for name, each in gradients_of(trainer.model).items()}
    trainer.model.zero_grad(set_to_none=True)
    before = weights_of(trainer.model)
    loss = trainer.train_step(0).loss
    after = weights_of(trainer.model)
    return Step(loss, logits, gradients, {name: after[name] - before[name] for name in after})


def weights_of(model: Model) -> Tensors:
    """Return a copy of the weights in float64, on the CPU."""
    there = model.state_dict().items()
    return {name: each.to("cpu", torch.float64, copy=True) for name, each in there}


def compare(found: Step, expected: Step) -> dict[str, float]:
    """Return how far each part of a step is from what is expected, as a share of its size."""
    return {
        "loss": abs(found.loss - expected.loss) / expected.loss,
        "logits": relative_of_norms(found.logits, expected.logits),
        "gradients": relative_of_norms(found.gradients, expected.gradients),
        "step": relative_of_norms(found.change, expected.change),
    }


class Watch:
    """Sees the processor wait for a GPU of CUDA, by torch's debug mode for that."""

    readers: type[Tensor] = Tensor  # the tensors of the device

    def forbid(self) -> None:
        """Raise an error at each wait from now on."""
        torch.cuda.set_sync_debug_mode("error")

    def allow(self) -> None:
        """Let the processor wait from now on."""
        torch.cuda.set_sync_debug_mode("default")

    def count(self, work: Callable[[], object]) -> int:
        """Do some work, and count the waits in it."""
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            work()
        torch.cuda.set_sync_debug_mode("default")
        return sum(READ in str(each.message) for each in found)


class WatchOfTests(Watch):
    """Sees the processor wait for the device for tests, which counts."""

    def __init__(self) -> None:
        self.module = tests_device()
        self.readers, self.known = self.module.Held, 0

    def forbid(self) -> None:
        self.known = self.module.waits.total()

    def allow(self) -> None:
        if (waits := self.module.waits.total() - self.known) > 0:
            raise RuntimeError(f"the processor waited {waits} times")

    def count(self, work: Callable[[], object]) -> int:
        with self.module.counted() as found:
            work()
        return found.total()


def watch_of(device: torch.device) -> Watch:
    """Return what sees the processor wait for a device.

    Raises:
        Failed: torch doesn't tell of the device's waits.
    """
    if device.type not in ("cuda", TESTS_DEVICE):
        raise Failed(f"torch can't tell when the processor waits for {device.type}")
    return Watch() if device.type == "cuda" else WatchOfTests()


@contextmanager
def one_read(watch: Watch) -> Iterator[list[int]]:
    """Forbid all waits while the body runs but those of `tolist`, whose calls are noted."""
    plain, reads = watch.readers.tolist, list[int]()

    def tolist(self: Tensor) -> Any:
        if self.device.type == "cpu":
            return plain(self)
        watch.allow()
        reads.append(self.numel())
        found = plain(self)
        watch.forbid()
        return found

    watch.readers.tolist = tolist
    watch.forbid()
    try:
        yield reads
        watch.allow()
    finally:
        watch.readers.tolist = plain


def waits(place: Place) -> Iterator[dict[str, Any]]:
    """Forbid a training step to wait for the device but once, and count its waits.

    Raises:
        Failed: A step read the device twice, or not at all.
    """
    watch, rows = watch_of(place.device), place.sizes.small_batch // 2
    for architecture, optimizer in (("gpt2", "adamw"), ("modern", "muon")):
        settings = {"micro_batch_size": rows, "compile": place.sizes.compile}
        recipe, dataset = place.small(architecture, optimizer, **settings)
        recipe = replace(recipe, model=replace(recipe.model, dropout=0.1))
        trainer = build_trainer(recipe, dataset, Session())
        for step in range(WARMUP_STEPS):
            trainer.train_step(step)
        yield {f"{architecture} {optimizer}": waits_of(trainer, watch)}


def waits_of(trainer: Trainer, watch: Watch) -> dict[str, Any]:
    """Train two steps: one that may read the device once, and one whose waits are counted.

    Raises:
        Failed: The first step read the device twice, or not at all.
    """
    with one_read(watch) as reads:
        trainer.train_step(WARMUP_STEPS)
    if len(reads) != 1:
        raise Failed(f"a step read the device {len(reads)} times instead of once")
    counted = watch.count(lambda: trainer.train_step(WARMUP_STEPS + 1))
    compiled = trainer.recipe.train.compile == "on"
    return {"waits_elsewhere": 0, "waits_a_step": counted, "compiled": compiled}
