"""How a model writes on a machine: the dtype of its weights, and what multiplies them."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groundup.errors import GenerationError, MachineError
from groundup.generation.graph import GPU_MODE, StepGraph
from groundup.generation.kernels import Kernels, ModelView, load_kernels
from groundup.generation.packed import packed, piece_dtype, view_of
from groundup.generation.slots import Slots
from groundup.machine.device import keep_freed_memory
from groundup.machine.kinds import kind_of, to_device
from groundup.models.bigram import Bigram
from groundup.models.correspondence import gpt2_from_readable
from groundup.models.gpt2 import GPT2
from groundup.models.lora import adapter_of
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model, build_on_meta, count_parameters

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BFLOAT16_FROM = 16_000_000  # parameters: smaller models stay in the processor's own cache


@dataclass(frozen=True)
class Precision:
    """How a model writes.

    Args:
        dtype: auto, float32 or bfloat16: the dtype of the weights. `auto` takes bfloat16 for models
            of 16 million parameters or more that the kernels multiply, because writing takes the
            time that reading the weights takes; and else the model's own.
        quantize: Empty, or int8: weights of 8 bits, and a scale for each row of a matrix.
        compile: auto, on or off: whether a CPU multiplies by groundup's C++ kernels. `auto` goes on
            without them, and says so, where they can't be built. On a GPU of CUDA, `on` compiles a
            step into a graph, which takes a minute, and `auto` doesn't.

    Raises:
        GenerationError: A value is none of these.
    """

    dtype: str = "auto"
    quantize: str = ""
    compile: str = "auto"

    def __post_init__(self) -> None:
        known = {
            "dtype": ("auto", *DTYPES),
            "quantize": ("", "int8"),
            "compile": ("auto", "on", "off"),
        }
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                names = ", ".join(each or "nothing" for each in values)
                raise GenerationError(f"{name} = {value!r} must be one of {names}")


class Writer:
    """A model that reads pieces of texts and writes their next tokens, in slots.

    Args:
        model: Any model. It stays as it is, and its mode matters to nobody: texts are written in
            eval mode.
        precision: How it writes.

    Raises:
        MachineError: The precision asks for kernels, and there are none.
    """

    def __init__(self, model: Model, precision: Precision) -> None:
        self.block_size = model.block_size
        weight = next(model.parameters())
        self.device = weight.device
        self.kernels = kernels_for(model, precision, self.device)
        if self.kernels is not None:
            keep_freed_memory()  # each layer of each piece takes the same again
        self.dtype = weight_dtype(model, precision, self.kernels)
        self.model = with_weights(model, self.dtype, self.kernels)
        self.view: ModelView | None = None  # of step.cpp
        if self.kernels is not None and isinstance(self.model, GPT2 | Modern):
            self.view = view_of(self.model)
        # on a GPU only where it is asked for: it takes longer than most texts
        self.compiles = precision.compile == "on" and self.kernels is None
        self.slots: Slots | None = None
        self.graph: StepGraph | None = None

    @property
    def description(self) -> str:
        """Say with which weights the model writes, and by what."""
        kind = str(self.dtype).removeprefix("torch.")
        by = "groundup's C++" if self.kernels else "torch, compiled" if self.compiles else "torch"
        return f"writes with {kind} weights, by {by}"

    @property
    def path(self) -> str:
        """What decides the last bits of a result, in a few words."""
        by = "graph" if self.compiles else "torch"
        if self.kernels is not None:
            tiled = self.kernels.has_tiles and self.dtype != torch.float32
            by = "tiles" if tiled else "kernels"
        kind = str(self.dtype).removeprefix("torch.")
        threads = torch.get_num_threads()
        return f"{kind}-{by}-{self.device.type}-{threads}-threads-torch-{torch.__version__}"

    @property
    def vocab_size(self) -> int:
        """The size of the model's vocabulary."""
        return self.model.config.vocab_size

    @property
    def has_cache(self) -> bool:
        """Whether the model keeps keys and values, so that it reads each token once."""
        return isinstance(self.model, GPT2 | Modern)

    def take_slots(self, count: int, room: int) -> None:
        """Take the memory for keys and values of `count` texts of up to `room` tokens."""
        if isinstance(self.model, GPT2 | Modern):
            dtype = piece_dtype(self.dtype, self.kernels)
            self.slots = Slots(
                self.model, count, room, self.device, spare=self.compiles, piece_dtype=dtype
            )
            if self.compiles:
                self.graph = StepGraph(self.model, self.slots, GPU_MODE)

    def read(self, piece: Sequence[int], slot: int, first: int) -> Tensor:
        """Read a piece of a text, and return its hidden states, [1, time, width].

        Args:
            piece: The tokens of the piece.
            slot: The slot of the text.
            first: The number of tokens of the text that the slot holds.
        """
        assert isinstance(self.model, GPT2 | Modern)
        assert self.slots is not None
        tokens = to_device(torch.tensor([piece]), self.device)
        return self.model.hidden(tokens, self.slots.reading(slot, first))

    def read_whole(self, text: Sequence[int], last: bool) -> Tensor:
        """Read a text by a model without a cache, and return hidden states, [1, time, width].

        Args:
            text: The tokens that the model sees.
            last: Whether the state of the last token is enough.
        """
        assert isinstance(self.model, Bigram | ReadableGPT)
        seen = text[-1:] if last and isinstance(self.model, Bigram) else text
        return self.model.hidden(to_device(torch.tensor([seen]), self.device))

    def write(self, newest: Tensor, slots: list[int], lengths: list[int]) -> Tensor:
        """Read the newest token of each of several texts, and return the logits of the next.

        Args:
            newest: [texts] int64, on the CPU.
            slots: The slot of each text.
            lengths: The number of tokens of each text, the newest included.

        Returns:
            [texts, vocab].
        """
        assert isinstance(self.model, GPT2 | Modern)
        assert self.slots is not None
        if self.view is not None and self.kernels is not None:
            numbers = newest, torch.tensor(slots), torch.tensor(lengths)
            return self.kernels.step(self.view, self.slots.view(), *numbers)
        if self.graph is not None:
            return self.graph.step(newest, slots, lengths)
        if kind_of(self.device).is_gpu or len(slots) == 1:
            tokens = to_device(newest[:, None], self.device)
            hidden = self.model.hidden(tokens, self.slots.writing(slots, lengths))
            return self.model.logits(hidden[:, -1])
        # torch's products of several rows have other bits than those of one
        each = zip(newest.split(1), slots, lengths, strict=True)
        return torch.cat([self.write(token, [slot], [length]) for token, slot, length in each])

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy what one slot holds of the first `length` tokens of a text to another slot."""
        if self.slots is not None:
            self.slots.copy(source, target, length)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states: [..., width] -> [..., vocab]."""
        return self.model.logits(hidden)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a while: a live model may be in training."""
    if not (was_training := model.training):
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def kernels_for(model: Model, precision: Precision, device: torch.device) -> Kernels | None:
    """Return the kernels, where a model can use them on a device and is to do so.

    Args:
        model: The model, which may be on the meta device.
        precision: How it writes.
        device: Where it writes.

    Raises:
        MachineError: The precision asks for kernels, and there are none.
    """
    dtype = next(model.parameters()).dtype
    fits = device.type == "cpu" and dtype in DTYPES.values() and not adapter_of(model)
    if precision.compile == "off" or not fits or isinstance(model, Bigram):
        can = kind_of(device).compiles and isinstance(model, GPT2 | Modern)
        if precision.compile == "on" and not can:
            kind = f"{dtype} on {device}".removeprefix("torch.")
            kind += ", whose table needs none" if isinstance(model, Bigram) else ""
            kind += ", with adapters" if adapter_of(model) else ""
            raise MachineError(f"compile = on, but there are no kernels for a model of {kind}")
        return None
    try:
        return load_kernels()
    except MachineError as error:
        if precision.compile == "on":
            raise
        logger.info(f"{error}. Texts are written by torch's own products, which are slower")
        return None


def weight_dtype(model: Model, precision: Precision, kernels: Kernels | None) -> torch.dtype:
    """Return the dtype of the weights with which a model writes.

    Args:
        model: The model, which may be on the meta device.
        precision: How it writes.
        kernels: What multiplies, or None for torch.

    Raises:
        GenerationError: The model has nothing but a table, which is read as it is.
    """
    own = next(model.parameters()).dtype
    if isinstance(model, Bigram):
        if precision.quantize or DTYPES.get(precision.dtype, own) != own:
            kind = str(own).removeprefix("torch.")
            problem = f"a bigram's table is read as it is, in {kind}"
            raise GenerationError(f"{problem}: leave out dtype and quantize")
        return own
    if precision.quantize:
        return torch.int8
    if precision.dtype != "auto":
        return DTYPES[precision.dtype]
    large = kernels is not None and count_parameters(model) >= BFLOAT16_FROM
    return torch.bfloat16 if large else own


def with_weights(model: Model, dtype: torch.dtype, kernels: Kernels | None) -> Model:
    """Return a model that computes the same with weights of a dtype, in eval mode.

    Args:
        model: The model, which stays as it is, and is returned where nothing is to change.
        dtype: The dtype of its matrices.
        kernels: What multiplies few tokens, or None for torch.
    """
    weight = next(model.parameters())
    if kernels is None and dtype == weight.dtype:
        return model
    on_gpu = not weight.is_meta and kind_of(weight.device).is_gpu
    if on_gpu and dtype == torch.bfloat16:  # which has products of that dtype
        return copy.deepcopy(model).to(dtype).eval()
    return packed(gpt2_twin(model) if isinstance(model, ReadableGPT) else model, dtype, kernels)


def gpt2_twin(model: ReadableGPT) -> GPT2:
    """Return the GPT-2 that computes what a readable model does."""
    twin = build_on_meta("gpt2", model.config)
    assert isinstance(twin, GPT2)
    weights = gpt2_from_readable(model.state_dict(), model.config.n_layer, model.config.n_head)
    twin.load_state_dict(weights, assign=True)
    twin.lm_head.weight = twin.transformer.wte.weight
    return twin
