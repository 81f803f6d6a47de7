"""The trainer: step, measure, evaluate, sample, save, in the order in which things happen."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from groundup.checkpoints import publish as checkpoint
from groundup.checkpoints.adapter_folder import Base
from groundup.data.dataset import Dataset
from groundup.data.loader import Loader
from groundup.errors import TrainingError
from groundup.evaluation.units import bits_per_byte
from groundup.evaluation.validation import mean_loss
from groundup.generation.stream import SamplingSettings, write_text
from groundup.machine.device import Machine
from groundup.models.registry import Model
from groundup.optim.schedules import Schedule
from groundup.parallel.sharding import synchronise_only_if
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RunFolder
from groundup.runs.records import EvaluationRecord, StepRecord, tokens_per_second
from groundup.training.journal import Journal
from groundup.training.objective import NextTokenLoss
from groundup.training.periodic import PeriodicEvaluation
from groundup.training.state import Progress, write_state
from groundup.training.stopping import StopRequest


@dataclass
class Trainer:
    """One run while it trains. `objective` holds the model; `distributed` is the objective spread
    over the world.

    evaluations: the tasks that the model is put to on the way.
    """

    recipe: Recipe
    machine: Machine
    world: World
    text: Dataset
    model: Model
    objective: NextTokenLoss
    distributed: nn.Module
    optimizers: list[torch.optim.Optimizer]
    schedule: Schedule
    batches: Loader
    journal: Journal
    stop: StopRequest
    progress: Progress
    evaluations: Sequence[PeriodicEvaluation] = ()
    base: Base | None = None  # of adapters, where only these train
    asked_to_stop: bool = False  # whether any process was, as of the newest step

    def train(self, run: RunFolder, resumed_from: Path | None = None) -> None:
        """From the progress made so far to the last step, or until it is asked to stop; checkpoints
        go into `run`.
        """
        save = partial(self.save, run.checkpoints, resumed_from)
        if self.progress.step == 0:
            if self.recipe.eval.every:
                with self.uncompiled():
                    self.evaluate()
            self.evaluate_tasks()
        while not (self.is_finished() or self.asked_to_stop):
            record = self.train_step(self.progress.step)
            self.progress.step, self.progress.seconds = record.step, record.seconds
            self.journal.step(record)
            if due := self.is_due():
                with self.uncompiled():
                    self.sample(self.evaluate())
            self.evaluate_tasks()
            if due or self.asked_to_stop:
                save(best=self.progress.best_step == record.step)

    def train_step(self, step: int) -> StepRecord:
        """One optimizer step on batch `step`: accumulate, check, clip, update."""
        started = time.perf_counter()
        learning_rate = self.schedule.apply(self.optimizers, step)
        totals, norm = self.accumulate_gradients(step), self.clip_gradients()
        # here alone a step waits for its device
        loss, batch_hash, stop, gradient_norm = *totals.tolist(), norm.item()
        self.asked_to_stop = stop > 0
        # before the update: weights never see a NaN
        check_finite(step, loss, gradient_norm, learning_rate)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        ended = time.perf_counter()
        return StepRecord(
            step=step + 1,
            tokens=(step + 1) * self.recipe.tokens_per_step,
            loss=loss,
            learning_rate=learning_rate,
            gradient_norm=gradient_norm,
            tokens_per_second=tokens_per_second(self.recipe.tokens_per_step, started, ended),
            seconds=self.progress.seconds + ended - started,
            batch_hash=int(batch_hash),
        )

    def accumulate_gradients(self, step: int) -> Tensor:
        """Forward and backward over this process's slices of batch `step`.

        Gives the sums over all processes of the mean loss, the rows' hashes and the requests to
        stop: [3] float64
        """
        totals = torch.zeros(3, dtype=torch.float64, device=self.machine.reduction_device)
        for micro_step in range(self.batches.micro_steps):
            tokens, batch_hash = self.batches.take(step, micro_step)
            torch.manual_seed(
                dropout_seed(self.recipe.train.seed, step, micro_step, self.world.rank)
            )
            with synchronise_only_if(micro_step == self.batches.micro_steps - 1, self.distributed):
                loss = self.distributed(tokens[:, :-1], tokens[:, 1:]) / self.batches.micro_steps
                loss.backward()
            totals[0] += loss.detach().to(totals.device).double() / self.world.size
            totals[1] += batch_hash
        totals[2] = float(self.stop.signal)
        return self.world.sum(totals)

    def clip_gradients(self) -> Tensor:
        """Scale the gradient down to the recipe's norm; the norm that it had, a scalar."""
        limit = self.recipe.optim.clip_norm or float("inf")
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def evaluate(self) -> EvaluationRecord:
        """Measure the losses and take note of the best validation loss; patience runs out here."""
        progress = self.progress
        training, validation, by_corpus = self.measure_losses()
        # before the save: no checkpoint holds a NaN
        check_losses(progress.step, training, validation)
        tokens = progress.step * self.recipe.tokens_per_step
        evaluation = EvaluationRecord(
            progress.step,
            tokens,
            training,
            validation,
            bits_per_byte(validation, self.text.bytes_per_token),
            progress.seconds,
            by_corpus if len(by_corpus) > 1 else None,
        )
        self.journal.evaluation(evaluation)
        if progress.step == 0:
            return evaluation  # where it starts from: nothing was learned, and nothing is saved
        if progress.best_loss is None or validation < progress.best_loss:
            progress.best_loss, progress.best_step, progress.evaluations_since_best = (
                validation,
                progress.step,
                0,
            )
        else:
            progress.evaluations_since_best += 1
            if 0 < self.recipe.eval.patience <= progress.evaluations_since_best:
                progress.stopped_early, progress.evaluations_since_best = self.recipe.train.steps, 0
        return evaluation

    def measure_losses(self) -> tuple[float | None, float, dict[str, float]]:
        """Training loss (None where none is measured), validation loss, and that of each corpus, in
        nats a token.

        Those of a mixture are means by the shares of its corpora, of which each has its share of a
        sample.
        """
        section = self.recipe.eval
        measure = partial(
            mean_loss,
            self.objective,
            block_size=self.model.block_size,
            batch_size=self.batches.rows,
            device=self.machine.device,
            world=self.world,
        )
        parts, training = self.text.parts, None
        if section.train_tokens:
            shares = [max(1, round(part.weight * section.train_tokens)) for part in parts]
            losses = [
                measure(part.training, most=share)
                for part, share in zip(parts, shares, strict=True)
            ]
            training = self.text.mean(losses)
        shares = [
            max(1, round(part.weight * section.tokens)) if section.tokens else 0 for part in parts
        ]
        losses = [
            measure(part.validation, most=share) for part, share in zip(parts, shares, strict=True)
        ]
        by_corpus = {part.name: loss for part, loss in zip(parts, losses, strict=True)}
        return training, self.text.mean(losses), by_corpus

    def sample(self, evaluation: EvaluationRecord) -> None:
        """A short text from the model as it stands, drawn from a generator of its own."""
        if self.recipe.eval.sample_length and self.world.is_main:
            settings = SamplingSettings(
                length=self.recipe.eval.sample_length, seed=self.recipe.train.seed
            )
            self.journal.sample(
                evaluation,
                write_text(
                    self.model, self.text.tokenizer, settings, start=self.text.document_start
                ),
            )

    def evaluate_tasks(self) -> None:
        """Put the model to the tasks that are due, each of them at both ends too."""
        step = self.progress.step
        for evaluation in self.evaluations:
            if evaluation.is_due(step, self.is_finished()):
                with self.uncompiled():
                    record = evaluation.run(
                        *(self.model, self.world, self.machine.reduction_device),
                        step=step,
                        tokens=step * self.recipe.tokens_per_step,
                        seconds=self.progress.seconds,
                    )
                self.journal.scores(record)

    def save(self, checkpoints: Path, resumed_from: Path | None, best: bool) -> None:
        """Publish a checkpoint; the main process writes, the others wait."""
        if self.world.is_main:
            checkpoint.publish(
                checkpoint.step_folder(checkpoints, self.progress.step),
                lambda folder: write_state(
                    folder, self.model, self.text, self.optimizers, self.progress, base=self.base
                ),
                best=best,
                keep=self.recipe.train.keep_checkpoints,
                protected=resumed_from,
            )
        self.world.barrier()

    def uncompiled(self) -> AbstractContextManager[None]:
        """Around measuring and sampling: other shapes and modes than training's, each too rare to
        be compiled for.
        """
        return (
            torch.compiler.set_stance("force_eager")
            if self.recipe.train.compile == "on"
            else nullcontext()
        )

    def is_due(self) -> bool:
        """Whether this step is one to evaluate after: each `every` steps, and the last."""
        every = self.recipe.eval.every
        return self.progress.step == self.recipe.train.steps or (
            every > 0 and self.progress.step % every == 0
        )

    def is_finished(self) -> bool:
        """Whether the last step is done, or patience has run out."""
        return self.recipe.train.steps in (self.progress.step, self.progress.stopped_early)


def check_finite(step: int, loss: float, gradient_norm: float, learning_rate: float) -> None:
    """Raises TrainingError if the loss or the gradient isn't a number, before it can reach the
    weights.
    """
    for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not np.isfinite(value):
            raise TrainingError(
                f"the {name} became {value} at step {step + 1}, with learning rate "
                f"{learning_rate:g}: most likely the learning rate is too high. The update was "
                "not made; the last checkpoint is intact. Lower optim.learning_rate, lengthen "
                "optim.warmup_steps, or set optim.clip_norm = 1.0"
            )


def check_losses(step: int, training: float | None, validation: float) -> None:
    """Raises TrainingError if a measured loss isn't a number: then the last update made the weights
    useless.
    """
    for name, value in (("training", training), ("validation", validation)):
        if value is not None and not np.isfinite(value):
            raise TrainingError(
                f"the {name} loss is {value} after step {step}: most likely the learning rate is "
                "too high. This step was not saved; the last checkpoint is intact. Lower "
                "optim.learning_rate, lengthen optim.warmup_steps, or set optim.clip_norm = 1.0"
            )


def dropout_seed(seed: int, step: int, micro_step: int, rank: int) -> int:
    """The seed of one forward pass, independent of how often the run was stopped. -> [0, 2^63)"""
    digest = hashlib.blake2b(f"{seed} {step} {micro_step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
