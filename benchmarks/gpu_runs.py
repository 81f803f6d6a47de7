"""The stages of gpu.py that are runs of the command line: one killed and resumed, and a recipe."""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from gpu_checks import Failed
from gpu_place import ITS_FOLDER, TESTS_DEVICE, Place
from groundup.checkpoints.lifecycle import step_folder
from groundup.verification.differences import Tensors, count_unequal, relative_of_norms

WEIGHTS, SHARE_OF_TRAINING, RESERVE = "model.safetensors", 0.6, 4.0
WITH_TESTS_DEVICE = (
    f"import sys; sys.path.insert(0, {str(ITS_FOLDER)!r}); import testgpu; testgpu.register(); "
    "from groundup.profiling import operations; operations.GPU_PEAK_SIZE = 64; "
    "sys.argv[0] = 'groundup'; from groundup.cli.main import main; main()"
)


def groundup(place: Place, *words: object) -> subprocess.Popen[bytes]:
    """Start `groundup WORDS...` in the stage's folder, on the device for tests where it is that."""
    module = ["-c", WITH_TESTS_DEVICE] if place.device.type == TESTS_DEVICE else ["-m", "groundup"]
    command = [sys.executable, *module, *map(str, words)]
    return subprocess.Popen(command, cwd=place.folder, stdout=sys.stderr)


def run(place: Place, *words: object) -> None:
    """Run `groundup WORDS...` to its end.

    Raises:
        Failed: The command failed.
    """
    process = groundup(place, *words)
    if process.wait(max(1.0, place.left())):
        raise Failed(f"{' '.join(map(str, words[-2:]))} ended with status {process.returncode}")


def write_text(place: Place) -> Path:
    """Write a text of invented words, and return its path."""
    generator = random.Random(1)
    words = ["".join(generator.choices("etaoinshrdlu", k=1 + n % 7)) for n in range(400)]
    path = place.folder / "text.txt"
    path.write_text(" ".join(generator.choices(words, k=place.sizes.characters // 5)), "utf-8")
    return path


def resume(place: Place) -> Iterator[dict[str, Any]]:
    """Train a run twice unbroken, and once killed and resumed, and compare the last weights.

    Raises:
        Failed: A run failed, or was over before it could be killed.
    """
    steps, every = place.sizes.resumed
    shape = {f"--model.{name.replace('_', '-')}": one for name, one in place.sizes.small.items()}
    given: dict[str, Any] = {
        **shape,
        **{"--model.architecture": "gpt2", "--model.dropout": 0.1, "--corpus": write_text(place)},
        **{"--train.batch-size": place.sizes.small_batch, "--train.device": place.device},
        **{"--steps": steps, "--eval.every": every, "--eval.sample-length": 0},
        **{"--eval.tokens": 256, "--eval.train-tokens": 0, "--train.compile": "off"},
        **{"--optim.optimizer": "muon", "--train.threads": int(place.is_toy)},
    }
    words = [word for pair in given.items() for word in pair]
    runs = place.folder / "runs"
    yield {"steps": steps, "compiled": False}
    for name in ("first", "second"):
        run(place, "train", *words, "--name", name)
    first = last_weights(runs / "first", steps)
    yield {"unbroken_twice": difference(last_weights(runs / "second", steps), first)}
    broken = groundup(place, "train", *words, "--name", "broken")
    yield {"killed_after": kill_after(broken, runs / "broken", every + every // 2, steps)}
    run(place, "train", "--resume", "broken")
    yield {"resumed": difference(last_weights(runs / "broken", steps), first)}


def last_weights(run: Path, steps: int) -> Tensors:
    """Read the weights that a run of so many steps ended with."""
    return load_file(step_folder(run / "checkpoints", steps) / WEIGHTS)


def difference(found: Tensors, expected: Tensors) -> dict[str, Any]:
    """Say whether two runs ended with the same bits, and how far their weights are apart."""
    differing = count_unequal(found, expected)
    return {
        "bit_equal": differing == 0,
        "tensors_that_differ": differing,
        "of": len(expected),
        "apart": relative_of_norms(found, expected),
    }


def kill_after(process: subprocess.Popen[bytes], run: Path, step: int, steps: int) -> int:
    """Kill a run once it has logged so many steps, and return how many it had logged.

    Raises:
        Failed: The run was over by then.
    """
    while len(metrics(run, "step")) < step and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    if step <= (done := len(metrics(run, "step"))) < steps:
        return done
    raise Failed(f"the run ended after {done} of {steps} steps, before it could be killed")


def metrics(run: Path, kind: str) -> list[dict[str, Any]]:
    """The whole lines of one kind in a run's metrics.jsonl; none before there is one."""
    file = run / "metrics.jsonl"
    lines = file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def recipe(place: Place) -> Iterator[dict[str, Any]]:
    """Train shakespeare-gpu for most of the time that is left, and report its losses on the way.

    Raises:
        Failed: The command failed.
    """
    minutes = 0.05 if place.is_toy else SHARE_OF_TRAINING * place.left() / 60
    words: list[object] = ["--train.minutes", f"{minutes:.4f}", "--train.device", place.device]
    if place.is_toy:
        words += ["--corpus", write_text(place), "--model.n-layer", 1, "--model.n-embd", 48]
        words += ["--model.block-size", 16, "--train.batch-size", 4, "--train.compile", "off"]
        words += ["--train.threads", 1, "--eval.tokens", 256, "--eval.sample-length", 0]
    process = groundup(place, "train", "shakespeare-gpu", *words, "--name", "recipe")
    folder, late = place.folder / "runs" / "recipe", ""
    try:
        process.wait(max(1.0, place.left() - RESERVE))
    except subprocess.TimeoutExpired:
        process.kill()
        late = ", killed because its time was over"
    losses, trained = metrics(folder, "evaluation"), metrics(folder, "step")
    if trained:
        pairs = [[round(line["seconds"], 3), line["validation_loss"]] for line in losses]
        yield {
            "minutes": minutes,
            "steps": len(trained),
            "tokens_per_second": statistics.median(line["tokens_per_second"] for line in trained),
            "best_loss": min(loss for _, loss in pairs),
            "seconds_and_losses": pairs,
        }
    if process.wait():
        raise Failed(f"shakespeare-gpu ended with status {process.returncode}{late}")
