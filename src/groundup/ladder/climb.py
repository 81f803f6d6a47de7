"""Climbs the ladder: trains all cells in an order that is fair, and keeps those that are done."""

import json
import logging
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from groundup.data.corpora import open_corpora
from groundup.data.dataset import Dataset, make_dataset
from groundup.errors import LadderError
from groundup.ladder.cells import (
    Calibration,
    Cell,
    Rates,
    base_recipe,
    recipe_of,
    train_cell,
)
from groundup.ladder.rungs import RUNGS, Rung
from groundup.machine import device as machines
from groundup.machine.choice import choose_device
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe

SAMPLE = 160  # tokens of the text that each rung writes once
SLOWED = 1.1  # times the usual calibration, from where a cell is trained again
AGAIN = 6  # one in so many cells at most: on a machine that is always slow there'd be no end
CELLS = "cells.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is climbed, and with what.

    Args:
        rungs: The rungs, from below.
        seeds: The seeds from which each is trained.
        budget: The seconds of training of a cell.
        base: What the recipes of all rungs have in common.
        rates: The learning rates of each rung.
        dataset: What all learn from.
        device: Where all compute.
        machine: The machine in words.
    """

    rungs: tuple[Rung, ...]
    seeds: tuple[int, ...]
    budget: float
    base: Recipe
    rates: Rates
    dataset: Dataset
    device: torch.device
    machine: str

    def facts(self) -> dict[str, Any]:
        """Return what decides the cells, apart from rungs and seeds, of which there may be more."""
        return {
            "budget": self.budget,
            "corpus": self.dataset.fingerprint,
            "rates": self.rates,
            "recipe": self.base.to_toml(),
            "torch": torch.__version__,
            "machine": self.machine,
        }

    def train(
        self, rung: Rung, seed: int, calibration: Calibration | None = None, tokens: int = 0
    ) -> Cell:
        """Train one cell: for the budget, or for some tokens."""
        recipe = recipe_of(rung, self.base, self.rates, seed)
        place = rung, recipe, self.dataset, self.device, calibration
        if tokens:
            return train_cell(*place, tokens=tokens)
        return train_cell(*place, seconds=self.budget, sample=SAMPLE * (seed == self.seeds[0]))


def committed_rates() -> Rates:
    """Return the learning rates that come with the package."""
    text = resources.files("groundup.ladder").joinpath("rates.toml").read_text("utf-8")
    return tomllib.loads(text)


def make_plan(
    corpus: str,
    budget: float,
    seeds: Sequence[int],
    names: Sequence[str] = (),
    *,
    device: str = "auto",
    threads: int = 0,
) -> Plan:
    """Make a plan, and set the machine up for it.

    Args:
        corpus: python-docs, shakespeare, or a file or folder of text.
        budget: The seconds of training of a cell.
        seeds: The seeds.
        names: The names of the rungs; none takes all.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: The CPU threads; 0 takes the cores there are.

    Raises:
        LadderError: The budget is no time, or a rung isn't there.
        GroundupError: The corpus or the device can't be had.
    """
    if not 0.0 < budget < 86400.0:
        raise LadderError(f"a budget of {budget:g} seconds is no time to train for: try 15s")
    if not seeds:
        raise LadderError("without a seed there is nothing to train: --seeds 3 takes three")
    known = [rung.name for rung in RUNGS]
    for name in names:
        if name not in known:
            raise LadderError(f"there is no rung {name!r}. The rungs: {', '.join(known)}")
    chosen = choose_device(device)
    threads = machines.set_threads(threads, World())
    machines.prepare(chosen, threads, 1)
    base = base_recipe(corpus)
    dataset = make_dataset(open_corpora(corpus), base, None)
    words = f"{machines.processor(chosen)}, {threads} thread{'' if threads == 1 else 's'}"
    rungs = tuple(rung for rung in RUNGS if not names or rung.name in names)
    place = base, committed_rates(), dataset, chosen, words
    return Plan(rungs, tuple(seeds), budget, *place)


class Climb:
    """The cells of a ladder, in a folder; each is written down as soon as it is done.

    Args:
        plan: What is climbed.
        out: The folder.

    Raises:
        LadderError: The folder holds the cells of another ladder.
    """

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.path = plan, out / CELLS
        out.mkdir(parents=True, exist_ok=True)
        self.cells = list[Cell]()
        if self.path.exists():
            self._read()
        else:
            self._append(plan.facts())

    def _read(self) -> None:
        whole = [line for line in self.path.read_bytes().split(b"\n")[:-1] if line]
        try:
            facts, *cells = [json.loads(line) for line in whole]
            self.cells = [Cell(**cell) for cell in cells]
        except (ValueError, TypeError):
            raise LadderError(
                f"{self.path} holds no cells of a ladder: choose another --out, or remove it"
            ) from None
        for name, value in self.plan.facts().items():
            if facts.get(name) != value:
                raise LadderError(
                    f"{self.path} holds the cells of another ladder: its {name} is another one. "
                    "Choose another --out, or remove it"
                )
        # a line that was cut off by the end of a process goes
        with self.path.open("rb+") as file:
            file.truncate(sum(len(line) + 1 for line in whole))

    def _append(self, value: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n")

    def run(self) -> Iterator[Cell]:
        """Train what is missing, and yield each cell once it is written down.

        Seeds are interleaved: all rungs are trained from one seed before the next one's turn, so
        that a machine that slows down slows down all rungs.

        Raises:
            LadderError: Another process climbs in the same folder.
        """
        lock = FileLock(self.path.with_name(f".{CELLS}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            where = f"another process climbs in {self.path.parent}"
            raise LadderError(f"{where}: wait for it, or choose another --out") from None
        with lock:
            calibration = Calibration()
            yield from self._table("time", calibration, 0)
            yield from self._table("tokens", None, self.tokens())

    def tokens(self) -> int:
        """Return how many tokens the slowest rung learns from in half the budget."""
        names = {rung.name for rung in self.plan.rungs}
        speeds = [
            cell.tokens_per_second
            for cell in self.cells
            if cell.table == "time" and cell.rung in names and cell.seed in self.plan.seeds
            if cell.tokens
        ]
        step = self.plan.base.tokens_per_step
        known = [cell.tokens for cell in self.cells if cell.table == "tokens"]
        return (
            known[0]
            if known
            else max(1, round(min(speeds, default=0.0) * self.plan.budget / 2 / step)) * step
        )

    def _table(self, table: str, calibration: Calibration | None, tokens: int) -> Iterator[Cell]:
        done = {(cell.table, cell.rung, cell.seed) for cell in self.cells}
        left = math.ceil(len(self.plan.seeds) * len(self.plan.rungs) / AGAIN)
        for seed in self.plan.seeds:
            for rung in self.plan.rungs:
                if (table, rung.name, seed) in done:
                    continue
                cell = self.plan.train(rung, seed, calibration, tokens)
                if table == "time" and cell.slowdown > SLOWED and left:
                    left -= 1
                    logger.info(f"{rung.name}, seed {seed}: the machine slowed down, once more")
                    again = self.plan.train(rung, seed, calibration)
                    cell = min(cell, again, key=lambda each: each.slowdown)
                self._append(asdict(cell))
                self.cells.append(cell)
                yield cell
