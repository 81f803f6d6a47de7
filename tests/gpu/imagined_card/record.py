"""Trains some steps on the imagined card and writes down what they do, as JSON.

`remake_card.py` runs this file, in an environment with a torch for CUDA, the card preloaded.
"""

import argparse
import gc
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from imagined_card.attention import attention_kernels
from imagined_card.imagined import CARD, GRAPHS, Card, imagined_card
from imagined_card.sources import ATTENTION, RECORDER, WHAT, digest, digest_of_recipe, recipe_of
from imagined_card.watch import Watch, tensors_of

import groundup
from groundup.profiling.synthetic import synthetic_dataset
from groundup.training import objective
from groundup.training.session import Session
from groundup.training.setup import build_trainer
from groundup.training.trainer import Trainer

SOURCE = Path(groundup.__file__).parent
STEPS = 4
# What decides what a step does on a card, of all files that are entered: rooms, and single files.
DECIDING = (
    *("models/", "optim/", "parallel/", "data/loader.py", "machine/device.py", "machine/kinds.py"),
    *("training/objective.py", "training/setup.py", "training/trainer.py"),
)


@contextmanager
def entered() -> Iterator[set[str]]:
    """Collect the files of groundup, as `models/gpt2.py`, that are entered in the body."""
    names: set[str] = set()

    def note(frame: Any, event: str, _argument: Any) -> None:
        if event == "call":
            names.add(frame.f_code.co_filename)

    files: set[str] = set()
    threading.setprofile(note)  # the thread that prepares batches
    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        paths = [Path(name) for name in names if name.startswith(str(SOURCE))]
        files |= {path.relative_to(SOURCE).as_posix() for path in paths}


def digests(files: set[str]) -> dict[str, str]:
    """The hashes of those files that decide what a step does."""
    return {name: digest(SOURCE / name) for name in sorted(files) if name.startswith(DECIDING)}


def trainer_of(name: str, compiled: str) -> Trainer:
    """A trainer by groundup's own way from a recipe to one, on random tokens."""
    recipe = recipe_of(name, compiled)
    trainer = build_trainer(recipe, synthetic_dataset(recipe, 0), Session())
    assert (trainer.machine.device.type, trainer.machine.precision) == (CARD.type, "bfloat16")
    assert trainer.recipe.train.compile == compiled, "the compiler failed"
    return trainer


def addresses(tensors: Any) -> list[int]:
    """What stands for the addresses of tensors: which memory each of them has."""
    return [each.untyped_storage()._cdata for each in tensors_of(tensors)]


def states(trainer: Trainer) -> list[Any]:
    """The tensors of all optimizers' states."""
    return [list(state.values()) for each in trainer.optimizers for state in each.state.values()]


def waits_of_step(trainer: Trainer, card: Card, step: int) -> list[str]:
    """Do a step and return what the processor waited for."""
    card.waits.clear()
    trainer.train_step(step)
    return list(card.waits)


def eager(name: str) -> dict[str, Any]:
    """Train without the compiler, and record the second step, for which all memory was taken."""
    with imagined_card() as card, Watch() as watch:
        with entered() as files:
            trainer = trainer_of(name, "off")
            parameters = addresses(list(trainer.model.parameters()))
            waits = [waits_of_step(trainer, card, 0)]
        gc.collect()
        between, state = watch.now, addresses(states(trainer))
        watch.forget()
        waits.append(waits_of_step(trainer, card, 1))
        operations, peak = dict(watch.operations), watch.peak
        waits += [waits_of_step(trainer, card, step) for step in range(2, STEPS)]
        gc.collect()
        facts = {
            "parameters": sum(each.numel() for each in trainer.model.parameters()),
            "bytes_between_steps": between,
            "bytes_between_later_steps": watch.now,
            "peak_bytes_of_a_step": peak,
            "parameters_stay": parameters == addresses(list(trainer.model.parameters())),
            "optimizer_states_stay": state == addresses(states(trainer)),
            "waits_of_steps": waits,
        }
    rows = [[*operation, count] for operation, count in sorted(operations.items())]
    return {**facts, "sources": digests(files), "operations": rows}


def compiled(name: str) -> dict[str, Any]:
    """Train with the compiler, and record what it was given and whether it had to start again."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    GRAPHS.clear()
    with imagined_card() as card:
        trainer = trainer_of(name, "on")
        first = len(GRAPHS)
        waits = [waits_of_step(trainer, card, step) for step in range(STEPS)]
    return {
        "graphs": len(GRAPHS),
        "nodes": list(GRAPHS),
        "compiled_again": len(GRAPHS) - first,
        "graph_breaks": dict(counters["graph_break"]),
        "frames": dict(counters["frames"]),
        "waits_of_steps": waits,
    }


def attention() -> dict[str, Any]:
    """Record which kernel computes attention, for each way in which groundup asks for it."""
    with imagined_card(), entered() as files:
        kernels = attention_kernels()
    return {"kernels": kernels, "sources": digests(files)}


def model(name: str) -> dict[str, Any]:
    """Record training steps of a model: without the compiler, and with it in two ways."""
    found = {"recipe": digest_of_recipe(name), **eager(name)}
    found["compiled_by_blocks"] = compiled(name)
    with patch.object(objective, "compiled_parts", lambda _model: []):
        found["compiled_whole"] = compiled(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the golden to make")
    name = parser.parse_args().name
    found: dict[str, Any] = {"what": WHAT, "torch": torch.__version__}
    found["card"] = str(torch.cuda.get_device_properties(0))
    found["recorder"] = {path.name: digest(path) for path in RECORDER}
    found |= attention() if name == ATTENTION else model(name)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
