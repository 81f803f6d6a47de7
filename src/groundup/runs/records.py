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
class HellaSwagRecord:
    """The share of a fixed part of HellaSwag's items that is chosen rightly after `step` completed
    steps.

    convention, measure: by which. interval: of 95%. official: whether they are of the file of the
    published figures.
    """

    step: int
    tokens: int
    convention: str
    measure: str
    accuracy: float
    interval: tuple[float, float]
    right: int
    items: int
    official: bool
    seconds: float  # of training so far

    def to_json(self) -> dict[str, Any]:
        """A line of metrics.jsonl."""
        return {"kind": "hellaswag", **asdict(self)}


Record = StepRecord | EvaluationRecord | HellaSwagRecord


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
