"""The command `groundup bench`: measures a recipe's training step, and prints what it reaches."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from groundup.cli.flags import Flags, given_fields, load_given
from groundup.console import mebibytes, messages_to, show
from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.profiling.bench import Bench


def bench(
    recipe: str | None = None,
    /,
    *,
    config: Path | None = None,
    size: int | None = None,
    repeat: int = 20,
    vocab_size: int = 0,
    json: bool = False,
    flags: Flags = None,
) -> None:
    """Measure a recipe's training step here: speed, share of the peak, memory, phases.

    The tokens are random.

    Args:
        recipe: A packaged recipe (see `groundup recipes`); `quickstart` if neither it nor --config
            is given.
        config: A recipe file of your own; its values go over those of RECIPE.
        size: Layers: scales the recipe's width, heads, batch and learning rates with them.
        repeat: Steps to measure, once whole and once phase by phase.
        vocab_size: Measure on random tokens of so many kinds; 0 takes the recipe's own.
        json: One JSON object instead of a table.
    """
    from groundup.profiling.bench import bench as measure
    from groundup.profiling.synthetic import synthetic_dataset
    from groundup.training.failures import explain_out_of_memory
    from groundup.training.journal import Journal, MainJournal
    from groundup.training.session import Session
    from groundup.training.setup import build_trainer

    if repeat < 1:
        raise GroundupError(f"--repeat {repeat} must be at least 1")
    chosen = load_given(recipe, config, size, given_fields(flags, {}))
    journal = Journal() if json else MainJournal()
    with messages_to(journal.say), explain_out_of_memory(chosen):
        dataset = synthetic_dataset(chosen, vocab_size)
        trainer = build_trainer(chosen, dataset, Session(), measures_minutes=False)
        result = measure(trainer, repeat)
    show(result, _table(result), json)


def _table(result: "Bench") -> Table:
    """The measurement as a table."""
    compiled = ", compiled" if result.compiled else ""
    title = f"{result.model}, {result.parameters:,} parameters"
    table = Table(title=title, show_header=False, title_justify="left")
    machine = f"{result.device}, {result.precision}, {result.threads} threads{compiled}"
    table.add_row("machine", machine)
    table.add_row("speed", f"{result.tokens_per_second:,.0f} tokens/s")
    milliseconds = f"{1e3 * result.step_seconds:,.1f} ms"
    table.add_row("step", f"{milliseconds} for {result.tokens_per_step:,} tokens")
    for phase, seconds in result.phases.items():
        share = seconds / sum(result.phases.values())
        table.add_row(f"  {phase}", f"{1e3 * seconds:,.1f} ms ({share:.0%})")
    table.add_row("operations a token", f"{result.operations_per_token:,.0f}")
    peak = f"{result.matmul_peak / 1e9:,.0f} billion operations a second in {result.precision}"
    table.add_row("matmul peak", peak)
    table.add_row("of that peak (MFU)", f"{result.mfu:.1%}")
    table.add_row("peak memory", mebibytes(result.peak_memory))
    return table
