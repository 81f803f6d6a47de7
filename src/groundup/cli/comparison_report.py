"""What `groundup compare --task` prints: both figures, their difference with its interval, and what
was compared.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from groundup.cli.evaluation_report import print_items
from groundup.cli.run_report import print_differences
from groundup.console import plain_table, wide_console
from groundup.evaluation.passages import SIZE


def print_hellaswag(result: dict[str, Any]) -> None:
    """A row for each measure, and below it which items and what the columns mean."""
    console = wide_console()
    _say_names(console, result["models"])
    counts = ("both right", "only A", "only B", "neither")
    table = plain_table(
        "convention", "measure", right=("A", "B", "B - A", "95% interval", "p", *counts)
    )
    for row in result["results"]:
        first, second = row["accuracy"]
        low, high = row["interval"]
        table.add_row(
            *(row["convention"], row["measure"], f"{first:.2%}", f"{second:.2%}"),
            *(
                f"{100 * row['difference']:+.2f}",
                f"{100 * low:+.2f} to {100 * high:+.2f}",
                p_text(row["p_value"]),
            ),
            *(f"{row[count]:,}" for count in ("both", "only_a", "only_b", "neither")),
        )
    console.print(table)
    print_items(console, result)
    console.print(
        "B - A in points of accuracy, paired item by item: Bonett and Price's interval, McNemar's "
        "exact test. p is how often chance alone would part equal models as far"
    )
    for model, cut in zip("AB", result["cut"], strict=True):
        for convention, count in cut.items():
            if count:
                console.print(
                    f"{model}, {convention}: {count:,} items are longer than its context and lost "
                    "a part"
                )
    print_differences(console, result["recipe_differences"])


def print_loss(result: dict[str, Any]) -> None:
    """A row for each model, the difference, and how it was measured."""
    console = wide_console()
    _say_names(console, result["models"])
    table = plain_table(
        "", right=("bits a byte", "nats a token", "tokens", "context", "stride", "better in")
    )
    for place, model in enumerate("AB"):
        table.add_row(
            *(model, f"{result['bits_per_byte'][place]:.4f}", f"{result['loss'][place]:.4f}"),
            *(f"{result[count][place]:,}" for count in ("tokens", "block_size", "stride")),
            f"{result['lower_in'][place]:,} passages",
        )
    console.print(table)
    low, high = result["interval"]
    console.print(
        f"B - A: {result['difference']:+.4f} bits a byte, 95% interval {low:+.4f} to {high:+.4f}, "
        f"p {p_text(result['p_value'], '= ')} (paired t-test over {result['passages']:,} passages)"
    )
    console.print(
        Text(
            f"{result['bytes']:,} bytes: {result['part']} of {result['corpus']}, in passages of "
            f"{SIZE:,} bytes or more, cut where a token of both ends. What a model was trained on "
            "says nothing about new text"
        )
    )
    print_differences(console, result["recipe_differences"])


def _say_names(console: Console, names: list[str]) -> None:
    for letter, name in zip("AB", names, strict=True):
        console.print(Text(f"{letter}: {name}"))


def p_text(p_value: float, equals: str = "") -> str:
    """A p-value to two digits; what is too small to matter as a bound."""
    return "< 1e-12" if p_value < 1e-12 else f"{equals}{p_value:.2g}"
