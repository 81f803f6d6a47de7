"""`groundup evaluate`: loads a model, puts it to a task, prints what came out and saves it."""

import json as json_format
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.text import Text

from groundup.cli.flags import WeightFlags
from groundup.console import plain_table, print_json, wide_console
from groundup.errors import EvaluationError
from groundup.evaluation.task import (
    TASKS,
    Finding,
    NamedModel,
    Result,
    ResultOfOtherWeights,
    Settings,
    Table,
    evaluate_in,
    open_task,
)
from groundup.files import is_replaced, write_whole

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    TaskName = str
else:  # one of the registry's
    TaskName = Literal[tuple(TASKS)]
TASK_HELP = "; ".join(f"{name}: {task.help}" for name, task in TASKS.items()) + "."


def evaluate(
    model: str,
    /,
    *,
    task: Annotated[TaskName, Parameter(help=TASK_HELP)] = "hellaswag",
    limit: int | None = None,
    file: Path | None = None,
    convention: Literal["both", "completion", "harness"] = "both",
    per_item: Path | None = None,
    corpus: str | None = None,
    column: str | None = None,
    stride: int | None = None,
    window: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
    json: bool = False,
    weights: WeightFlags = WeightFlags(),
) -> None:
    """Score a model: on HellaSwag or items of your own, or by its loss on a text.

    Args:
        model: A run's name, the path of a run or a model folder, or a model of the hub: gpt2,
            OWNER/NAME.
        limit: N items, evenly spread over the file, or the first N tokens of a text.
        file: Of choices: its items, as JSON lines; of hellaswag: other items than the official
            ones, whose result isn't official then.
        convention: Of hellaswag: as build-nanogpt completes texts, as lm-evaluation-harness does,
            or both.
        per_item: Of hellaswag and choices: write each item's scores and choices as JSON lines.
        corpus: Of loss: python-docs, shakespeare, a file or folder of text, or shards, whose
            validation counts.
        column: Of loss: where JSON, CSV, parquet and Arrow files have their text; text if left out.
        stride: Of loss: tokens from one window to the next; half a window if left out, 1 is the
            most exact.
        window: Of loss: tokens of a window; the context, up to 2,048, if left out.
        batch_size: Items, or windows, that are computed together.
        device: auto, cpu, cuda, cuda:1 or mps.
        json: One JSON object instead of a table.
        weights: The weights to compute with; a result of others than the model's own isn't kept.
    """
    precision, of_texts = weights.precision(), (corpus, stride, column, window)
    settings = Settings(limit, batch_size, file, "--file", convention, *of_texts)
    check_flags(task, settings, per_item)
    opened, loaded = open_task(task, settings), load_named(model, device)
    if per_item is not None:
        _check_writable(per_item)
    result = evaluate_in(precision, opened, loaded, progress_line)
    if per_item is not None:
        _write(per_item, "".join(json_format.dumps(item) + "\n" for item in result.items()))
    _keep_and_print(result, loaded, json)


def _keep_and_print(result: Result, loaded: NamedModel, as_json: bool) -> None:
    """Keep a result before it is printed, and print it even if it can't be kept."""
    from groundup.evaluation.results import save_result

    if isinstance(result, ResultOfOtherWeights):
        print_finding(result, as_json)
        logger.info(f"not kept: {result.weights} weights aren't the model's own")
        return
    try:
        saved = save_result(result, loaded.folder)
    finally:
        print_finding(result, as_json)
    if saved is not None:
        logger.info("kept in %s", saved)


def check_flags(task: str | None, settings: Settings, per_item: Path | None = None) -> None:
    """Check that counts are at least 1, and that flags belong to the task.

    Raises:
        EvaluationError: A count is below 1, or a flag belongs to another task.
    """
    for flag, value in (("limit", settings.limit), ("batch-size", settings.batch_size)):
        if value is not None and value < 1:
            raise EvaluationError(f"--{flag} {value} must be at least 1")
    given = {
        "file": settings.file,
        "per-item": per_item,
        "convention": None if settings.convention == "both" else settings.convention,
        "corpus": settings.corpus,
        "column": settings.column,
        "stride": settings.stride,
        "window": settings.window,
    }
    for flag, value in given.items():
        if value is not None and (task is None or flag not in TASKS[task].load().flags):
            owners = " or ".join(name for name in TASKS if flag in TASKS[name].load().flags)
            said = f"the task is {task}" if task else "no task is given"
            raise EvaluationError(f"--{flag} belongs to --task {owners}, but {said}: leave one out")


def load_named(name: str, device: str) -> NamedModel:
    """Load a model that reads texts, and say what was loaded.

    Raises:
        GroundupError: There is no such model, or it has no tokenizer.
    """
    from groundup.checkpoints.model_folder import load_model

    loaded = load_model(name, device=device)
    named = NamedModel.of(loaded, name)
    logger.info(loaded.description)
    return named


def print_finding(finding: Finding, as_json: bool, **more: Any) -> None:
    """Print what a task found: one JSON object, `more` at its end, or lines and tables."""
    if as_json:
        print_json(finding.to_json() | more)
        return
    console = wide_console()
    for part in finding.report():
        if isinstance(part, Table):
            table = plain_table(*part.words, right=part.numbers)
            for row in part.rows:
                table.add_row(*row)
            console.print(table)
        else:
            console.print(Text(part))


def progress_line(what: str, total: int) -> Callable[[int], None]:
    """Return a function that shows progress on a line of a terminal, and elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda _: None

    def show(done: int) -> None:
        sys.stderr.write(f"\r{what}: {done:,} of {total:,}" + ("\n" if done >= total else ""))
        sys.stderr.flush()

    return show


def _check_writable(path: Path) -> None:
    """Find out before the work, not after it. Raises EvaluationError."""
    place = path.parent if is_replaced(path) else path
    if path.is_dir() or not os.access(place, os.W_OK):
        reason = f"{path.parent} is no folder that can be written to"
        reason = "it is a folder" if path.is_dir() else reason
        raise EvaluationError(f"--per-item {path} can't be written: {reason}")


def _write(path: Path, text: str) -> None:
    """In place of what is there, whole or not at all. Raises EvaluationError."""
    try:
        if is_replaced(path):
            write_whole(path, text)
        else:
            path.write_text(text, "utf-8")
    except OSError as error:
        raise EvaluationError(f"--per-item {path} can't be written: {error.strerror}") from error
