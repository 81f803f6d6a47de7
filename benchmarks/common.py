"""What the benchmarks share: the machine in words, and the line that a script ends with.

figures.toml beside it has what README.md says of each kind of CPU.
"""

import argparse
import json
import os
import platform
import tomllib
from pathlib import Path
from typing import Any

import torch

from groundup.profiling.operations import matmul_peak
from groundup.recipes.files import load_recipe, packaged, parse_toml
from groundup.recipes.schema import Recipe, field_types

NEAR = 0.9  # of a figure is as good as the figure: machines are shared


def machine() -> str:
    """The machine in words: processor, cores that this process may use, torch, measured peaks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peaks = {dtype: matmul_peak(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    measured = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {peak / 1e9:,.0f}" for dtype, peak in peaks.items()
    )
    return f"{processor()}, {cores} cores, torch {torch.__version__}, peaks {measured} GFLOP/s"


def figures() -> dict[str, Any] | None:
    """What README.md says of this kind of CPU; None where it says nothing."""
    if torch.cuda.is_available():
        return None
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    stated = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    mine = stated.get("vendor_id"), stated.get("cpu family")
    kinds = tomllib.loads(Path(__file__).with_name("figures.toml").read_text("utf-8"))
    found = (kind for kind in kinds.values() if mine == (kind["vendor"], str(kind["family"])))
    return next(found, None)


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


def quoted(
    script: str, parser: argparse.ArgumentParser, given: argparse.Namespace, free: str = ""
) -> str:
    """`script`, where it measures what README.md quotes: each flag, apart from that of the data
    (`free`), has its default. An empty text otherwise.
    """
    words = vars(given).items()
    same = all(name == free or value == parser.get_default(name) for name, value in words)
    return script if same else ""


def conclude(
    claim: str, *, ours: float, peer: float, ratio: float, unit: str, script: str = ""
) -> None:
    """Print the last line of a benchmark, and exit with 1 where it falls short of README.md.

    Args:
        claim: What the script examines.
        ours: What groundup reached, in `unit`.
        peer: What the peer reached.
        ratio: How many times better ours is.
        unit: The unit of both.
        script: The script's name in figures.toml, where README.md quotes the ratio; see `quoted`.
    """
    kind = figures()
    stated = kind.get(script) if kind else None
    if script and kind is None:
        print("README.md has no figure of this kind of CPU: nothing to compare with")
    if kind and stated is not None:
        print(f"README.md says {stated:g} of {kind['title']}; this is {ratio:.3g}")
    result = {"claim": claim, "ratio": ratio, "ours": ours, "peer": peer, "unit": unit}
    print(json.dumps(result | {"machine": machine()}))
    if stated is not None and ratio < NEAR * stated:
        raise SystemExit(1)
