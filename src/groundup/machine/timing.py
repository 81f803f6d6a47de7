"""How long work on a device takes."""

import time
from collections.abc import Callable

import torch

from groundup.machine.kinds import wait_for


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Do some work, and return the seconds until it is done, on the device too."""
    started = now(device)
    work()
    return now(device) - started


def now(device: torch.device) -> float:
    """Read a monotonic clock in seconds, once a device has done all its work."""
    wait_for(device)
    return time.perf_counter()
