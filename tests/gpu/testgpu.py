"""A device for tests, `testgpu`, which behaves as a GPU of CUDA does, and computes on the CPU.

A tensor of this device hides a tensor of the CPU. Operations take the hidden tensors and hide the
results, so numbers are the CPU's. What a CPU never notices is refused or counted as with CUDA: an
operation on tensors of several devices is an error, and each time that the processor would wait for
the GPU is counted. torch has one place for a device of other people, `PrivateUse1`, for a whole
process, so tests use it in a process of its own.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from groundup.machine.kinds import KINDS

NAME = "testgpu"
MEMORY = 24 * 2**30
aten = torch.ops.aten

# What reads numbers of the device, so that the processor waits for it.
READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave.Tensor",
    "aten::bincount",
}
# What takes numbers of the CPU nowhere.
OF_LISTS = ("aten::cat", "aten::stack", "aten::_fused_", "aten::_foreach_")
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
MASKS = (torch.bool, torch.uint8)
# What makes tensors of numbers. Whatever else does, fills memory that these have taken.
MAKERS = (
    *("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step"),
    *("linspace", "eye", "eye.m", "tril_indices", "triu_indices", "randperm"),
)
# What may take indices that are on the CPU. CUDA copies them first, and waits.
INDEXES = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}

waits: Counter[str] = Counter()
operations: Counter[str] = Counter()


class Held(torch.Tensor):
    """A tensor of the device, which hides a tensor of the CPU."""

    hidden: Tensor

    @staticmethod
    def __new__(cls, hidden: Tensor) -> "Held":
        if hidden.dtype == torch.float64 and not KINDS[NAME].has_float64:
            raise TypeError(f"{NAME} has no float64")
        held = torch.Tensor._make_wrapper_subclass(
            cls,
            hidden.size(),
            strides=hidden.stride(),
            storage_offset=hidden.storage_offset(),
            dtype=hidden.dtype,
            device=torch.device(NAME, 0),
        )
        held.hidden = hidden
        return held

    def __repr__(self, *_: Any, **_how: Any) -> str:
        return f"{self.hidden!r} on {NAME}"

    def tolist(self) -> Any:
        """Read all numbers of the tensor, as `cpu` does."""
        return self.cpu().tolist()

    def numpy(self, *_: Any, **_how: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu()")

    __array__ = numpy

    def untyped_storage(self) -> torch.UntypedStorage:
        """The memory of the hidden tensor, by which safetensors sees who shares it."""
        return self.hidden.untyped_storage()

    def data_ptr(self) -> int:
        return self.hidden.data_ptr()

    # Without these two a module that moves to the device would untie its parameters.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["hidden"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "Held":
        return Held(inner["hidden"])

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not torch.is_inference_mode_enabled():
            return run_on_cpu(operation, *args, **(kwargs or {}))
        # In this mode torch doesn't take composed operations apart. What is made in it can't be a
        # view of a parameter, as memory of other devices can.
        found = operation.decompose(*args, **(kwargs or {}))
        if found is not NotImplemented:
            return found
        with torch.inference_mode(mode=False):
            return run_on_cpu(operation, *args, **(kwargs or {}))


def run_on_cpu(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Do an operation of the device: check where its tensors are, and compute on the CPU."""
    if operation is aten.copy_.default:
        return copy(*args, **kwargs)
    leaves = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    operations[operation.name()] += 1
    if any(isinstance(each, torch.Generator) for each in tree_leaves((args, kwargs))):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator")
    if operation.name().startswith(PRODUCTS):
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("Deterministic behavior was enabled, and the device has none")
        if not leaves[0].is_floating_point():
            raise RuntimeError(f"{operation.name()} isn't implemented for {leaves[0].dtype}")
    check_devices(operation.name(), leaves)
    count_reads(operation.name(), args)
    leaves_device = torch.device(kwargs.get("device") or NAME).type != NAME
    if leaves_device and operation is aten._to_copy.default:
        waits["copy to the CPU"] += 1
        check_dtype(kwargs.get("dtype"))
    kwargs |= {"device": "cpu"} if "device" in kwargs else {}
    found = operation(*tree_map(_shown, args), **tree_map(_shown, kwargs))
    if leaves_device or not operation._schema.returns:
        return found
    known = {id(each.hidden): each for each in leaves if isinstance(each, Held)}
    return tree_map(lambda each: _hide(each, known), found)


def check_devices(name: str, tensors: list[Tensor]) -> None:
    """Refuse a tensor of the CPU, as CUDA does, unless it is a number or indexes another one."""
    elsewhere = [each for each in tensors if not isinstance(each, Held) and each.dim()]
    numbers = [each for each in tensors if not isinstance(each, Held) and not each.dim()]
    if numbers and (name.startswith(OF_LISTS) or numbers[0] is tensors[0]):
        raise RuntimeError(f"Expected all tensors of {name} to be on the same device, {NAME}:0")
    if elsewhere and (name not in INDEXES or elsewhere[0] is tensors[0]):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} found tensors of "
            f"{NAME}:0 and of the CPU, of shapes {[tuple(each.shape) for each in elsewhere]}"
        )
    if elsewhere:
        waits[f"{name} with indices of the CPU"] += 1


def count_reads(name: str, args: Any) -> None:
    """Count what reads numbers of the device, by which the processor waits for it."""
    if name in READS:
        waits[name] += 1
    if name in INDEXES and any(
        each is not None and each.dtype in MASKS for each in tree_leaves(args[1])
    ):
        waits[f"{name} with a mask"] += 1


def _shown(value: Any) -> Any:
    return value.hidden if isinstance(value, Held) else value


def _hide(value: Any, known: dict[int, Held]) -> Any:
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else Held(value)


def make(operation: Any, *args: Any, **kwargs: Any) -> Held:
    """Make a tensor on the device of what isn't one."""
    return Held(operation(*args, **(kwargs | {"device": "cpu", "pin_memory": False})))


def copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy between devices, or within one."""
    if not isinstance(source, Held):
        if not (non_blocking and is_pinned(source)):
            waits["copy to the device"] += 1
    elif not isinstance(target, Held):
        waits["copy to the CPU"] += 1
        check_dtype(target.dtype)
    _shown(target).copy_(_shown(source))
    return target


def check_dtype(dtype: torch.dtype | None) -> None:
    """Refuse what a Mac's GPU can't do: cast to float64 while it copies to the CPU."""
    if dtype == torch.float64 and not KINDS[NAME].has_float64:
        raise TypeError(f"{NAME} has no float64 to cast to")


def pin_memory(tensor: Tensor, *_: Any) -> Tensor:
    """Return a copy that is known to be pinned, or the tensor itself if it is."""
    if is_pinned(tensor):
        return tensor
    copy = tensor.clone(memory_format=torch.contiguous_format)
    copy.pinned_for_test = True  # pyright: ignore[reportAttributeAccessIssue]
    return copy


def is_pinned(tensor: Tensor, *_: Any) -> bool:
    """Whether a tensor came from `pin_memory`."""
    return getattr(tensor, "pinned_for_test", False)


class Module:
    """What `torch.cuda` is for CUDA: torch's module of the device."""

    Stream = torch.Stream

    def __init__(self) -> None:
        self.device = 0

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return self.device

    def set_device(self, device: Any) -> None:
        assert torch.device(device).index == 0

    def synchronize(self, _device: Any = None) -> None:
        waits["synchronize"] += 1

    def get_device_name(self, _device: Any = None) -> str:
        return "a device for tests"

    def get_device_capability(self, _device: Any = None) -> tuple[int, int]:
        return (8, 6)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def reset_peak_memory_stats(self, _device: Any = None) -> None:
        pass

    def max_memory_allocated(self, _device: Any = None) -> int:
        return MEMORY // 2

    def memory_reserved(self, _device: Any = None) -> int:
        return MEMORY // 2

    def mem_get_info(self, _device: Any = None) -> tuple[int, int]:
        return MEMORY // 2, MEMORY

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, _device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, _device: Any = None) -> None:
        torch.set_rng_state(state)


# The libraries of a registration, which ends with them.
registered: list[torch.library.Library] = []


def register(kind: str = "cuda") -> None:
    """Make the device known to torch and to groundup, for as long as the process lives.

    Args:
        kind: The kind of device whose traits it has, cuda or mps.
    """
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    KINDS[NAME] = KINDS[kind]
    every = torch.library.Library("_", "IMPL")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    ours = torch.library.Library("aten", "IMPL")
    # torch.tensor goes past Python
    ours.impl("_copy_from", lambda source, target, *how: copy(target, source, *how), "PrivateUse1")
    for name in MAKERS:
        ours.impl(name, partial(make, _operation(name)[0]), "PrivateUse1")
    registered.extend((every, ours))
    with warnings.catch_warnings(action="ignore"):  # that torch has rules of its own
        cast_automatically(ours)
    torch.Tensor.pin_memory = pin_memory
    torch.Tensor.is_pinned = is_pinned


def cast_automatically(library: torch.library.Library) -> None:
    """Give autocast the lists of CUDA, which say in what dtype an operation computes.

    torch's header has them. What isn't listed, and `norm`, whose rule is one of its own, takes what
    it is given.
    """
    header = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
    text = header.read_text("utf-8")
    for name in _listed(text, "AT_FORALL_LOWER_PRECISION_FP"):
        _cast(library, name, lambda *_: torch.get_autocast_dtype(NAME))
    for name in _listed(text, "AT_FORALL_FP32"):
        _cast(library, name, lambda *_: torch.float32)
    for name in _listed(text, "AT_FORALL_PROMOTE"):
        _cast(library, name, _widest)
    for name in _listed(text, "AT_FORALL_FP32_SET_OPT_DTYPE"):
        _sum_in_float32(library, name)


def _listed(header: str, macro: str) -> Iterator[str]:
    """The operations that a macro lists, as name or name.overload."""
    lines = re.search(rf"#define {macro}\(_\)(.*?[^\\])\n", header, re.DOTALL)
    assert lines
    for name, overload in re.findall(r"_\((\w+)(?:, (\w+))?\)", lines[1]):
        if hasattr(aten, name):
            yield f"{name}.{overload}" if overload and overload != "deprecated" else name


def _cast(library: torch.library.Library, name: str, rule: Any) -> None:
    """Let autocast cast the tensors that an operation takes."""
    operation, key = _operation(name)

    def call(*args: Any, **kwargs: Any) -> Any:
        dtype = rule(args)
        args, kwargs = tree_map(
            lambda value: value.to(dtype) if _is_cast(value) else value, (args, kwargs)
        )
        with torch._C._ExcludeDispatchKeyGuard(key):
            return operation(*args, **kwargs)

    library.impl(name, call, "AutocastPrivateUse1")


def _sum_in_float32(library: torch.library.Library, name: str) -> None:
    """Let autocast compute the results of an operation in float32, if it isn't told a dtype."""
    operation, key = _operation(name)

    place = [each.name for each in operation._schema.arguments].index("dtype")

    def call(*args: Any, **kwargs: Any) -> Any:
        args, dtype = args[:place], args[place] if len(args) > place else kwargs.get("dtype")
        kwargs["dtype"] = torch.float32 if dtype is None and _is_cast(args[0]) else dtype
        with torch._C._ExcludeDispatchKeyGuard(key):
            return operation(*args, **kwargs)

    library.impl(name, call, "AutocastPrivateUse1")


def _operation(name: str) -> tuple[Any, torch._C.DispatchKeySet]:
    """An operation by its name, and what keeps autocast from seeing it twice."""
    packet, _, overload = name.partition(".")
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    return getattr(getattr(aten, packet), overload or "default"), key


def _is_cast(value: Any) -> bool:
    """Whether autocast casts a value."""
    is_ours = isinstance(value, Held) and value.is_floating_point()
    return is_ours and value.dtype != torch.float64


def _widest(args: Any) -> torch.dtype:
    """The widest dtype of what is cast."""
    dtypes = [each.dtype for each in tree_leaves(args) if _is_cast(each)]
    return torch.float32 if torch.float32 in dtypes else torch.get_autocast_dtype(NAME)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the waits while the body runs, by what waited."""
    before = waits.copy()
    found: Counter[str] = Counter()
    yield found
    found.update(waits - before)
