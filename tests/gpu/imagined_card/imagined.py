"""The imagined card in Python: tensors without numbers on it, and what is shimmed for them.

Fake tensors have shapes, dtypes and a device, and torch goes through its own code for CUDA with
them: autocast, the choice of a kernel, autograd, the compiler. Nothing is computed.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from groundup.data.loader import Loader
from groundup.machine import choice
from groundup.training import setup

aten = torch.ops.aten
CARD = torch.device("cuda")
COPIES = (aten._to_copy.default, aten.copy_.default)
GRAPHS: list[int] = []  # the nodes of each graph that the compiler was given


def described(tensor: Tensor) -> str:
    """A tensor as dtype and shape, with the processor named where it isn't on the card."""
    shape = str(list(tensor.shape)).replace(" ", "")
    where = "" if tensor.device.type == CARD.type else f" on {tensor.device.type}"
    return f"{str(tensor.dtype).removeprefix('torch.')}{shape}{where}"


class Card(FakeTensorMode):
    """The mode in which every tensor is a fake one. It counts what a processor waits for.

    Attributes:
        waits: What was read from the card, or copied to it from memory that isn't pinned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default:
            self.waits.append(f"read {described(args[0])}")
            return True if args[0].dtype == torch.bool else 1
        if func in COPIES:
            self.note_copy(func, args, kwargs)
        if func not in self.lift_fns:  # what a thread has read from the text is real
            args, kwargs = tree_map(self.faked, (args, kwargs))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def faked(self, value: Any) -> Any:
        """A fake tensor for a real one; anything else is returned as it is."""
        return self.from_tensor(value) if type(value) is Tensor else value

    def note_copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Note a copy between the processor and the card that the processor would wait for."""
        if func is aten.copy_.default:
            source, place, non_blocking = args[1], args[0].device, kwargs.get("non_blocking")
            non_blocking = non_blocking or (len(args) > 2 and args[2])
        else:
            source, place = args[0], torch.device(kwargs.get("device") or args[0].device)
            non_blocking = kwargs.get("non_blocking")
        if isinstance(source, FakeTensor):
            source.constant = None  # else torch would compute the copy, on a card that isn't there
        if source.device.type == place.type:
            return
        if place.type != CARD.type:
            self.waits.append(f"read {described(source)}")
        elif source.dim() and not (non_blocking and is_pinned(source)):
            self.waits.append(f"copy {described(source)}")


def is_pinned(tensor: Tensor) -> bool:
    """Whether a real tensor lies in pinned memory, or a fake one came from `pin_memory`."""
    if isinstance(tensor, FakeTensor):
        return getattr(tensor, "pinned", False)
    with _disable_current_modes():
        return tensor.is_pinned()


def pin_memory(real: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Pin a real tensor, or mark a fake one."""
    if isinstance(tensor, FakeTensor):
        tensor.pinned = True  # pyright: ignore[reportAttributeAccessIssue]
        return tensor
    with _disable_current_modes():
        return real(tensor)


def stays(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Stand for `Module.to` where the module is there already: fake parameters can't move."""
    assert all((p.device.type, p.dtype) == (device.type, dtype) for p in module.parameters())
    return module


def without_modes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with real tensors, also where it is called among fake ones."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return call


def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
    """Note a graph and compile it by `aot_eager`, which traces the backward pass, too."""
    GRAPHS.append(len(graph.graph.nodes))
    return aot_eager(graph, inputs)


@contextmanager
def imagined_card() -> Iterator[Card]:
    """Let groundup train on the imagined card while the body runs."""
    build, compile_, pin = setup.build, nn.Module.compile, Tensor.pin_memory

    def build_there(*args: Any) -> Any:
        with CARD:
            return build(*args)

    def compile_by_ours(module: nn.Module, **how: Any) -> None:
        compile_(module, backend=backend, **how)

    def pinned(tensor: Tensor, *_: Any) -> Tensor:
        return pin_memory(pin, tensor)

    def tolist(tensor: Tensor) -> list[float]:
        card.waits.append(f"read {described(tensor)}")  # at once
        return [1.0] * tensor.numel()

    card = Card()
    replaced = (
        (choice, "_problem_with", lambda _name: None),  # it compares a product with the CPU's
        (setup, "build", build_there),
        (nn.Module, "to", stays),
        (nn.Module, "compile", compile_by_ours),
        (Loader, "prepare", without_modes(Loader.prepare)),
        (Tensor, "pin_memory", pinned),
        (FakeTensor, "pin_memory", pinned),
        (FakeTensor, "tolist", tolist),
        # as a real tensor's, the norms of all gradients are computed by one operation
        (_foreach_utils, "_foreach_supported_types", [Tensor, FakeTensor]),
    )
    with ExitStack() as stack:
        for where, name, value in replaced:
            stack.enter_context(patch.object(where, name, value))
        yield stack.enter_context(card)
