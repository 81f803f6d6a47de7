"""Writes and reads what is needed to resume a run.

That is the model folder, and in it the folder `training/` with the state of the optimizers and the
progress of the run.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.checkpoints.adapter_folder import Base, save_adapter
from groundup.checkpoints.conventions import Conventions
from groundup.checkpoints.model_folder import save
from groundup.data.dataset import Dataset
from groundup.errors import CheckpointError
from groundup.models.registry import Model
from groundup.optim.state import optimizer_state

OPTIMIZER_FILE = "training/optimizer.safetensors"
STATE_FILE = "training/state.json"


@dataclass
class Progress:
    """How far a run has come, which a resumed run must know besides weights and optimizers.

    Attributes:
        step: The completed steps.
        seconds: The seconds of all steps.
        spent: The seconds of everything: steps, evaluations, samples, scores and checkpoints.
        best_loss: The lowest validation loss after the first step; None before there is one.
        best_step: The step after which the best loss was measured.
        evaluations_since_best: The number of evaluations after the best one.
        stopped_early: The planned number of steps of a run that `eval.patience` ended, else 0. A
            run that is resumed with more planned steps trains further.
        owed: Whether the evaluation, sample and scores that are due after `step` are still to do,
            because the run was asked to stop before they were done.
        validation: The SHA-256 of the tokens on which the best loss was measured; empty in
            checkpoints of older code.
    """

    step: int = 0
    seconds: float = 0.0
    spent: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    stopped_early: int = 0
    owed: bool = False
    validation: str = ""

    def is_stopped_early(self, planned_steps: int) -> bool:
        """Return whether `eval.patience` ended the run when it had that planned number of steps."""
        return self.stopped_early == planned_steps

    def is_finished(self, planned_steps: int) -> bool:
        """Return whether a run with that planned number of steps is over."""
        return self.step >= planned_steps or self.is_stopped_early(planned_steps)

    def is_of_another_text(self, validation: str, text_changed: bool) -> bool:
        """Return whether the best loss was measured on another validation text than the present.

        Args:
            validation: The SHA-256 of the present validation tokens.
            text_changed: Whether the run's text has ever changed, which decides where a checkpoint
                doesn't say what was measured.
        """
        other = self.validation != validation if self.validation else text_changed
        return other and self.best_loss is not None

    def forget_best(self) -> None:
        """Look for the best loss anew, and let patience begin anew."""
        self.best_loss, self.best_step = None, 0
        self.evaluations_since_best = self.stopped_early = 0

    def note_loss(self, loss: float, patience: int, planned_steps: int) -> None:
        """Note a validation loss, and stop early after `patience` evaluations without a better one.

        Args:
            loss: The loss after `step` completed steps.
            patience: The number of evaluations without a better loss that ends a run; 0 never does.
            planned_steps: The planned number of steps of the run.
        """
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_step, self.evaluations_since_best = loss, self.step, 0
            return
        self.evaluations_since_best += 1
        if 0 < patience <= self.evaluations_since_best:
            self.stopped_early, self.evaluations_since_best = planned_steps, 0


@dataclass(frozen=True)
class StateWriter:
    """Writes the state of a run into a folder.

    Attributes:
        dataset: What the run learns from; its tokenizer is saved beside the model.
        base: The model that adapters are for, if only adapters train; None for a whole model.
        conventions: What the model that the run began with said of using it.
    """

    dataset: Dataset
    base: Base | None
    conventions: Conventions

    def write(
        self,
        folder: Path,
        model: Model,
        optimizers: list[torch.optim.Optimizer],
        progress: Progress,
    ) -> None:
        """Write what is needed to use the model and to resume the run.

        That is the model, or its adapters alone if only they train, the tokenizer, the state of the
        optimizers, and the progress of the run.

        Args:
            folder: Where the files go.
            model: The model.
            optimizers: The optimizers of its parameters.
            progress: How far the run has come.
        """
        start, tokenizer = self.dataset.document_start, self.dataset.tokenizer
        if self.base is None:
            save(folder, model, tokenizer, start, self.conventions)
        else:
            conventions = self.conventions.after_documents(start)
            save_adapter(folder, model, tokenizer, self.base, conventions)
        (folder / "training").mkdir()
        save_file(optimizer_state(model, optimizers), folder / OPTIMIZER_FILE)
        (folder / STATE_FILE).write_text(json.dumps(asdict(progress), indent=2) + "\n", "utf-8")


def read_state(folder: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Read what a checkpoint has besides the model.

    Returns:
        The progress of the run, and the tensors of the optimizers, which
        `load_optimizer_state` puts back.

    Raises:
        CheckpointError: The files can't be read.
    """
    try:
        progress = Progress(**json.loads((folder / STATE_FILE).read_text("utf-8")))
        return progress, load_file(folder / OPTIMIZER_FILE)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} can't be resumed from: {error}") from error
