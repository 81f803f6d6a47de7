"""Counts memory: torch's own count where it has one, else the resident memory of the process."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from groundup.machine.kinds import KINDS, kind_of, module_of, wait_for

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# what errors of no class of their own say
FULL = "can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"
UNIFIED, LIMIT = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")


def forget_peak(device: torch.device) -> None:
    """Begin a new measurement of the largest memory in use, which `peak` returns.

    On a CPU without Linux's /proc nothing changes.
    """
    if kind_of(device).counts_memory:
        module_of(device).reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            CLEAR.write_text("5", "ascii")  # proc(5): resets the high water mark


def peak(device: torch.device) -> int:
    """Return the largest number of bytes in use at once since `forget_peak` was called."""
    if kind_of(device).counts_memory:
        wait_for(device)
        return module_of(device).max_memory_allocated(device)
    with suppress(OSError, StopIteration):  # no /proc, or a sandbox that shows less of it
        return _kibibytes(STATUS, "VmHWM")
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def available(device: torch.device) -> int:
    """Return the bytes that this process could have in all: those that it holds and free ones."""
    if kind_of(device).counts_memory:
        free, _ = module_of(device).mem_get_info(device)
        return free + module_of(device).memory_reserved(device)
    if not UNIFIED.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    whole = _kibibytes(UNIFIED, "MemAvailable") + _kibibytes(STATUS, "VmRSS")
    limit = LIMIT.read_text("ascii").strip() if LIMIT.exists() else "max"
    return whole if limit == "max" else min(whole, int(limit))


def held_by_others() -> tuple[int, int] | None:
    """Return the bytes of this process's GPU that others hold, and all its bytes.

    None where no GPU is in use whose memory torch counts. What the driver needs counts as held.
    """
    for name, kind in KINDS.items():
        module = module_of(name)
        if kind.counts_memory and module.is_available() and module.is_initialized():
            free, everything = module.mem_get_info()
            return max(0, everything - free - module.memory_reserved()), everything
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on a GPU or a CPU."""
    is_one = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_one or any(words in str(error) for words in FULL)


def _kibibytes(file: Path, key: str) -> int:
    """The bytes that a line `key:   123 kB` states."""
    line = next(line for line in file.read_text("utf-8").splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])
