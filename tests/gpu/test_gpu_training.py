"""Runs on a device that behaves as a GPU does: the CPU's weights, and one wait in each step."""

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from testgpu import NAME, counted, register

from commands import checkpoint, flags, groundup, metrics, tensors, write_text

MODERN: dict[str, object] = {"--model.architecture": "modern", "--model.n-kv-head": "1"}
MUON: dict[str, object] = {"--optim.optimizer": "muon"}
STEPS = 4
RECIPE: dict[str, object] = {
    "--steps": STEPS,
    "--train.micro-batch-size": 2,
    "--model.n-embd": 64,  # no smaller than the vocabulary: both devices compute the loss alike
    "--optim.learning-rate": 1e-4,
    "--eval.sample-length": 5,
}
# name: the recipe, and how far its weights may be from the CPU's
RECIPES: dict[str, tuple[dict[str, object], float]] = {
    "gpt2": ({"--model.dropout": 0.1}, 0.0),
    "readable": ({"--model.architecture": "readable", **MUON}, 0.0),
    "bigram": ({"--model.architecture": "bigram"}, 0.0),
    "modern": (MODERN | MUON, 1e-6),  # the CPU has an RMSNorm of its own
    "a vocabulary larger than the width": ({"--model.n-embd": 16}, 1e-5),
    "bfloat16": ({"--train.precision": "bfloat16"}, 1e-3),
}


def count_waits() -> None:
    """Register the device, and write what steps and measured losses wait for into `waits.json`."""
    register()
    torch.backends.cuda.enable_flash_sdp(False)  # the device has the plain formula alone
    from groundup.training.trainer import Trainer

    found: dict[str, list[dict[str, int]]] = defaultdict(list)

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with counted() as waits:
                result = method(*args, **kwargs)
            found[name].append(dict(waits))
            Path("waits.json").write_text(json.dumps(found), "utf-8")
            return result

        return call

    Trainer.train_step = watched("step", Trainer.train_step)
    Trainer.measure_losses = watched("losses", Trainer.measure_losses)


def train_on(device: str, folder: Path, recipe: dict[str, object]) -> Path:
    """Train on a device, and return the run."""
    given = flags({**RECIPE, **recipe, "--train.device": device})
    finished = groundup(*("train", *given, "--name", device), folder=folder, before=count_waits)
    assert finished.returncode == 0, finished.stderr
    return folder / "runs" / device


@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_are_the_cpus_and_a_step_waits_once(name: str, tmp_path: Path) -> None:
    recipe, apart = RECIPES[name]
    write_text(tmp_path)
    there = train_on(NAME, tmp_path, recipe)
    waits = json.loads((tmp_path / "waits.json").read_text("utf-8"))
    here = train_on("cpu", tmp_path, recipe)
    found, expected = (
        tensors(checkpoint(run, STEPS) / "model.safetensors") for run in (there, here)
    )
    assert found.keys() == expected.keys()  # a tied weight is one parameter
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=apart)
    assert waits["step"] == [{"copy to the CPU": 1}] * STEPS
    # the text for training and the one for validation: each once, however many batches it has
    assert waits["losses"] == [{"copy to the CPU": 2}] * len(metrics(there, "evaluation"))


def test_a_macs_gpu_trains_without_float64(tmp_path: Path) -> None:
    """It casts nothing to float64, on the way to the CPU neither; a text is drawn in float32."""
    write_text(tmp_path)
    words = ("train", *flags({**RECIPE, **MODERN, **MUON, "--train.device": NAME}))
    for command in (words, ("generate", "run", "--length", 5, "--device", NAME)):
        more = ("--name", "run") if command is words else ()
        finished = groundup(*command, *more, folder=tmp_path, before=partial(register, "mps"))
        assert finished.returncode == 0, finished.stderr
    assert len(metrics(tmp_path / "runs" / "run")) == STEPS
