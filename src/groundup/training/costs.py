"""What the parts of a run cost in seconds, and the length of a run that has a time to keep to."""

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Costs:
    """The seconds of each thing that a run does on one machine, once it is compiled.

    A run measures its losses before its first step, every `every` steps and after its last one.
    Except before the first step, a sample and a checkpoint follow. Tasks are scored on the way by
    an interval of their own, and at both ends.

    Attributes:
        step: The seconds of an optimizer step.
        evaluation: The seconds of measuring the losses.
        sample: The seconds of writing a sample.
        checkpoint: The seconds of writing a checkpoint.
        every: The number of steps between evaluations; 0 has none on the way.
        tasks: For each task, the seconds of scoring the model and the number of steps between
            scorings.
    """

    step: float
    evaluation: float = 0.0
    sample: float = 0.0
    checkpoint: float = 0.0
    every: int = 0
    tasks: tuple[tuple[float, int], ...] = ()

    def until(self, step: int) -> float:
        """Compute the seconds until a step that isn't the last one, with all that follows it."""
        saves = step // self.every if self.every else 0
        reports = self.evaluation + saves * (self.evaluation + self.sample + self.checkpoint)
        scores = sum(seconds * (1 + step // every) for seconds, every in self.tasks)
        return step * self.step + reports + scores

    def whole(self, steps: int) -> float:
        """Compute the seconds of a run of so many steps."""
        last = self.step + self.evaluation + self.sample + self.checkpoint
        return self.until(steps - 1) + last + sum(seconds for seconds, _ in self.tasks)

    def steps_within(self, seconds: float, at_least: int = 1) -> int:
        """Compute how many steps a run may have to end within some seconds."""
        low, high = at_least, max(at_least + 1, int(seconds / max(self.step, 1e-9)) + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.whole(middle) <= seconds else (low, middle)
        return low

    def corrected(self, steps: int, training: float, spent: float) -> "Costs":
        """Correct the seconds of a step by what the first steps of a run have really cost.

        What all the rest was expected to take is taken away. A step has then its share of what the
        rest took longer, too.

        Args:
            steps: The number of completed steps.
            training: The seconds that these steps took.
            spent: The seconds of all that was done, the steps included.
        """
        rest = self.until(steps) - steps * self.step
        return replace(self, step=max(training, spent - rest) / steps)


@dataclass(frozen=True)
class TimeBudget:
    """The time that a run may take, and its length in steps: decided twice, and recorded.

    The length is first computed from a few measured steps. It is decided once more after a third of
    them, by what the run has really cost until then. The learning rate follows the first length
    until that step, and the second one afterwards.

    Attributes:
        seconds: The time of all steps, evaluations, samples, checkpoints and scores together.
        costs: The costs that were measured before the first step.
        planned: The number of steps by these costs.
        decided: The number of steps that was decided on the way; 0 before that.
    """

    seconds: float
    costs: Costs
    planned: int
    decided: int = 0

    @classmethod
    def of(cls, seconds: float, costs: Costs) -> "TimeBudget":
        """Plan the length of a run by its costs."""
        return cls(seconds, costs, costs.steps_within(seconds))

    @property
    def review(self) -> int:
        """The step after which the length is decided once more; 0 for a run of one or two steps."""
        return self.planned // 3

    def decide(self, training: float, spent: float) -> "TimeBudget":
        """Decide the length once more, after the step `review`. What was decided stays.

        Args:
            training: The seconds of the steps until then.
            spent: The seconds of everything until then.
        """
        if self.decided:
            return self
        costs = self.costs.corrected(self.review, training, spent)
        steps = costs.steps_within(self.seconds, at_least=self.review + 1)
        return replace(self, decided=steps)

    def to_json(self) -> dict[str, Any]:
        """Return the budget as the run's facts have it."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "TimeBudget":
        """Read the budget from a run's facts."""
        stated = fields["costs"]
        costs = Costs(**{**stated, "tasks": tuple(map(tuple, stated["tasks"]))})
        return cls(**{**fields, "costs": costs})
