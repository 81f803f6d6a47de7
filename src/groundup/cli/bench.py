"""The command `groundup bench`: measures a training step or writing, and prints what it reaches."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from groundup.cli.flags import Flags, WriterFlags, check_alone, given_fields, load_given
from groundup.console import mebibytes, messages_to, show
from groundup.errors import GroundupError
from groundup.recipes.schema import Recipe

if TYPE_CHECKING:
    from groundup.generation.writer import Precision
    from groundup.profiling.bench import Bench
    from groundup.profiling.decoding import Decoding


def bench(
    recipe: str | None = None,
    /,
    *,
    config: Path | None = None,
    size: int | None = None,
    repeat: int = 20,
    vocab_size: int = 0,
    decode: bool = False,
    model: str | None = None,
    json: bool = False,
    weights: WriterFlags = WriterFlags(),
    flags: Flags = None,
) -> None:
    """Measure a recipe's training step here, or with --decode how fast a model writes.

    Tokens are random, and so are the weights of a recipe's model.

    Args:
        recipe: A packaged recipe (see `groundup recipes`); `quickstart` if neither it nor --config
            is given.
        config: A recipe file of your own; its values go over those of RECIPE.
        size: Layers: scales the recipe's width, heads, batch and learning rates with them.
        repeat: Steps to measure; of training once whole and once phase by phase.
        vocab_size: Measure on random tokens of so many kinds; 0 takes the recipe's own.
        decode: Measure writing: the prompt, tokens a second of 1, 4 and 16 texts, the share of what
            the memory's speed allows, the time to the first token.
        model: With --decode: a run, a model folder, gpt2 or OWNER/NAME instead of a recipe.
        json: One JSON object instead of a table.
        weights: The weights that write with --decode, and what multiplies them.
    """
    if repeat < 1:
        raise GroundupError(f"--repeat {repeat} must be at least 1")
    given = given_fields(flags, {})
    if not decode and (model is not None or weights != WriterFlags()):
        flag = "--model" if model is not None else "--dtype, --quantize or --compile"
        raise GroundupError(f"{flag} says what writes: add --decode")
    if model is not None:
        others = {str(recipe): recipe, "--config": config, "--size": size}
        check_alone(model, given, others | {"--vocab-size": vocab_size or None})
        _bench_writing(model, vocab_size, weights.precision(), repeat, json)
        return
    chosen = load_given(recipe, config, size, given)
    if decode:
        _bench_writing(chosen, vocab_size, weights.precision(), repeat, json)
    else:
        _bench_training(chosen, vocab_size, repeat, json)


def _bench_writing(
    what: Recipe | str, vocab_size: int, precision: "Precision", repeat: int, json: bool
) -> None:
    """Measure how fast a recipe's model writes, or the model of a name, and print it."""
    from groundup.checkpoints.model_folder import load_model
    from groundup.profiling.decoding import decode_bench
    from groundup.profiling.synthetic import random_model

    by_name = isinstance(what, str)
    model = load_model(what, device="auto").model if by_name else random_model(what, vocab_size)
    result = decode_bench(model, precision, repeat)
    show(result, _table_of_writing(result), json)


def _bench_training(chosen: Recipe, vocab_size: int, repeat: int, json: bool) -> None:
    """Measure a recipe's training step, and print it."""
    from groundup.profiling.bench import bench as measure
    from groundup.profiling.synthetic import synthetic_dataset
    from groundup.training.failures import explain_out_of_memory
    from groundup.training.journal import Journal, MainJournal
    from groundup.training.session import Session
    from groundup.training.setup import build_trainer

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


def _table_of_writing(result: "Decoding") -> Table:
    """How fast a model writes, as a table."""
    from groundup.profiling.decoding import SIZES

    title = f"{result.architecture}, {result.parameters:,} parameters"
    table = Table(title=title, show_header=False, title_justify="left")
    by = "groundup's C++" if result.compiled else "torch"
    table.add_row("machine", f"{result.device}, {result.threads} threads, by {by}")
    table.add_row("weights", f"{mebibytes(result.weights)} in {result.dtype}")
    table.add_row("read bandwidth", f"{result.read_bandwidth / 1e9:,.1f} GB/s")
    speed = f"{result.prefill_tokens_per_second:,.0f} tokens/s"
    table.add_row("prompt", f"{speed}, of {result.prompt:,} tokens")
    measured = {batch.texts: batch for batch in result.batches}
    for texts in SIZES:
        name = f"{texts} text{'s' if texts > 1 else ''} at once"
        if (batch := measured.get(texts)) is None:
            table.add_row(name, "doesn't fit in memory")
            continue
        step = f"{1e3 * batch.step_seconds:,.2f} ms a step"
        table.add_row(name, f"{batch.tokens_per_second:,.0f} tokens/s, {step}")
        table.add_row("  of the bandwidth bound", f"{batch.bandwidth_share:.0%}")
        first = f"after {1e3 * batch.first_token_seconds:,.1f} ms"
        table.add_row("  first token of all", first)
    return table
