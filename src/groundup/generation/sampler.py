"""Draws the tokens of one text: by its settings, and by what was written so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.generation.settings import SamplingSettings
from groundup.machine.kinds import kind_of, to_device
from groundup.models.sampling import (
    add_bias,
    next_token,
    penalise_repetition,
    penalise_written,
    uniform_of,
)


class Sampler:
    """Draws the tokens of one text, one after the other.

    Args:
        settings: How to draw.
        choice: The number of the text among those of its prompt.
        prompt: All tokens of the prompt.
    """

    def __init__(self, settings: SamplingSettings, choice: int, prompt: Sequence[int]) -> None:
        self.settings, self.choice, self.prompt = settings, choice, prompt

    def draw(self, logits: Tensor, written: Sequence[int]) -> Tensor:
        """Return the next token, on the device of the logits.

        Args:
            logits: [1, vocab], as the model gives them.
            written: The tokens that were written after the prompt.

        Returns:
            [1] int64.
        """
        settings, device = self.settings, logits.device
        dtype = torch.float64 if kind_of(device).has_float64 else torch.float32
        uniform = uniform_of(settings.seed, self.choice, len(written))
        return next_token(
            self._penalised(logits[0], written)[None],
            to_device(torch.tensor([uniform], dtype=dtype), device),
            settings.temperature,
            settings.top_k,
            settings.top_p,
            min_p=settings.min_p,
        )

    def _penalised(self, logits: Tensor, written: Sequence[int]) -> Tensor:
        """Apply the penalties and the bias: [vocab] -> [vocab]."""
        settings, device = self.settings, logits.device
        if settings.repetition_penalty != 1.0:
            text = torch.tensor([*self.prompt, *written], device=device)
            logits = penalise_repetition(logits, text, settings.repetition_penalty)
        if written and (settings.presence_penalty or settings.frequency_penalty):
            tokens = torch.tensor(written, device=device)
            of_written = settings.presence_penalty, settings.frequency_penalty
            logits = penalise_written(logits, tokens, *of_written)
        return add_bias(logits, settings.logit_bias)
