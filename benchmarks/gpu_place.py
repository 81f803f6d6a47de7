"""Where a stage of gpu.py runs: its device, its folder, its time, and the sizes of what it does.

With --toy the sizes are tiny, and the device is the CPU or the device for tests, which behaves as a
GPU does (tests/gpu/testgpu.py).
"""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundup.data.dataset import Dataset
from groundup.errors import MachineError
from groundup.machine.choice import choose_device
from groundup.machine.kinds import kind_of
from groundup.profiling import operations
from groundup.profiling.synthetic import synthetic_dataset
from groundup.recipes.files import load_recipe, packaged
from groundup.recipes.schema import Recipe

TESTS_DEVICE, ITS_FOLDER = "testgpu", Path(__file__).parents[1] / "tests" / "gpu"
# The stages that --toy runs on the CPU: of the others the device itself is what is tried.
ON_THE_CPU = {"throughput", "kernels", "recipe"}


@dataclass(frozen=True)
class Sizes:
    """How large a stage is made.

    Attributes:
        compile: train.compile of what is trained.
        copied: The bytes of the copy that measures the bandwidth.
        small: The model of the stages that compare or count, as fields of a recipe's section.
        small_batch, small_vocabulary: The sequences of its step, and its vocabulary.
        large: What is changed in the model of gpt2-124m and gpt2-124m-classic.
        large_batch, large_vocabulary: The sequences that a forward pass begins with, and the
            vocabulary; 0 takes what the recipe states.
        seconds_of_steps: About how long steps are measured.
        prompt, written: The tokens that decoding reads and writes.
        resumed: The steps of the run that is killed, and those between its checkpoints.
        characters: The length of the text that the run learns.
    """

    compile: str
    copied: int
    small: dict[str, Any]
    small_batch: int
    small_vocabulary: int
    large: dict[str, Any]
    large_batch: int
    large_vocabulary: int
    seconds_of_steps: float
    prompt: int
    written: int
    resumed: tuple[int, int]
    characters: int


FULL = Sizes(
    compile="auto",
    copied=2**30,
    small={"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256},
    small_batch=8,
    small_vocabulary=512,  # above the width, so that the chunked loss is taken
    large={},
    large_batch=0,
    large_vocabulary=0,
    seconds_of_steps=8.0,
    prompt=64,
    written=256,
    resumed=(240, 60),
    characters=400_000,
)
TOY = Sizes(
    compile="off",
    copied=2**20,
    small={"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16},
    small_batch=4,
    small_vocabulary=64,
    large={"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32},
    large_batch=4,
    large_vocabulary=128,
    seconds_of_steps=0.1,
    prompt=16,
    written=8,
    resumed=(6, 2),
    characters=4000,
)


@dataclass(frozen=True)
class Place:
    """Where a stage runs.

    Attributes:
        device: The device that is measured.
        folder: A folder for what the stage writes.
        ends: When the stage is killed, by the monotonic clock.
        sizes: How large the stage is made.
    """

    device: torch.device
    folder: Path
    ends: float
    sizes: Sizes

    @property
    def is_toy(self) -> bool:
        return self.sizes is TOY

    def left(self) -> float:
        """Return the seconds that the stage still has."""
        return self.ends - time.monotonic()

    def small(self, architecture: str, optimizer: str, **train: Any) -> tuple[Recipe, Dataset]:
        """Return a recipe whose step is one batch of a small model, and random tokens for it."""
        plain, sizes = Recipe().with_steps(100), self.sizes
        recipe = replace(
            plain,
            model=replace(plain.model, architecture=architecture, **sizes.small),
            optim=replace(plain.optim, optimizer=optimizer, schedule="constant", warmup_steps=0),
            train=self._train(plain, batch_size=sizes.small_batch, **train),
        )
        return recipe, synthetic_dataset(recipe, sizes.small_vocabulary)

    def large(self, name: str) -> tuple[Recipe, Dataset]:
        """Return a packaged recipe of GPT-2's size, and random tokens for it."""
        recipe, sizes = load_recipe(packaged(name)), self.sizes
        rows = sizes.large_batch or recipe.train.micro_batch_size
        recipe = replace(
            recipe,
            model=replace(recipe.model, **sizes.large),
            train=self._train(recipe, micro_batch_size=rows, compile=sizes.compile),
        )
        return recipe, synthetic_dataset(recipe, sizes.large_vocabulary)

    def _train(self, recipe: Recipe, **changes: Any) -> Any:
        """A recipe's section `train` for this device. A toy takes one thread, as tests do."""
        threads = 1 if self.is_toy else 0
        return replace(recipe.train, device=str(self.device), threads=threads, **changes)


def place_of(stage: str, folder: Path, ends: float, toy: bool) -> Place:
    """Choose the device of a stage, which is a GPU without --toy. It `ends` by the monotonic clock.

    Raises:
        MachineError: There is no GPU that computes.
    """
    if toy:
        operations.PEAK_SIZE = operations.GPU_PEAK_SIZE = 64
        tests_device()
        name = "cpu" if stage in ON_THE_CPU else TESTS_DEVICE
        return Place(choose_device(name), folder, ends, TOY)
    device = choose_device("auto")
    if not kind_of(device).is_gpu:
        choose_device("cuda")  # says what is wrong with it
        raise MachineError("this machine has no GPU; --toy tries the script without one")
    return Place(device, folder, ends, FULL)


def tests_device() -> Any:
    """Make the device for tests known, once, and return its module."""
    if str(ITS_FOLDER) not in sys.path:
        sys.path.insert(0, str(ITS_FOLDER))
    import testgpu  # pyright: ignore[reportMissingImports]

    if not testgpu.registered:
        testgpu.register()
    return testgpu
