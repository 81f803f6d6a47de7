"""A cell of the ladder's tables: one rung trained from one seed, for a time or for some tokens."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch

from groundup.checkpoints.conventions import Conventions
from groundup.data.dataset import Dataset
from groundup.data.loader import Loader
from groundup.errors import TrainingError
from groundup.generation.stream import encode_prompt
from groundup.generation.writer import evaluating
from groundup.ladder.rungs import Rung, build_rung, changes_of
from groundup.machine.device import Machine
from groundup.models.config import ModernConfig
from groundup.models.ladder import LadderGPT
from groundup.models.registry import Model, count_parameters
from groundup.optim.groups import Rule, build_optimizers
from groundup.recipes.schema import (
    DataSection,
    EvalSection,
    ModelSection,
    OptimSection,
    Recipe,
    TrainSection,
)
from groundup.runs.records import tokens_per_second
from groundup.training.objective import NextTokenLoss, compile_in_place
from groundup.training.session import Session
from groundup.training.state import Progress, StateWriter
from groundup.training.trainer import Trainer

BLOCKS = Rule(r"blocks\..*_proj\.weight", decays=True, matrices=1)
ALL = Rule(r".*", decays=True)
CALIBRATED_EVERY = 1.0  # seconds of training
ENOUGH = 9  # measurements whose median is the machine's speed

Rates = dict[str, dict[str, float]]  # of each rung's name: fields of the recipe's section optim


@dataclass(frozen=True)
class Cell:
    """What became of one rung, trained from one seed.

    Args:
        table: `time` for a run of a budget in seconds, `tokens` for one of some tokens.
        rung: The name of the rung.
        seed: The seed of weights and of the order of the data.
        loss: The validation loss at the end, in nats a token; infinite where training diverged.
        tokens: The tokens that were learned from.
        seconds: The seconds of all steps.
        compile_seconds: The seconds that compiling took before the first step.
        parameters: The number of parameters.
        slowdown: How many times longer the calibration took than it usually does; 1 where the time
            didn't matter.
        sample: A text that the model wrote; empty where none was wanted.
    """

    table: str
    rung: str
    seed: int
    loss: float
    tokens: int
    seconds: float
    compile_seconds: float
    parameters: int
    slowdown: float
    sample: str

    @property
    def tokens_per_second(self) -> float:
        """The speed of training; 0 where it diverged in its first step."""
        return tokens_per_second(self.tokens, 0.0, self.seconds)


def base_recipe(corpus: str) -> Recipe:
    """Return what all rungs have in common; each changes the optimizer and the training."""
    return Recipe(
        model=ModelSection(
            architecture="modern",
            block_size=64,
            n_layer=4,
            n_head=4,
            n_kv_head=2,
            n_embd=96,
            rope_theta=1000.0,
        ),
        data=DataSection(corpus=corpus),
        optim=OptimSection(
            min_learning_rate=0.0,
            muon_momentum=0.9,
            decay_share=0.6,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            clip_norm=1.0,
        ),
        train=TrainSection(batch_size=16, steps=1),
        eval=EvalSection(every=0, tokens=65536, train_tokens=0, sample_length=0),
    )


def recipe_of(rung: Rung, base: Recipe, rates: Rates, seed: int) -> Recipe:
    """Return the recipe that a rung is trained by.

    Args:
        rung: The rung.
        base: What all rungs have in common.
        rates: The learning rates of the rungs.
        seed: The seed of the run.
    """
    optim = replace(base.optim, **changes_of(rung, "optim"), **rates[rung.name])
    train = replace(base.train, **changes_of(rung, "train"), seed=seed)
    return replace(base, optim=optim, train=train)


class Calibration:
    """A short loop of fixed work, whose time tells how fast the machine is at the moment.

    One loop says little: on a machine that others use, too, its time differs by a third from one
    to the next. The median of many says it to a few percent. Such a machine has fast and slow
    minutes besides, so that a cell is compared with what was usual until then.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(320, 320, generator=generator) / 18
        self.taken = list[float]()
        for _ in range(2 * ENOUGH):  # in the first half the processor warms up
            self.take()
        self.usual = [statistics.median(self.taken[ENOUGH:])]
        self.taken.clear()

    def _seconds(self) -> float:
        started, product = time.perf_counter(), self.matrix
        for _ in range(24):
            product = torch.tanh(product @ self.matrix)
        return time.perf_counter() - started

    def take(self) -> None:
        """Run the loop five times, and keep the shortest time."""
        self.taken.append(min(self._seconds() for _ in range(5)))

    def slowdown(self) -> float:
        """Return how many times longer the loop took, since the last call, than usual."""
        middle = statistics.median(self.taken)
        if len(self.taken) >= ENOUGH:
            self.usual.append(middle)
        self.taken.clear()
        return middle / statistics.median(self.usual)


class Trained:
    """One rung while it is trained, by the package's own trainer.

    Args:
        rung: The rung.
        recipe: The rung's recipe.
        dataset: What it learns from.
        device: Where it computes.
    """

    def __init__(self, rung: Rung, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        config = recipe.model_config(dataset.tokenizer.vocab_size)
        assert isinstance(config, ModernConfig)
        torch.manual_seed(recipe.train.seed)
        self.dataset, self.model = dataset, build_rung(rung, config).to(device).train()
        machine = Machine(device, recipe.train.precision)
        objective = NextTokenLoss(cast(Model, self.model), machine.precision)
        loader = Loader(dataset.sampler(recipe), recipe.train.batch_size, 0, 1, device)
        started, self.compile_seconds = time.perf_counter(), 0.0
        if recipe.train.compile == "on":
            torch._dynamo.reset()  # each compiles for itself, as in a process of its own
            if not compile_in_place(objective, loader.take(0, 0)[0]):
                recipe = replace(recipe, train=replace(recipe.train, compile="off"))
            self.compile_seconds = time.perf_counter() - started
        rules = (BLOCKS, ALL) if recipe.optim.optimizer == "muon" else (ALL,)
        optimizers = build_optimizers(self.model, rules, recipe.optim, machine.product_dtype)
        self.trainer = Trainer(
            recipe,
            Session(),
            machine,
            dataset,
            loader,
            cast(Model, self.model),
            objective,
            optimizers,
            (),
            StateWriter(dataset, None, Conventions()),
            Progress(),
        )

    def train_steps(self, steps: int, meanwhile: Callable[[], None]) -> None:
        """Train for some steps; `meanwhile` is called now and then, outside of the clock."""
        self._set_length(steps)
        self._train(lambda: self.trainer.recipe.train.steps, meanwhile)

    def train_seconds(self, seconds: float, meanwhile: Callable[[], None]) -> None:
        """Train for a time.

        How many steps that is, is estimated again after each step, until the learning rate begins
        to fall; then the length stays.
        """

        def planned() -> int:
            trainer, progress = self.trainer, self.trainer.progress
            schedule = trainer.schedule
            is_open = schedule.shape == "constant" or progress.step < schedule.decay_begins
            if progress.step and is_open:
                self._set_length(max(1, round(seconds * progress.step / progress.seconds)))
            return trainer.recipe.train.steps

        self._set_length(2**20)
        self._train(planned, meanwhile)

    def _set_length(self, steps: int) -> None:
        self.trainer.set_length(self.trainer.recipe.with_steps(steps))

    def _train(self, planned: Callable[[], int], meanwhile: Callable[[], None]) -> None:
        progress, noted = self.trainer.progress, 0.0
        meanwhile()
        try:
            while progress.step < planned():
                record = self.trainer.train_step(progress.step)
                progress.step, progress.seconds = record.step, record.seconds
                if progress.seconds - noted > CALIBRATED_EVERY:
                    noted = progress.seconds
                    meanwhile()
        finally:  # also where training diverges
            self.trainer.loader.thread.shutdown()
        meanwhile()

    def loss(self) -> float:
        """Return the validation loss, in nats a token."""
        with self.trainer.uncompiled():
            return self.trainer.measure_losses()[1]

    def sample(self, length: int) -> str:
        """Return a text that the model writes, of some tokens."""
        tokenizer = self.dataset.tokenizer
        start = encode_prompt("", tokenizer, self.dataset.document_start)
        generator = torch.Generator().manual_seed(1)
        with torch.inference_mode(), evaluating(cast(Model, self.model)), self.trainer.uncompiled():
            device = self.trainer.machine.device
            written = LadderGPT.generate(self.model, start.to(device), length, generator=generator)
        return tokenizer.decode(written[0, start.size(1) :].tolist())


def _nothing() -> None:
    """Is called where the machine's speed doesn't matter."""


def train_cell(
    rung: Rung,
    recipe: Recipe,
    dataset: Dataset,
    device: torch.device,
    calibration: Calibration | None,
    *,
    seconds: float = 0.0,
    tokens: int = 0,
    sample: int = 0,
) -> Cell:
    """Train one rung from one seed, and return what became of it.

    Args:
        rung: The rung.
        recipe: Its recipe, with the seed.
        dataset: What it learns from.
        device: Where it computes.
        calibration: Tells how fast the machine is meanwhile; None where the time doesn't matter.
        seconds: The time that all steps may take together; 0 takes `tokens`.
        tokens: The number of tokens to learn from, where no time is given.
        sample: The number of tokens of the text that the model writes at the end.
    """
    trained = Trained(rung, recipe, dataset, device)
    diverged, meanwhile = False, calibration.take if calibration else _nothing
    try:
        if seconds:
            trained.train_seconds(seconds, meanwhile)
        else:
            trained.train_steps(max(1, tokens // recipe.tokens_per_step), meanwhile)
    except TrainingError:  # a loss or a gradient that is no number: this is a result, too
        diverged = True
    progress = trained.trainer.progress
    return Cell(
        "time" if seconds else "tokens",
        rung.name,
        recipe.train.seed,
        math.inf if diverged else trained.loss(),
        progress.step * recipe.tokens_per_step,
        progress.seconds,
        trained.compile_seconds,
        count_parameters(trained.model),
        calibration.slowdown() if calibration else 1.0,
        trained.sample(sample) if sample else "",
    )
