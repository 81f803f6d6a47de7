"""What `groundup compare` prints of two runs: what they were, what they reached, and how their
recipes differ.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from groundup.console import plain_table, short_count, wide_console


def print_runs(result: dict[str, Any]) -> None:
    """What both runs were and reached, what differs between their recipes, and where the picture
    is.
    """
    console = wide_console()
    first, second = result["runs"]
    table = plain_table("", right=(f"A: {first['run']}", f"B: {second['run']}", "B - A"))
    rows = {
        "model": [
            f"{run['architecture']}, {short_count(run['parameters'])} parameters"
            for run in (first, second)
        ],
        "vocabulary": [f"{run['vocab_size']:,} tokens" for run in (first, second)],
        "text": [
            f"{run['corpus']['name']} ({run['corpus']['fingerprint'][:12]})"
            for run in (first, second)
        ],
        "steps": [_of(run["steps"], run["planned_steps"]) for run in (first, second)],
        "tokens": [f"{run['tokens']:,}" for run in (first, second)],
        "training time": [f"{run['seconds']:,.1f} s" for run in (first, second)],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells, "")
    bests = [run["best"] for run in (first, second)]
    for name, key in (
        ("best loss, nats a token", "validation_loss"),
        ("the same in bits a byte", "bits_per_byte"),
    ):
        gap = bests[1][key] - bests[0][key]
        comparable = key == "bits_per_byte" or result["same_vocabulary"]
        cells = (f"{best[key]:.4f} at step {best['step']:,}" for best in bests)
        table.add_row(name, *cells, f"{gap:+.4f}" if comparable else "-")
    for axis, amount in (("tokens", "{:,} tokens"), ("seconds", "{:,.1f} s of training")):
        found = result[f"at_equal_{axis}"]
        where = f"after {amount.format(found['at'])}, {result['unit']}"
        gap = "-" if found["difference"] is None else f"{found['difference']:+.4f}"
        table.add_row(where, *map(_measured, found["losses"], found["interpolated"]), gap)
    console.print(table)
    for line in remarks(result):
        console.print(Text(line))
    print_differences(console, result["recipe_differences"])
    console.print(Text(f"picture: {result['picture']}"))


def remarks(result: dict[str, Any]) -> list[str]:
    """What a reader must know to compare two runs."""
    lines = []
    equal = [result["at_equal_tokens"], result["at_equal_seconds"]]
    if any(any(found["interpolated"]) for found in equal):
        lines.append(
            "~ on a straight line between the evaluations around it; all losses are on the "
            "validation text"
        )
    if any(None in found["losses"] for found in equal):
        lines.append("- not measured so early: eval.every evaluates on the way")
    if not result["same_text"]:
        lines.append(
            "THE TEXTS DIFFER: each loss is on the run's own validation text, so they say little "
            "side by side"
        )
    if not result["same_vocabulary"]:
        lines.append(
            "the vocabularies differ: only bits a byte compare, and the picture shows them"
        )
    for axis, name in (("tokens", "tokens"), ("seconds", "time")):
        at = result[f"at_equal_{axis}"]["at"]
        for label, run in zip("AB", result["runs"], strict=True):
            if run[axis] > at:
                lines.append(
                    f"at equal {name}, {label} is compared on its way, before the end of its "
                    "schedule"
                )
    return lines


def print_differences(console: Console, found: list[dict[str, Any]] | None) -> None:
    """The fields in which two recipes differ, where both models are runs."""
    if found is None:
        return
    if not found:
        console.print("the recipes are the same")
        return
    table = plain_table("recipe", "A", "B")
    for row in found:
        table.add_row(row["field"], _value(row["a"]), _value(row["b"]))
    console.print(table)


def _of(done: int, planned: int) -> str:
    return f"{done:,}" if done == planned else f"{done:,} of {planned:,}"


def _measured(loss: float | None, interpolated: bool) -> str:
    return "-" if loss is None else f"{'~ ' if interpolated else ''}{loss:.4f}"


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
