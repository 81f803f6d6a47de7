"""`groundup compare`: prints how two models differ at a task, or two runs by their curves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from groundup.cli.evaluate import (
    TaskName,
    check_flags,
    load_named,
    print_finding,
    progress_line,
)
from groundup.console import plain_table, print_json, short_count, wide_console
from groundup.errors import EvaluationError
from groundup.evaluation.task import Settings, Task, open_task

if TYPE_CHECKING:
    from groundup.runs.compare_runs import RunComparison


def compare(
    a: str,
    b: str,
    /,
    *,
    task: TaskName | None = None,
    limit: int | None = None,
    file: Path | None = None,
    convention: Literal["both", "completion", "harness"] = "both",
    corpus: str | None = None,
    column: str | None = None,
    stride: int | None = None,
    window: int | None = None,
    batch_size: int = 8,
    out: Path | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Compare two models at a task, or two runs by their curves, and list how recipes differ.

    Args:
        a: A run, the path of a run or model folder, gpt2, or OWNER/NAME of the hub.
        b: What it is compared with; differences are B - A.
        task: Compare the models at a task, paired; left out, two runs are compared by their curves.
        limit: N items, evenly spread; the first N characters of a text, or tokens of shards.
        file: Of choices: its items, as JSON lines; of hellaswag: other items than the official
            ones, whose result isn't official then.
        convention: Of hellaswag: as build-nanogpt completes texts, as lm-evaluation-harness does,
            or both.
        corpus: Of loss: python-docs, shakespeare, a file or folder of text, or shards, whose
            validation counts.
        column: Of loss: where JSON, CSV, parquet and Arrow files have their text; text if left out.
        stride: Of loss: tokens from one window to the next; half a window if left out, 1 is the
            most exact.
        window: Of loss: tokens of a window; the context, up to 2,048, if left out.
        batch_size: Items, or windows, that are computed together.
        out: Of two runs: where their curves are drawn; compare-A-B.png if left out.
        device: auto, cpu, cuda, cuda:1 or mps.
        json: One JSON object instead of a table.
    """
    settings = Settings(
        limit, batch_size, file, "--file", convention, corpus, stride, column, window
    )
    check_flags(task, settings)
    _check_kind(task, limit, out)
    if task is None:
        _compare_runs(a, b, out, json)
    else:
        _compare_models(a, b, open_task(task, settings), device, json)


def _compare_runs(a: str, b: str, out: Path | None, json: bool) -> None:
    """Compare two runs by their curves, and print it."""
    from groundup.runs.compare_runs import compare_runs

    comparison = compare_runs((a, b), out)
    print_json(comparison.to_json()) if json else print_runs(comparison)


def _compare_models(a: str, b: str, opened: Task, device: str, json: bool) -> None:
    """Compare two models at a task, and print it with the differences of their recipes."""
    from groundup.runs.compare_runs import recipe_differences

    differing = recipe_differences((a, b))
    finding = opened.compare(load_named(a, device), load_named(b, device), progress_line)
    if json:
        print_finding(finding, as_json=True, recipe_differences=differing)
        return
    wide_console().print(Text(f"A: {a}\nB: {b}"))
    print_finding(finding, as_json=False)
    print_differences(wide_console(), differing)


def _check_kind(task: str | None, limit: int | None, out: Path | None) -> None:
    """Refuse what only a task has, or only two runs. Raises EvaluationError."""
    if task is None and limit is not None:
        raise EvaluationError(
            "--limit belongs to a task, but none is given: add --task hellaswag or --task loss"
        )
    if task is not None and out is not None:
        raise EvaluationError(
            f"--out is where the curves of two runs are drawn, but the task is {task}: leave one "
            "out"
        )


def print_runs(comparison: "RunComparison") -> None:
    """Print what both runs were and reached, how their recipes differ, and where the picture is."""
    console, runs = wide_console(), comparison.runs
    first, second = (run.folder.name for run in runs)
    table = plain_table("", right=(f"A: {first}", f"B: {second}", "B - A"))
    for name, cells in _descriptions(comparison).items():
        table.add_row(name, *cells, "")
    bests = [run.best for run in runs]
    for name, key in (
        ("best loss, nats a token", "validation_loss"),
        ("the same in bits a byte", "bits_per_byte"),
    ):
        gap = bests[1][key] - bests[0][key]
        comparable = key == "bits_per_byte" or comparison.same_vocabulary
        cells = [f"{best[key]:.4f} at step {best['step']:,}" for best in bests]
        table.add_row(name, *cells, f"{gap:+.4f}" if comparable else "-")
    for found, amount in zip(
        comparison.at_equal, ("{:,} tokens", "{:,.1f} s of training"), strict=True
    ):
        where = f"after {amount.format(found.at)}, {comparison.unit}"
        gap = "-" if found.difference is None else f"{found.difference:+.4f}"
        table.add_row(where, *map(_measured, found.losses, found.interpolated), gap)
    console.print(table)
    for line in remarks(comparison):
        console.print(Text(line))
    print_differences(console, comparison.recipe_differences)
    console.print(Text(f"picture: {comparison.picture}"))


def _descriptions(comparison: "RunComparison") -> dict[str, list[str]]:
    """What both runs were and did: the rows of the table that have no difference."""
    rows: dict[str, list[str]] = {}
    for run in comparison.runs:
        facts, done, planned = run.facts, run.last["step"], run.recipe.train.steps
        corpus = facts["corpus"]
        for name, cell in (
            (
                "model",
                f"{run.recipe.model.architecture}, {short_count(facts['parameters'])} parameters",
            ),
            ("vocabulary", f"{facts['vocab_size']:,} tokens"),
            ("text", f"{corpus['name']} ({corpus['fingerprint'][:12]})"),
            ("steps", f"{done:,}" if done == planned else f"{done:,} of {planned:,}"),
            ("tokens", f"{run.last['tokens']:,}"),
            ("training time", f"{run.last['seconds']:,.1f} s"),
        ):
            rows.setdefault(name, []).append(cell)
    return rows


def remarks(comparison: "RunComparison") -> list[str]:
    """List what a reader must know to compare two runs."""
    lines = []
    if any(any(found.interpolated) for found in comparison.at_equal):
        lines.append(
            "~ on a straight line between the evaluations around it; all losses are on the "
            "validation text"
        )
    if any(None in found.losses for found in comparison.at_equal):
        lines.append("- not measured so early: eval.every evaluates on the way")
    if not comparison.same_text:
        lines.append(
            "THE TEXTS DIFFER: each loss is on the run's own validation text, so they say little "
            "side by side"
        )
    if not comparison.same_vocabulary:
        lines.append(
            "the vocabularies differ: only bits a byte compare, and the picture shows them"
        )
    for found, name in zip(comparison.at_equal, ("tokens", "time"), strict=True):
        lines += [
            f"at equal {name}, {label} is compared on its way, before the end of its schedule"
            for label, run in zip("AB", comparison.runs, strict=True)
            if run.last[found.axis] > found.at
        ]
    return lines


def print_differences(console: Console, found: list[dict[str, Any]] | None) -> None:
    """Print the fields in which two recipes differ, where both models are runs."""
    if found is None:
        return
    if not found:
        console.print("the recipes are the same")
        return
    table = plain_table("recipe", "A", "B")
    for row in found:
        table.add_row(row["field"], _value(row["a"]), _value(row["b"]))
    console.print(table)


def _measured(loss: float | None, interpolated: bool) -> str:
    return "-" if loss is None else f"{'~ ' if interpolated else ''}{loss:.4f}"


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
