"""What a run measures: records that become lines of metrics.jsonl, and their speed."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step.

    Args:
        step: The number of completed steps.
        tokens: The number of tokens that the model was trained on.
        loss: The loss of the step's batch, in nats a token.
        learning_rate: The learning rate of the update.
        gradient_norm: The gradient's norm before it was clipped.
        tokens_per_second: The speed of the step.
        seconds: The time of training so far.
        batch_hash: The hash of the tokens that the model was fed, over all processes.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    seconds: float
    batch_hash: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as a line of metrics.jsonl."""
        return {"kind": "step", **asdict(self)}


@dataclass(frozen=True)
class EvaluationRecord:
    """Losses in evaluation mode, in nats a token.

    Args:
        step: The number of completed steps.
        tokens: The number of tokens that the model was trained on.
        train_loss: The loss on training text; None where none is measured.
        validation_loss: The loss on the validation text.
        bits_per_byte: The validation loss in bits a byte of the text.
        seconds: The time of training so far.
        validation_losses: For a mixture, the loss on each corpus, by its name.
    """

    step: int
    tokens: int
    train_loss: float | None
    validation_loss: float
    bits_per_byte: float
    seconds: float
    validation_losses: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a line of metrics.jsonl."""
        fields = asdict(self)
        if self.validation_losses is None:
            del fields["validation_losses"]
        return {"kind": "evaluation", **fields}


@dataclass(frozen=True)
class TaskRecord:
    """The share of a task's items that a model chose rightly, measured while it trained.

    Args:
        task: The task's name, which is the kind of the line in metrics.jsonl.
        step: The number of completed steps.
        tokens: The number of tokens that the model was trained on.
        convention: The convention by which items were put to the model.
        measure: The score that decided the model's choices.
        accuracy: The share of right choices.
        interval: The 95% interval of the accuracy.
        right: The number of right choices.
        items: The number of items.
        official: Whether the items are those of published figures; None for a task without such
            figures.
        seconds: The time of training so far.
        chance: The accuracy of guessing; None stands for a quarter.
    """

    task: str
    step: int
    tokens: int
    convention: str
    measure: str
    accuracy: float
    interval: tuple[float, float]
    right: int
    items: int
    official: bool | None
    seconds: float
    chance: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a line of metrics.jsonl."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return {"kind": fields.pop("task"), **fields}


Record = StepRecord | EvaluationRecord | TaskRecord


def tokens_per_second(tokens: int, started: float, ended: float) -> float:
    """Compute the tokens a second between two readings of a clock that counts seconds."""
    elapsed = ended - started
    return tokens / elapsed if elapsed > 0 else 0.0
