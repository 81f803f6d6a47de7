"""Runs on a device that behaves as a GPU does: the CPU's weights, and one wait in each step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from testgpu import NAME, counted, register

from commands import checkpoint, flags, groundup, tensors, write_text

GPU = {"--train.device": NAME}
CPU = {"--train.device": "cpu"}
MODERN = {"--model.architecture": "modern", "--model.n-kv-head": "1"}
MUON = {"--optim.optimizer": "muon"}
# The vocabulary is no larger than the width, so that both devices compute the loss in one way.
FOUR_STEPS = {"--steps": 4, "--train.micro-batch-size": 2, "--model.n-embd": 64}
FOUR_STEPS |= {"--eval.sample-length": 5, "--optim.learning-rate": 1e-4}


def count_waits_of_steps() -> None:
    """Register the device, and write what each training step waits for into `waits.json`."""
    register()
    torch.backends.cuda.enable_flash_sdp(False)  # the device has the plain formula alone
    from groundup.training.trainer import Trainer

    found: list[dict[str, int]] = []
    step = Trainer.train_step

    def train_step(self: Trainer, *args: Any) -> Any:
        with counted() as waits:
            record = step(self, *args)
        found.append(dict(waits))
        Path("waits.json").write_text(json.dumps(found), "utf-8")
        return record

    Trainer.train_step = train_step


def train_on(device: dict[str, str], name: str, folder: Path, recipe: dict[str, Any]) -> Path:
    """Train for four steps of two micro-steps, and return the run."""
    given = flags({**FOUR_STEPS, **recipe, **device})
    finished = groundup(
        *("train", *given, "--name", name), folder=folder, before=count_waits_of_steps
    )
    assert finished.returncode == 0, finished.stderr
    return folder / "runs" / name


# name: the recipe, and how far its weights may be from the CPU's
RECIPES: dict[str, tuple[dict[str, object], float]] = {
    "gpt2": ({"--model.dropout": 0.1}, 0.0),
    "readable": ({"--model.architecture": "readable", **MUON}, 0.0),
    "bigram": ({"--model.architecture": "bigram"}, 0.0),
    "modern": (MODERN | MUON, 1e-6),  # the CPU has an RMSNorm of its own
    "a vocabulary larger than the width": ({"--model.n-embd": 16}, 1e-5),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_are_the_cpus_and_a_step_waits_once(name: str, tmp_path: Path) -> None:
    recipe, apart = RECIPES[name]
    write_text(tmp_path)
    there = train_on(GPU, "there", tmp_path, recipe)
    waits = json.loads((tmp_path / "waits.json").read_text("utf-8"))
    here = train_on(CPU, "here", tmp_path, recipe)
    found, expected = (tensors(checkpoint(run, 4) / "model.safetensors") for run in (there, here))
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=apart)
    assert waits == [{"copy to the CPU": 1}] * 4
