"""The command `groundup plan`: predicts what a recipe will need, here or on GPUs elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from groundup.cli.flags import Flags, check_alone, given_fields, load_given
from groundup.console import duration, mebibytes, messages_to, show
from groundup.errors import GroundupError, RecipeError
from groundup.files import HERE
from groundup.recipes.schema import Recipe

if TYPE_CHECKING:
    from groundup.profiling.estimate import Estimate
    from groundup.profiling.plan import Plan
    from groundup.profiling.writing import Writing


def plan(
    recipe: str | None = None,
    /,
    *,
    config: Path | None = None,
    size: int | None = None,
    corpus: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    init: str | None = None,
    vocab_size: int = 0,
    gpu: str | None = None,
    gpus: int = 1,
    model: str | None = None,
    json: bool = False,
    flags: Flags = None,
) -> None:
    """Predict a recipe's memory, time and largest micro-batch, and what writing needs.

    All but the last comes from a few steps measured here.

    Args:
        recipe: A packaged recipe (see `groundup recipes`); `quickstart` if neither it nor --config
            is given.
        config: A recipe file of your own; its values go over those of RECIPE.
        size: Layers: scales the recipe's width, heads, batch and learning rates with them.
        corpus: Short for --data.corpus: python-docs, shakespeare, a file or folder, or a mixture:
            a:0.7,b:0.3.
        steps: Short for --train.steps: the length in optimizer steps.
        seed: Short for --train.seed.
        init: Short for --train.init: a run, folder, gpt2 or OWNER/NAME of the hub to start from.
        vocab_size: Measure on random tokens of so many kinds; 0 takes the recipe's own.
        gpu: Estimate on paper for such a GPU instead: h100, a100, rtx4090 ...
        gpus: With --gpu: how many.
        model: Instead of a recipe: what a run, a model folder, gpt2 or OWNER/NAME needs to write.
        json: One JSON object instead of a table.
    """
    short = {"data": {"corpus": corpus}, "train": {"steps": steps, "seed": seed, "init": init}}
    given = given_fields(flags, short)
    if model is not None:
        others = {str(recipe): recipe, "--config": config, "--size": size, "--gpu": gpu}
        others |= {"--gpus": None if gpus == 1 else gpus, "--vocab-size": vocab_size or None}
        check_alone(model, given, others)
        _show_writing(model, json)
    else:
        _show_plan(load_given(recipe, config, size, given), vocab_size, gpu, gpus, json)


def _show_plan(chosen: Recipe, vocab_size: int, gpu: str | None, gpus: int, json: bool) -> None:
    """Print what a recipe needs, measured here or estimated on paper."""
    from groundup.profiling.estimate import estimate

    if gpu is not None:
        estimated = estimate(chosen, vocab_size, gpu, gpus)
        show(estimated, _table_of_estimate(estimated), json)
    elif gpus != 1:
        raise GroundupError(
            "--gpus is for an estimate on paper: say which, --gpu h100 for instance"
        )
    else:
        planned = _measure(chosen, vocab_size, json)
        show(planned, _table_of_plan(planned), json)


def _show_writing(model: str, json: bool) -> None:
    """Print what a model needs to write, of which only its files' headers are read."""
    from groundup.checkpoints.model_folder import load_shape
    from groundup.machine.choice import choose_device
    from groundup.profiling.writing import plan_writing

    writing = plan_writing(load_shape(model), choose_device("auto"))
    show(writing, _table_of_writing(writing), json)


def _measure(recipe: Recipe, vocab_size: int, quiet: bool) -> "Plan":
    """Measure the recipe with its own text, or with random tokens of a vocabulary."""
    from groundup.parallel.world import World
    from groundup.profiling.plan import plan as measure
    from groundup.profiling.synthetic import synthetic_dataset
    from groundup.training.failures import explain_out_of_memory
    from groundup.training.initial import initial_model
    from groundup.training.journal import Journal, MainJournal
    from groundup.training.periodic import open_evaluations
    from groundup.training.setup import open_dataset

    if vocab_size and recipe.train.epochs:
        raise RecipeError(
            "train.epochs are passes over a corpus, and --vocab-size is for none: give --steps"
        )
    if vocab_size and recipe.eval.task_every:
        raise RecipeError(
            "eval.task_every asks for a task's texts, and --vocab-size is for none: give "
            "--eval.task-every 0"
        )
    journal = Journal() if quiet else MainJournal()
    with messages_to(journal.say), explain_out_of_memory(recipe):
        if vocab_size:
            return measure(recipe, synthetic_dataset(recipe, vocab_size))
        dataset = open_dataset(recipe, initial_model(recipe), World())
        evaluations = open_evaluations(recipe, dataset.tokenizer, HERE, World())
        return measure(recipe, dataset, evaluations)


def _table_of_plan(result: "Plan") -> Table:
    """The plan as a table."""
    title = f"{result.model}, {result.parameters:,} parameters"
    table = Table(title=title, show_header=False, title_justify="left")
    needed, time = result.memory, result.time
    table.add_row("machine", result.machine)
    table.add_row("operations a token", f"{result.operations_per_token:,.0f}")
    passes = f"{result.micro_steps} x {result.micro_batch_size} sequences"
    table.add_row("step", f"{result.tokens_per_step:,} tokens: {passes}")
    at_the_peak = f"{mebibytes(needed.peak)} of {mebibytes(needed.available)}"
    table.add_row("memory at the peak", at_the_peak)
    _add_memory(table, needed.fixed, needed.each, needed.largest_micro_batch)
    if time is None:
        table.add_row("time", "doesn't fit: set train.micro_batch_size to the largest that does")
        _add_writing(table, result.writing)
        return table
    tokens = result.steps * result.tokens_per_step
    table.add_row("length", f"{result.steps:,} steps, {tokens:,} tokens")
    speed = f"{result.tokens_per_step / time.step:,.0f} tokens/s"
    table.add_row("time of a step", f"{1e3 * time.step:,.1f} ms, {speed}")
    table.add_row("time of an evaluation", duration(time.evaluation))
    table.add_row("time of a sample", duration(time.sample))
    table.add_row("time of a checkpoint", duration(time.checkpoint))
    if time.scores:
        table.add_row("time of the task's scores", duration(time.scores))
    table.add_row("training", duration(time.training))
    table.add_row("with all that comes on the way", duration(time.total))
    _add_writing(table, result.writing)
    return table


def _table_of_writing(result: "Writing") -> Table:
    """What a model needs to write, as a table."""
    title = f"{result.architecture}, {result.parameters:,} parameters"
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_row("machine", result.device)
    _add_writing(table, result)
    return table


def _add_writing(table: Table, writing: "Writing") -> None:
    """The rows on what writing needs."""
    table.add_row("writing: weights", f"{mebibytes(writing.weights)} in {writing.dtype}")
    if writing.texts is None:
        table.add_row("  keys and values", "none are kept")
        return
    each = f"{writing.each / 2**20:,.2f} MiB for {writing.context:,} tokens"
    table.add_row("  keys and values of a text", each)
    fit = f"{writing.texts:,} fit in {mebibytes(writing.available)}"
    table.add_row("  texts at once", fit if writing.texts else f"not one: {fit}")


def _table_of_estimate(result: "Estimate") -> Table:
    """The estimate and its assumptions as a table."""
    title = f"on paper: {result.gpus} x {result.gpu}, {result.parameters:,} parameters"
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_row("operations a token", f"{result.operations_per_token:,.0f}")
    peak = f"{mebibytes(result.peak_memory)} with {result.micro_batch_size} sequences at once"
    table.add_row("memory of a GPU", peak)
    _add_memory(table, result.fixed_memory, result.memory_each, result.largest_micro_batch)
    if result.seconds is not None:
        table.add_row("time", f"{duration(result.seconds)} for {result.tokens:,} tokens")
    else:
        table.add_row("time", "the recipe's length isn't in steps: give --steps")
    for number, assumption in enumerate(result.assumptions, 1):
        table.add_row(f"assumption {number}", assumption)
    return table


def _add_memory(table: Table, fixed: int, each: int, largest_micro_batch: int) -> None:
    """The rows on what memory consists of, and on what fits."""
    table.add_row("  of it fixed", mebibytes(fixed))
    table.add_row("  a sequence", mebibytes(each))
    table.add_row("largest micro-batch", str(largest_micro_batch or "none fits"))
