"""What claims are made about: a model on a device, its tokenizer, and how it is run to be
measured.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from groundup.checkpoints import model_folder
from groundup.checkpoints.layouts.gpt2 import LARGEST_BIGRAM
from groundup.errors import CheckpointError
from groundup.machine import memory
from groundup.models.bigram import Bigram
from groundup.models.config import parameter_count
from groundup.models.registry import Model, architecture_of
from groundup.tokenizers.base import Tokenizer
from groundup.training.objective import NextTokenLoss
from groundup.verification.differences import Tensors, gradients_of

ROWS = 3
TIME = 144  # tokens a row: as many as attention's bfloat16 products on a CPU begin with, and some
# parameters, from which float64 and gradients on a CPU take minutes
LARGE, TIME_OF_LARGE = 20_000_000, 32

CPU = torch.device("cpu")


class Skipped(Exception):  # noqa: N818
    """A claim that can't be examined here; its text says why, and is shown."""


@dataclass(frozen=True)
class Measured:
    """An error and the bound that it is held against; `what` tells the parts of a claim apart."""

    what: str
    error: float
    bound: float


@dataclass(frozen=True)
class Outcome:
    """What a model makes of a batch: logits, and the gradients of the training objective."""

    logits: Tensor
    gradients: Tensors


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode on the CPU, in the precision in which it is kept; left_out: claims
    not made of it.
    """

    name: str
    model: Model
    tokenizer: Tokenizer | None
    device: torch.device
    left_out: frozenset[str] = frozenset()

    @property
    def architecture(self) -> str:
        return architecture_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the model is kept, and in which `generate` and `evaluate`
        run it.
        """
        return next(self.model.parameters()).dtype

    @property
    def parameters(self) -> int:
        return parameter_count(self.architecture, self.model.config)

    def copied(
        self, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> Model:
        """The model again, to be changed freely: on its device, or another."""
        return copy.deepcopy(self.model).to(device or self.device, dtype).eval()

    def tokens(self, rows: int = ROWS, seed: int = 0, time: int | None = None) -> Tensor:
        """Random tokens: [rows, time + 1] int64, on the CPU; time is cut to the model's context."""
        time = min(
            self.model.block_size, time or (TIME if self.parameters < LARGE else TIME_OF_LARGE)
        )
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.model.config.vocab_size, (rows, time + 1), generator=generator)

    @cached_property
    def exact(self) -> Outcome:
        """The outcome on the CPU in float64, against which every other precision and device is
        measured.
        """
        self.check_memory(4)
        return outcome(self.copied(torch.float64, CPU), self.tokens())

    def check_memory(self, copies: int) -> None:
        """Raises Skipped where so many float64 copies of the weights don't fit into the machine's
        memory.
        """
        need = 8 * copies * self.parameters
        if need > (free := 0.9 * memory.available(CPU)):
            raise Skipped(
                f"float64 needs about {need / 1e9:.0f} GB of memory, and there is room for "
                f"{free / 1e9:.0f}"
            )

    @contextmanager
    def saved(self, dtype: torch.dtype | None = None) -> Iterator[Path]:
        """A temporary folder with the model and its tokenizer. Raises Skipped for a bigram that no
        folder can hold.
        """
        if isinstance(self.model, Bigram) and self.model.config.vocab_size > LARGEST_BIGRAM:
            raise Skipped(f"a bigram of more than {LARGEST_BIGRAM:,} tokens can't be saved")
        with TemporaryDirectory(prefix="groundup-verify-") as name:
            model = self.model if dtype is None else self.copied(dtype, CPU)
            try:
                model_folder.save(Path(name), model, self.tokenizer)
            except OSError as error:
                raise CheckpointError(f"no room to save the model in {name}: {error}") from error
            yield Path(name)


@torch.no_grad()
def logits_of(model: Model, tokens: Tensor, in_bfloat16: bool = False) -> Tensor:
    """tokens: [rows, time] -> logits: [rows, time, vocab], by the products that training and
    generation use.
    """
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
        return model.logits(model.hidden(tokens.to(device)))


def outcome(
    model: Model, tokens: Tensor, in_bfloat16: bool = False, objective: NextTokenLoss | None = None
) -> Outcome:
    """Forward and backward as in training, but with the model in the mode in which it is. tokens:
    [rows, time + 1]
    """
    device = next(model.parameters()).device
    objective = objective or NextTokenLoss(model, "bfloat16" if in_bfloat16 else "float32")
    model.zero_grad(set_to_none=True)
    objective(tokens[:, :-1].to(device), tokens[:, 1:].to(device)).backward()
    return Outcome(logits_of(model, tokens[:, :-1], in_bfloat16), gradients_of(model))
