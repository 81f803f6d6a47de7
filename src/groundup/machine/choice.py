"""Which device computes: the one that is named, or the first that computes rightly."""

import functools
import logging
import shutil

import torch

from groundup.errors import MachineError
from groundup.machine.kinds import KINDS, module_of
from groundup.machine.memory import is_out_of_memory
from groundup.parallel.world import World

logger = logging.getLogger(__name__)

ALONE = World()


def choose_device(name: str, world: World = ALONE, flag: str = "--device") -> torch.device:
    """Choose where to compute: `auto` takes the first of cuda, mps and cpu that computes rightly.

    Several processes take a GPU each, or all the CPU. A GPU that is chosen becomes torch's current
    one before anything else is done with it, because what is done before that takes memory of the
    first GPU.

    Args:
        name: auto, cpu, cuda, cuda:N or mps.
        world: The processes that share the run.
        flag: The flag by which a user names the device.

    Raises:
        MachineError: The device that is named isn't here, computes wrongly, or isn't one that
            several processes can share; or there are fewer GPUs than processes.
    """
    if world.size > 1:
        name = _shared_kind(name, world)
    gpus = [name for name, kind in KINDS.items() if kind.is_gpu]
    for candidate in gpus if name == "auto" else [] if name == "cpu" else [name]:
        own = f"{candidate}:{world.local_rank}" if candidate in gpus else candidate
        problem = _problem_with(own)
        if problem is None:
            _compare_cards(own, world)
            return torch.device(own)
        if name != "auto":
            raise MachineError(
                f"device {name} can't be used: {problem}. Choose auto, cpu, cuda, cuda:N or mps, "
                f"as with {flag} cpu"
            )
        if is_there(candidate) or (candidate == "cuda" and shutil.which("nvidia-smi")):
            _warn_once(f"the CPU computes, because {problem}")
    return torch.device("cpu")


@functools.cache
def _warn_once(text: str) -> None:
    """Log a warning, though devices are chosen more than once in a process."""
    logger.warning(text)


def _shared_kind(name: str, world: World) -> str:
    """The kind of device that each of several processes takes: one of GPUs, or cpu.

    Raises:
        MachineError: The device that is named is a single one, or there are too few GPUs.
    """
    shared = [each for each, kind in KINDS.items() if kind.is_gpu and kind.meets_by]
    if name not in ("auto", "cpu", *shared):
        raise MachineError(
            f"device {name} can't be shared by {world.size} processes: each takes the GPU of its "
            "own number, or all take the CPU. Choose auto, cuda or cpu"
        )
    kind = next((kind for kind in shared if name in ("auto", kind) and is_there(kind)), None)
    if kind is None:
        return "cpu" if name == "auto" else name
    gpus = module_of(kind).device_count()
    if world.local_size > gpus:
        raise MachineError(
            f"{world.local_size} processes on a machine with {gpus} of the GPUs that each needs "
            f"for itself: start {gpus} (--nproc-per-node {gpus}), or choose --train.device cpu"
        )
    return kind


def is_there(kind: str) -> bool:
    """Return whether torch finds a device of a kind: cuda, mps or cpu."""
    return module_of(kind).is_available()


def _compare_cards(name: str, world: World) -> None:
    """Say so if a machine has several GPUs of other names than the one that is taken."""
    kind, _, taken = name.partition(":")
    if not KINDS[kind].has_many:
        return
    module = module_of(kind)
    names = [module.get_device_name(number) for number in range(module.device_count())]
    if len(set(names)) == 1:
        return
    listed = ", ".join(f"{kind}:{number} is {each}" for number, each in enumerate(names))
    if world.size > 1:
        _warn_once(f"the GPUs differ ({listed}): each step takes as long as the slowest one")
    else:
        _warn_once(f"{kind}:{taken or 0} computes ({listed}): name another one as the device")


def _problem_with(name: str) -> str | None:
    """Why a device can't be trusted: it is absent, fails, or computes otherwise than a CPU."""
    try:
        device = torch.device(name)
        if device.type not in KINDS:
            return "groundup doesn't know it"
        if not is_there(device.type):
            return _reason_for_absence(device.type)
        count = module_of(device).device_count()
        if device.index is not None and device.index >= count:
            return f"this machine has {count} of its kind, and they are counted from 0"
        if KINDS[device.type].has_many:
            module_of(device).set_device(device)
        square = torch.linspace(-1, 1, 64 * 64).view(64, 64)
        there = square.to(device)
        if not torch.allclose((there @ there).cpu(), square @ square, atol=1e-3):
            return "its matrix product differs from the CPU's"
    except RuntimeError as error:
        if is_out_of_memory(error):
            return "other processes fill its memory (nvidia-smi lists them)"
        if "no kernel image" in str(error):
            return f"PyTorch {torch.__version__} has no kernels for it (docs/gpu.md)"
        return str(error).splitlines()[0][:200]
    return None


def _reason_for_absence(kind: str) -> str:
    """Why torch finds no device of a kind, with what can be done about it."""
    absent = f"this machine has no {kind}"
    if kind != "cuda":
        return absent
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"{absent} that this PyTorch ({torch.__version__}) could use, because it was built for "
            "CPUs alone: docs/gpu.md says how to install another"
        )
    try:
        torch.cuda.init()
    except RuntimeError as error:  # no driver, one too old, no card
        return f"{absent} that works: {str(error).splitlines()[0]}"
    return absent
