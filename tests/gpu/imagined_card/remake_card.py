"""Make the goldens of the imagined card: `python tests/gpu/imagined_card/remake_card.py FOLDER`.

The folder gets an environment with a torch for CUDA (5 GB, two minutes from a near mirror), which
a second call uses again, and the card, which is compiled each time. No GPU and no driver is needed.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
NAMES = ("attention", "gpt2-124m", "modern-124m")


def requirements() -> list[str]:
    """What is installed: groundup's own requirements, and torch as PyPI has it, for CUDA."""
    pinned = (ROOT / "constraints.txt").read_text("utf-8").split()
    torch = next(line for line in pinned if line.startswith("torch=="))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    others = [each for each in project["dependencies"] if not each.startswith("torch>")]
    return [torch.replace("==", "==="), *others]  # === takes no build for CPUs, 2.13.0+cpu


def environment(folder: Path) -> Path:
    """Make the environment, unless an earlier call has made it, and return its Python."""
    python, made = folder / "venv" / "bin" / "python", folder / "requirements.json"
    wanted = json.dumps(requirements())
    if not (made.is_file() and made.read_text("utf-8") == wanted):
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
        subprocess.run([*install, *requirements()], check=True)
        made.write_text(wanted, "utf-8")
    return python


def card(folder: Path) -> Path:
    """Compile the card. Its name is that of the driver's library, which torch then finds loaded."""
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (runtime,) = packages.glob("nvidia/cu*/include/cuda_runtime_api.h")
    include = [f"-I{runtime.parent}", f"-I{packages}/triton/backends/nvidia/include"]
    library = folder / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, *include, HERE / "card.c", "-o", library], check=True)
    return library


def recorded(name: str, python: Path, library: Path, source: Path) -> dict[str, Any]:
    """What training steps of a model do on the card, with groundup as `source` has it."""
    paths = os.pathsep.join(map(str, (source, HERE.parent)))
    there = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": paths}
    record = [python, "-m", "imagined_card.record", name]
    finished = subprocess.run(record, env=there, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout)


def golden_text(found: dict[str, Any]) -> str:
    """The text of a golden file, with a line for each operation or kernel."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows = [f"{json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()]
        elif name == "operations":
            rows = [json.dumps(row) for row in value]
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
            continue
        start, end = "{}" if isinstance(value, dict) else "[]"
        inner = ",\n".join(f"  {row}" for row in rows)
        lines.append(f" {json.dumps(name)}: {start}\n{inner}\n {end}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environment and the card are made")
    parser.add_argument("--out", type=Path, default=HERE.parent / "golden")
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="another groundup")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    library = card(folder)
    for name in NAMES:
        found = recorded(name, python, library, given.source.resolve())
        file = given.out / f"imagined-card-{name}.json"
        file.write_text(golden_text(found), "utf-8")
        sys.stdout.write(f"wrote {file}\n")


if __name__ == "__main__":
    main()
