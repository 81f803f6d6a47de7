"""Finds the learning rate of each rung, which `rates.toml` then holds."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

from groundup.ladder.cells import Rates
from groundup.ladder.climb import Plan
from groundup.ladder.rungs import Rung, changes_of

SWEEP_SEEDS = 1000, 1001  # none of those that the ladder is climbed with
TOKENS_PER_SECOND = 2**14  # of the budget: a number, so that a slow machine finds the same rates
FIRST = {"learning_rate": 0.01, "muon_learning_rate": 0.02}
FACTOR = 2.0


def sweep(plan: Plan, found: Rates) -> Iterator[tuple[str, dict[str, float], float]]:
    """Search each rung's learning rate, beginning with that of the rung below.

    Each rate is tried for the same number of tokens from two seeds, whose losses are averaged. It
    is doubled as long as the loss falls, or else halved as long as it falls. A rung that only
    computes the same numbers in another way takes the rates of the rung below.

    Args:
        plan: What is climbed; of its seeds none is used.
        found: Is filled with the rates of each rung.

    Yields:
        The name of a rung, rates, and the loss that they give; of each rung the last are the best.
    """
    rates = dict(FIRST)
    tokens = max(1, round(plan.budget * TOKENS_PER_SECOND))
    for rung in plan.rungs:
        if not rung.only_speed:
            name = _swept(rung)
            best, losses = rates[name], dict[float, float]()
            for rate in _climbing(best, losses):
                tried = replace(plan, rates={rung.name: rates | {name: rate}})
                cells = [tried.train(rung, seed, tokens=tokens) for seed in SWEEP_SEEDS]
                losses[rate] = statistics.mean(cell.loss for cell in cells)
                yield rung.name, rates | {name: rate}, losses[rate]
            rates |= {name: min(losses, key=losses.__getitem__)}
            yield rung.name, dict(rates), min(losses.values())
        found[rung.name] = dict(rates)


def _swept(rung: Rung) -> str:
    uses_muon = changes_of(rung, "optim")["optimizer"] == "muon"
    return "muon_learning_rate" if uses_muon else "learning_rate"


def _climbing(first: float, losses: dict[float, float]) -> Iterator[float]:
    """Yield the rates to try, each once the loss of the one before is known."""
    yield first
    for factor in (FACTOR, 1 / FACTOR):
        rate, best = first, first
        while True:
            rate = float(f"{rate * factor:.3g}")
            yield rate
            if losses[rate] >= losses[best]:
                break
            best = rate
        if best != first:
            return
