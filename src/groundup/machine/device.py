"""Which precision, threads and compiler a run gets on its device, chosen once."""

import ctypes
import logging
import os
import platform
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.errors import MachineError
from groundup.machine.cores import usable_cores
from groundup.machine.kinds import kind_of, module_of
from groundup.parallel.world import World

logger = logging.getLogger(__name__)

# seconds of training on a CPU: the compiler takes 14, once, and a third of the time goes
COMPILE_PAYS_AFTER = 60.0
CPU_INFO, CPU_TIMES = Path("/proc/cpuinfo"), Path("/proc/stat")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
LARGEST_ON_THE_HEAP = 32 * 2**20  # bytes: as much as glibc allows


@dataclass(frozen=True)
class Machine:
    """The device and the precision of a run.

    Attributes:
        device: The device that computes.
        precision: The dtype of matrix products: float32, bfloat16 or float64.
    """

    device: torch.device
    precision: str

    @property
    def weight_dtype(self) -> torch.dtype:
        """The dtype of weights and optimizer states."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def reduction_device(self) -> torch.device:
        """The device that adds up float64 numbers: the run's own where it can, else the CPU."""
        return reduction_device(self.device)

    @property
    def product_dtype(self) -> torch.dtype:
        """The dtype of matrix products."""
        return getattr(torch, self.precision)


def reduction_device(device: torch.device) -> torch.device:
    """Return what adds up float64 numbers for a device: itself where it can, else the CPU."""
    return device if kind_of(device).has_float64 else torch.device("cpu")


def choose_precision(name: str, device: torch.device) -> str:
    """Choose the dtype of matrix products: `auto` takes bfloat16 on hardware with units for it.

    Raises:
        MachineError: The device doesn't have the precision that is named.
    """
    if name != "auto":
        if name == "float64" and not kind_of(device).has_float64:
            raise MachineError(
                f"precision float64 doesn't exist on {device.type}: train with --train.device cpu"
            )
        if name == "bfloat16" and can_tell_bfloat16(device) and not _has_bfloat16(device):
            logger.warning(
                f"{processor(device)} has no fast units for bfloat16 that groundup knows of: such "
                "products are slow here, and float32 would be faster"
            )
        return name
    return "bfloat16" if _has_bfloat16(device) else "float32"


def processor(device: torch.device) -> str:
    """Return the name of what computes: a GPU, or the model of the CPU."""
    if kind_of(device).has_many:
        return module_of(device).get_device_name(device)
    lines = CPU_INFO.read_text("utf-8", errors="replace") if CPU_INFO.is_file() else ""
    named = re.search(r"^model name\s*: *(.+)$", lines, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for bfloat16 products."""
    if enough := kind_of(device).bfloat16_from:
        return module_of(device).get_device_capability(device) >= enough
    return device.type == "cpu" and _cpu_has_bfloat16()


def can_tell_bfloat16(device: torch.device) -> bool:
    """Whether groundup knows how to ask a device for units for bfloat16 products."""
    return device.type == "cpu" or kind_of(device).bfloat16_from is not None


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers faster than float32 (by AMX or AVX-512 BF16).

    Intel's processors that have AMX, which a virtual machine may hide, do that by AMX alone: their
    other instruction for it has half the speed of float32 (143 against 265 billion operations a
    second, Sapphire Rapids).
    """
    if not CPU_INFO.is_file():
        return False
    words = set(CPU_INFO.read_text("utf-8", errors="replace").split())
    hides_amx = {"GenuineIntel", "avx512_fp16"} <= words
    return "amx_bf16" in words or ("avx512_bf16" in words and not hides_amx)


def choose_compile(name: str, device: torch.device, expected_seconds: float) -> bool:
    """Choose whether a run compiles its model.

    `auto` compiles on a GPU of CUDA, and on a CPU if the run is long enough to save time by it.

    Args:
        name: auto, on or off.
        device: Where the run computes.
        expected_seconds: The seconds that the run is expected to take.
    """
    if name != "auto":
        return name == "on"
    if kind_of(device).compiles:
        return True
    long_enough = expected_seconds > COMPILE_PAYS_AFTER
    return device.type == "cpu" and long_enough and has_compiler()


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which torch.compile needs for a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


def set_threads(requested: int, world: World) -> int:
    """Give torch a number of threads; 0 means this process's share of the cores it may use.

    Returns:
        The number of threads that torch now has.
    """
    if requested == 0:
        requested = max(1, usable_cores() // world.local_size)
    torch.set_num_threads(requested)
    return requested


def warning_about_cpu(threads: int, processes: int = 1) -> str | None:
    """Return a warning if each thread can't have a free core, or else None.

    Args:
        threads: The threads of a process.
        processes: The processes on this machine.
    """
    cores, usable, wanted = os.cpu_count() or 1, usable_cores(), threads * processes
    if wanted > usable:
        each = usable // processes
        remedy = f"Give --train.threads {each}" if each else f"Start at most {usable} processes"
        return (
            f"{wanted} threads on {usable} of {cores} cores, which is all that this process may "
            f"use: expect it to be up to ten times slower. {remedy}"
        )
    busy = _busy_cores()
    if busy is not None and wanted > 1 and cores - busy < 0.75 * wanted:
        fewer = min(max(1, round(cores - busy) // processes), threads - 1)
        remedy = f", or give --train.threads {fewer}" if fewer else ""
        return (
            f"other programs keep {busy:.1f} of {cores} cores busy: {wanted} threads would wait "
            f"for each other, up to ten times slower. Wait for them{remedy}"
        )
    return None


def keep_freed_memory() -> None:
    """Keep freed memory in the process, for tensors of up to 32 MB.

    Otherwise glibc returns the memory to the system after a training step, and the next step pays
    for every page again. With another C library nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        allocator.mallopt(MMAP_THRESHOLD, LARGEST_ON_THE_HEAP)
        allocator.mallopt(TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Return freed memory to the system, so that a measurement of memory doesn't count it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _busy_cores(seconds: float = 0.1) -> float | None:
    """The cores that others keep busy while this process sleeps; None where /proc doesn't say."""
    if not CPU_TIMES.is_file():
        return None
    before = _cpu_times()
    time.sleep(seconds)
    idle, whole = (now - then for now, then in zip(_cpu_times(), before, strict=True))
    return (os.cpu_count() or 1) * (1.0 - idle / whole) if whole else None


def _cpu_times() -> tuple[int, int]:
    """Idle clock ticks and all clock ticks of all cores since the machine started, by proc(5)."""
    # user nice system idle iowait ...
    ticks = [int(number) for number in CPU_TIMES.read_text("ascii").split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def prepare(device: torch.device, threads: int, processes: int) -> None:
    """Set a device up for training: repeatable results, reused memory, a warning for a busy CPU.

    Args:
        device: Where the run computes.
        threads: The number of threads of a process.
        processes: The number of the run's processes on this machine.
    """
    make_deterministic(device)
    if device.type == "cpu":
        keep_freed_memory()
        if warning := warning_about_cpu(threads, processes):
            logger.warning(warning)


def make_deterministic(device: torch.device) -> None:
    """Make training on a CPU repeatable bit for bit; on a GPU torch's mode for it is off.

    Otherwise threads of the compiled embedding's backward pass would race. On a GPU of CUDA the
    mode would refuse products.
    """
    torch.use_deterministic_algorithms(device.type == "cpu")
    # Otherwise every empty tensor is filled with NaN first.
    deterministic = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # pyright: ignore
