"""A run's state in a checkpoint: the model folder, and `training/` with the optimizer and the
progress beside it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from groundup.checkpoints import model_folder
from groundup.checkpoints.adapter_folder import Base, save_adapter
from groundup.data.dataset import Dataset
from groundup.errors import CheckpointError
from groundup.models.registry import Model
from groundup.optim.groups import load_optimizer_state, optimizer_state

OPTIMIZER_FILE = "training/optimizer.safetensors"
STATE_FILE = "training/state.json"


@dataclass
class Progress:
    """What a resumed run needs to know besides weights and optimizer."""

    step: int = 0  # completed steps
    seconds: float = 0.0  # of training
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    # the planned steps of the run whose patience ran out: with more steps it goes on
    stopped_early: int = 0


def write_state(
    folder: Path,
    model: Model,
    text: Dataset,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
    *,
    base: Base | None,
) -> None:
    """Everything that `read_state` and `model_folder.load` need, into `folder`; of a model with a
    base its adapters.
    """
    if base is None:
        model_folder.save(folder, model, text.tokenizer, text.document_start)
    else:
        save_adapter(folder, model, base, text.document_start)
        text.tokenizer.save(folder)
    (folder / "training").mkdir()
    save_file(optimizer_state(model, optimizers), folder / OPTIMIZER_FILE)
    (folder / STATE_FILE).write_text(json.dumps(asdict(progress), indent=2) + "\n", "utf-8")


def read_state(folder: Path, model: Model, optimizers: list[torch.optim.Optimizer]) -> Progress:
    """Put the optimizers back as they were; the progress made. Raises CheckpointError."""
    try:
        load_optimizer_state(model, optimizers, load_file(folder / OPTIMIZER_FILE))
        return Progress(**json.loads((folder / STATE_FILE).read_text("utf-8")))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} can't be resumed from: {error}") from error
