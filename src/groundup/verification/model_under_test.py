"""The model that groundup's claims are tested on, and its logits and gradients."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from groundup.checkpoints import model_folder
from groundup.checkpoints.layouts.gpt2 import LARGEST_BIGRAM
from groundup.checkpoints.model_folder import LoadedModel
from groundup.errors import CheckpointError
from groundup.machine import memory
from groundup.models.bigram import Bigram
from groundup.models.registry import Model, architecture_of, count_parameters
from groundup.tokenizers.base import Tokenizer
from groundup.training.objective import NextTokenLoss
from groundup.verification.differences import Tensors

ROWS = 3
TIME = 144  # tokens a row: as many as attention's bfloat16 products on a CPU begin with, and some
# parameters, from which float64 and gradients on a CPU take minutes
LARGE, TIME_OF_LARGE = 20_000_000, 32

CPU = torch.device("cpu")


class Skipped(Exception):  # noqa: N818
    """A claim about a model can't be measured on this machine; the message tells the user why."""


@dataclass(frozen=True)
class Measurement:
    """The measured error of one part of a claim about a model.

    Args:
        part: The name of the part; empty for a claim of one part.
        error: The error.
        bound: The largest error with which the claim holds.
    """

    part: str
    error: float
    bound: float


@dataclass(frozen=True)
class Outcome:
    """What a model computes from a batch: logits, and the gradients of the training objective."""

    logits: Tensor
    gradients: Tensors


@dataclass(frozen=True)
class ModelUnderTest:
    """A model on which groundup's claims are tested.

    Args:
        name: What the printed table calls the model.
        model: The model in eval mode, on the CPU, in the precision in which it is kept.
        tokenizer: The model's tokenizer, or None.
        device: The device on which the model is tested.
        without: The names of claims that aren't tested on this model.
        loaded: The model as it was loaded from a folder, or None for one that was made here.
    """

    name: str
    model: Model
    tokenizer: Tokenizer | None
    device: torch.device
    without: frozenset[str] = frozenset()
    loaded: LoadedModel | None = None

    @property
    def architecture(self) -> str:
        return architecture_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights, in which `generate` and `evaluate` compute, too."""
        return next(self.model.parameters()).dtype

    def copied(
        self, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> Model:
        """Return a copy of the model to change freely, on the tested device or another one."""
        return copy.deepcopy(self.model).to(device or self.device, dtype).eval()

    def tokens(self, rows: int = ROWS, seed: int = 0, time: int | None = None) -> Tensor:
        """Draw random tokens: [rows, time + 1] int64, on the CPU.

        Args:
            rows: The number of rows.
            seed: The same seed gives the same tokens.
            time: The length of a row, cut to the model's context. Left out, it depends on the
                model's size.
        """
        time = time or (TIME if count_parameters(self.model) < LARGE else TIME_OF_LARGE)
        shape = rows, min(self.model.block_size, time) + 1
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.model.config.vocab_size, shape, generator=generator)

    @cached_property
    def exact(self) -> Outcome:
        """The logits and gradients on the CPU in float64, to compare others with.

        Raises:
            Skipped: The machine has too little memory.
        """
        self.check_memory(4)
        return outcome(self.copied(torch.float64, CPU), self.tokens())

    def check_memory(self, copies: int) -> None:
        """Check that `copies` float64 copies of the weights fit into the machine's free memory.

        Raises:
            Skipped: There is too little free memory.
        """
        need = 8 * copies * count_parameters(self.model)
        if need > (free := 0.9 * memory.available(CPU)):
            reason = f"float64 needs about {need / 1e9:.0f} GB of memory"
            raise Skipped(f"{reason}, and there is room for {free / 1e9:.0f}")

    @contextmanager
    def saved(self, dtype: torch.dtype | None = None) -> Iterator[Path]:
        """Make a temporary folder with the model and its tokenizer.

        Args:
            dtype: Another precision to save the model in than its own.

        Yields:
            The folder, which is gone afterwards.

        Raises:
            Skipped: The model is a bigram of more tokens than can be saved.
            CheckpointError: There is no room to save the model.
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


def gradients_of(model: nn.Module) -> Tensors:
    """Return the gradients by the names of the state dict, a tied head's by both of its names."""
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad
    return found


@torch.no_grad()
def logits_of(model: Model, tokens: Tensor, in_bfloat16: bool = False) -> Tensor:
    """Compute logits as training and generation do.

    Args:
        model: The model, whose device and mode stay as they are.
        tokens: [rows, time] int64.
        in_bfloat16: Whether products are taken in bfloat16, as in training.

    Returns:
        [rows, time, vocab].
    """
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
        return model.logits(model.hidden(tokens.to(device)))


def outcome(
    model: Model, tokens: Tensor, in_bfloat16: bool = False, objective: NextTokenLoss | None = None
) -> Outcome:
    """Return the logits and gradients of a forward and a backward pass as in training.

    The model stays in its mode, training or eval.

    Args:
        model: The model, which keeps the gradients of this pass.
        tokens: [rows, time + 1] int64.
        in_bfloat16: Whether products are taken in bfloat16.
        objective: The training objective of the model, or None to make one.
    """
    device = next(model.parameters()).device
    objective = objective or NextTokenLoss(model, "bfloat16" if in_bfloat16 else "float32")
    model.zero_grad(set_to_none=True)
    objective(tokens[:, :-1].to(device), tokens[:, 1:].to(device)).backward()
    return Outcome(logits_of(model, tokens[:, :-1], in_bfloat16), gradients_of(model))
