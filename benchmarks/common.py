"""What the benchmarks share: the machine in words, and the line that a script ends with."""

import json
import os
import platform
from pathlib import Path

import torch

from groundup.recipes.files import load_recipe, packaged, parse_toml
from groundup.recipes.schema import Recipe, field_types


def machine() -> str:
    """The machine in words: processor, cores that this process may use, torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores, torch {torch.__version__}"


def processor() -> str:
    """The GPU's name where torch sees one, else the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or 'unknown'} ({platform.machine()})"


def recipe_with(name: str, flags: list[str]) -> Recipe:
    """A packaged recipe with flags of `groundup train` over it: `--section.field value`, each by
    its whole name.
    """
    lines = []
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        section, _, key = flag.removeprefix("--").replace("-", "_").partition(".")
        kind = field_types(section)[key][0]
        lines.append(f"{section}.{key} = {value if kind in (int, float) else json.dumps(value)}")
    return load_recipe(packaged(name), parse_toml("\n".join(lines), "the command line"))


def result_line(claim: str, *, ours: float, peer: float, ratio: float, unit: str) -> str:
    """The last line of every benchmark. ratio: at least 1 where the claim holds."""
    result = {
        "claim": claim,
        "ratio": ratio,
        "ours": ours,
        "peer": peer,
        "unit": unit,
        "machine": machine(),
    }
    return json.dumps(result)
