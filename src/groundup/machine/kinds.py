"""What the kinds of devices can do. No other room asks whether a device is a GPU or which one.

What is done with a device goes through torch's module of its kind: `torch.cpu`, `torch.cuda` or
`torch.mps`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """What a kind of device can do.

    Attributes:
        is_gpu: Whether it computes beside the processor, which waits where it reads a result.
        pins_memory: Whether it copies from pinned memory of the processor while both go on.
        has_float64: Whether it computes in float64.
        counts_memory: Whether torch counts the memory that a process has on it.
        compiles: Whether compiling always pays, and needs no C++ compiler.
        bfloat16_from: The compute capability from which it has units for bfloat16 products. None
            where that can't be asked.
        has_many: Whether a machine may have several, with names, of which one is current.
        meets_by: The backend by which processes add up its tensors; None for a device that several
            processes can't have.
    """

    is_gpu: bool
    pins_memory: bool
    has_float64: bool
    counts_memory: bool
    compiles: bool
    bfloat16_from: tuple[int, int] | None
    has_many: bool
    meets_by: str | None


# In the order in which `auto` tries GPUs. torch's own names of the kinds are the keys.
KINDS = {
    "cuda": Kind(
        is_gpu=True,
        pins_memory=True,
        has_float64=True,
        counts_memory=True,
        compiles=True,
        bfloat16_from=(8, 0),
        has_many=True,
        meets_by="nccl",
    ),
    "mps": Kind(
        is_gpu=True,
        pins_memory=False,
        has_float64=False,
        counts_memory=False,
        compiles=False,
        bfloat16_from=None,
        has_many=False,
        meets_by=None,
    ),
    "cpu": Kind(
        is_gpu=False,
        pins_memory=False,
        has_float64=True,
        counts_memory=False,
        compiles=False,
        bfloat16_from=None,
        has_many=False,
        meets_by="gloo",
    ),
}


def kind_of(device: torch.device) -> Kind:
    """Return what the kind of a device can do."""
    return KINDS[device.type]


def module_of(device: torch.device | str) -> Any:
    """Return torch's module for a kind of device, as `torch.cuda`."""
    return torch.get_device_module(device)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given to do. It must be the current one."""
    module_of(device).synchronize()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the processor to a device, without waiting where the device can pin it."""
    pins = kind_of(device).pins_memory
    return (pinned(tensor, device) if pins else tensor).to(device, non_blocking=pins)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the processor in memory from which its device copies without waiting."""
    return tensor.pin_memory() if kind_of(device).pins_memory else tensor
