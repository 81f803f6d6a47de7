"""Claim: GPT-2 trains faster on a GPU than Hugging Face's, compiled; and what else the GPU does.

    python benchmarks/gpu.py [--only STAGE ...] [--minutes 9] [--toy]

Each stage is a process of its own, because an error of CUDA is the end of its process, and prints
one line of JSON. A stage that fails, or that takes longer than its share of the minutes, has the
reason as `error` in its line beside what it had found by then; the others go on, and the exit
status is 1. The last line has our tokens/s beside Hugging Face's. The stages:

    environment  the card, its driver and memory, its matmul peaks and bandwidth
    equality     one step on the GPU against the CPU's in float64
    waits        a step may wait for the GPU once; how often it does
    resume       a run that is killed and resumed against an unbroken one, and two unbroken ones
    throughput   training at 124M parameters: ours, and Hugging Face's where transformers is
    decoding     a text at 124M parameters
    save         how long a checkpoint at 124M parameters stops training
    kernels      the longest kernels of a step at 124M parameters
    recipe       shakespeare-gpu for the time that is left: its loss against seconds

--toy runs the whole script in small, on the CPU and on the device for tests: its numbers mean
nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# The seconds of each stage's share of nine minutes. What one leaves is shared by those after it.
SHARES = {
    "environment": 30,
    "equality": 40,
    "waits": 60,
    "resume": 90,
    "throughput": 150,
    "decoding": 25,
    "save": 20,
    "kernels": 45,
    "recipe": 80,
}
# What only a card has. Nothing else that a stage prints may be null.
OF_CARDS_ALONE = ("driver", "cuda")
LINES_OF_A_FAILURE = 15
HAS_GPU = "import torch; raise SystemExit(not torch.cuda.is_available())"
CLAIM = "GPT-2 (124M) trains faster on a GPU than a compiled GPT2LMHeadModel"


def command(stage: str, folder: Path, ends: float, toy: bool) -> list[str]:
    """The command of a stage's process, which is killed when the monotonic clock says `ends`."""
    script = str(Path(__file__).with_name("gpu_stages.py"))
    words = [stage, "--folder", str(folder), "--ends", str(ends), *["--toy"] * toy]
    return [sys.executable, script, *words]


def run_stage(stage: str, folder: Path, seconds: float, toy: bool) -> dict[str, Any]:
    """Run a stage, and return its line: what it found, and the reason if it failed."""
    started, (out, err) = time.monotonic(), (folder / "stdout", folder / "stderr")
    with out.open("w") as stdout, err.open("w") as stderr:
        words = command(stage, folder, started + seconds, toy)
        process = subprocess.Popen(
            words, cwd=folder, stdout=stdout, stderr=stderr, start_new_session=True
        )
    problem = ""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        problem = f"killed after {seconds:.0f} s, its share of the time"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        status = process.wait()
    found: dict[str, Any] = {}
    for line in out.read_text("utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            found |= json.loads(line)
    said = err.read_text("utf-8", errors="replace").splitlines()
    if status and "error" not in found:
        last = f": {said[-1].strip()}" if said else ""
        found["error"] = problem or f"ended with status {status}{last}"[:500]
    if "error" in found:
        print("\n".join([f"{stage}:", *said[-LINES_OF_A_FAILURE:]]), file=sys.stderr, flush=True)
    return {"stage": stage, "seconds": round(time.monotonic() - started, 1), **found}


def machine(environment: dict[str, Any]) -> str:
    """The machine in words, by the stage that has looked at it."""
    peaks = environment.get("peaks_gflops", {})
    measured = ", ".join(f"{name} {peak:,.0f}" for name, peak in peaks.items()) or "not measured"
    card, torch = environment.get("card", "unknown"), environment.get("torch", "unknown")
    return f"{card}, torch {torch}, peaks {measured} GFLOP/s"


def summary(lines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The last line, as every benchmark has it. What couldn't be measured is null."""

    def speed(whose: str) -> float | None:
        figures = lines.get("throughput", {}).get(whose)
        return figures["tokens_per_second"] if isinstance(figures, dict) else None

    ours, peer = speed("gpt2-124m-classic"), speed("peer")
    ratio = ours / peer if ours and peer else None
    figures = {"claim": CLAIM, "ratio": ratio, "ours": ours, "peer": peer, "unit": "tokens/s"}
    return figures | {"machine": machine(lines.get("environment", {}))}


def chosen(words: list[str] | None) -> argparse.Namespace:
    """Read the command line. A stage that doesn't exist ends the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="STAGE", action="extend")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--toy", action="store_true", help="everything in small, without a GPU")
    given = parser.parse_args(words)
    given.only = given.only or list(SHARES)
    if not 0.1 <= given.minutes <= 600:  # not NaN either
        print(f"gpu.py: --minutes {given.minutes:g} must be from 0.1 to 600", file=sys.stderr)
        raise SystemExit(2)
    if unknown := [stage for stage in given.only if stage not in SHARES]:
        names = ", ".join(SHARES)
        print(f"gpu.py: there is no stage {unknown[0]}. Choose from {names}", file=sys.stderr)
        raise SystemExit(2)
    return given


def main(words: list[str] | None = None) -> None:
    """Run the stages, one after the other."""
    given = chosen(words)
    if not given.toy and subprocess.run([sys.executable, "-c", HAS_GPU], check=False).returncode:
        problem = "PyTorch finds no GPU of CUDA here: docs/gpu.md says what it needs"
        print(f"gpu.py: {problem}. --toy runs everything in small without one", file=sys.stderr)
        raise SystemExit(2)
    ends = time.monotonic() + 60 * given.minutes
    waiting = [stage for stage in SHARES if stage in given.only]
    lines: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="groundup-gpu-") as folder:
        while waiting:
            left, shares = ends - time.monotonic(), sum(SHARES[stage] for stage in waiting)
            stage = waiting.pop(0)
            own = Path(folder) / stage
            own.mkdir()
            lines[stage] = run_stage(stage, own, max(1.0, left * SHARES[stage] / shares), given.toy)
            print(json.dumps(lines[stage]), flush=True)
    print(json.dumps(summary(lines) | ({"toy": True} if given.toy else {})))
    raise SystemExit(any("error" in line for line in lines.values()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no stage lives on
    main()
