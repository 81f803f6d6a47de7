"""What a run measures, as pure functions and plain records."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. `step` counts completed steps, `seconds` is training time so far, losses
    are nats a token.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    seconds: float
    batch_hash: int  # of the tokens that the model was fed, over all processes

    def to_json(self) -> dict[str, Any]:
        """A line of metrics.jsonl."""
        return {"kind": "step", **asdict(self)}


@dataclass(frozen=True)
class EvaluationRecord:
    """Losses in evaluation mode after `step` completed steps, in nats a token; train_loss is None
    if not measured.
    """

    step: int
    tokens: int
    train_loss: float | None
    validation_loss: float
    bits_per_byte: float  # of the validation text
    seconds: float
    validation_losses: dict[str, float] | None = None  # of a mixture, corpus by corpus

    def to_json(self) -> dict[str, Any]:
        """A line of metrics.jsonl."""
        fields = {
            key: value
            for key, value in asdict(self).items()
            if (key, value) != ("validation_losses", None)
        }
        return {"kind": "evaluation", **fields}


@dataclass(frozen=True)
class TaskRecord:
    """The share of a task's items that the model chose rightly, evaluated on the way.

    Args:
        task: The task's name, which is the kind of the line in metrics.jsonl.
        step: The number of completed steps.
        tokens: The tokens that the model was trained on.
        convention: How items were put to the model.
        measure: What decided its choice.
        accuracy: The share of right choices.
        interval: Its 95% interval.
        right: The number of right choices.
        items: The number of items.
        official: Whether the items are those of published figures; None where there are none.
        seconds: The time of training so far.
        chance: The accuracy of guessing; None leaves it out, and stands for a quarter.
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
        """A line of metrics.jsonl."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return {"kind": fields.pop("task"), **fields}


Record = StepRecord | EvaluationRecord | TaskRecord


def tokens_per_second(tokens: int, started: float, ended: float) -> float:
    """Throughput between two readings of a monotonic clock, in seconds."""
    elapsed = ended - started
    return tokens / elapsed if elapsed > 0 else 0.0


def steps_within(seconds: float, step_seconds: float, evaluation_seconds: float, every: int) -> int:
    """The steps that fit into `seconds`, with an evaluation each `every` steps (0: never) and one
    at each end.
    """
    left = seconds - 2 * evaluation_seconds
    share = evaluation_seconds / every if every else 0.0
    return max(1, int(left / (step_seconds + share)))
