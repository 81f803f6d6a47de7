"""The learning rate as a pure function of the step."""

import math
from dataclasses import dataclass

import torch

from groundup.recipe import OptimSection


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then a decay that reaches `floor` when `steps` are done.

    Never negative, never above the peak, exactly `peak` at the end of the warm-up and exactly `floor` at `steps`.
    """

    shape: str  # cosine (Loshchilov & Hutter 2017), linear or constant
    peak: float
    floor: float
    warmup_steps: int
    steps: int

    @classmethod
    def of(cls, section: OptimSection, steps: int) -> "Schedule":
        """The schedule of a recipe over so many steps; a run shorter than its warm-up warms up to its end."""
        warmup_steps = min(section.warmup_steps, steps)
        return cls(section.schedule, section.learning_rate, section.min_learning_rate, warmup_steps, steps)

    def at(self, step: int) -> float:
        """The learning rate of the update that follows `step` completed ones."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        if self.shape == "constant" or step == self.warmup_steps:
            return self.peak
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        remaining = 1.0 - progress if self.shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return min(self.peak, self.floor + (self.peak - self.floor) * remaining)  # rounding must not pass the peak

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set and return the learning rate of this step."""
        learning_rate = self.at(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate
