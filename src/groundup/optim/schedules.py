"""The learning rate as a pure function of the step."""

import math
from dataclasses import dataclass

import torch

from groundup.recipes.schema import OptimSection


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to a peak, then a decay that reaches a floor when all steps are done.

        lr = peak (step + 1) / (warmup + 1)
        lr = floor + (peak - floor) (1 + cos(pi done)) / 2
        lr = floor + (peak - floor) (1 - done)

    These are the warm-up, the decay of cosine, and that of linear and wsd; the peak is between.
    The rate is never negative and never above the peak. It is exactly the peak from the end of the
    warm-up to the beginning of the decay, and exactly the floor at `steps`. A constant schedule has
    no decay.

    Attributes:
        shape: cosine (Loshchilov & Hutter 2017, equation 5), linear, wsd (warm-up, stable, decay:
            Hu et al. 2024, section 4.1) or constant.
        peak: The highest learning rate.
        floor: The learning rate at the end.
        warmup_steps: The number of steps of the warm-up.
        steps: The number of all steps.
        decay_share: For wsd, the share of all steps in which the rate decays.
    """

    shape: str
    peak: float
    floor: float
    warmup_steps: int
    steps: int
    decay_share: float = OptimSection.decay_share

    @classmethod
    def of(cls, section: OptimSection, steps: int) -> "Schedule":
        """Make the schedule that a recipe asks for over `steps` steps, which may all be warm-up."""
        rates = section.learning_rate, section.min_learning_rate
        warmup_steps = min(section.warmup_steps, steps)
        return cls(section.schedule, *rates, warmup_steps, steps, section.decay_share)

    @property
    def decay_begins(self) -> int:
        """The step at which the learning rate begins to decay from its highest value.

        It is the end of the warm-up, except for the shape wsd (warm-up, stable, decay), which first
        holds the highest value.
        """
        if self.shape != "wsd":
            return self.warmup_steps
        return max(self.warmup_steps, self.steps - max(1, round(self.decay_share * self.steps)))

    def at(self, step: int) -> float:
        """Return the learning rate of the next update, after `step` completed updates."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        begins = self.decay_begins
        if self.shape == "constant" or step <= begins:
            return self.peak
        progress = min(1.0, (step - begins) / max(1, self.steps - begins))
        remaining = (
            0.5 * (1.0 + math.cos(math.pi * progress)) if self.shape == "cosine" else 1.0 - progress
        )
        # rounding must not pass the peak
        return min(self.peak, self.floor + (self.peak - self.floor) * remaining)

    def apply(self, optimizers: list[torch.optim.Optimizer], step: int) -> float:
        """Set each parameter group's learning rate for a step, in proportion to its highest rate.

        Args:
            optimizers: The optimizers, one of which is AdamW.
            step: The number of completed steps.

        Returns:
            The learning rate of AdamW.
        """
        learning_rate = self.at(step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (group["initial_lr"] / self.peak)
        return learning_rate
