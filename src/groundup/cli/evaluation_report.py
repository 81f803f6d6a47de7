"""What `groundup evaluate` prints: figures with their intervals, and what they may be compared
with.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from groundup.console import plain_table, wide_console
from groundup.data.hellaswag_items import ItemsFile
from groundup.evaluation.hellaswag import Sitting
from groundup.evaluation.units import loss_in_units

HOW = {  # measure by measure: what decides
    ("completion", "acc"): "sum of the log-probabilities",
    ("completion", "acc_norm"): "their mean of a token",
    ("harness", "acc"): "sum of the log-probabilities",
    ("harness", "acc_norm"): "sum over characters",
    ("harness", "acc_bytes"): "sum over bytes",
}


def hellaswag_json(name: str, source: ItemsFile, sittings: list[Sitting]) -> dict[str, Any]:
    """The result of HellaSwag. of: items in the file. cut: for each convention, items that didn't
    fit the context.
    """
    items = len(sittings[0].answers)
    seconds = {sitting.convention: sitting.seconds for sitting in sittings}
    return {
        "task": "hellaswag",
        "model": name,
        "file": str(source.path),
        "official": source.is_official,
        "items": items,
        "of": len(source.items),
        "results": [accuracy.to_json() for sitting in sittings for accuracy in sitting.accuracies],
        "cut": {sitting.convention: sitting.cut for sitting in sittings},
        "seconds": seconds,
        "items_per_second": {convention: items / taken for convention, taken in seconds.items()},
    }


def print_hellaswag(result: dict[str, Any]) -> None:
    """A table of the measures, and below it what a reader must know to compare them."""
    console, published = wide_console(), list(result["results"][0]["published_percent"])
    table = plain_table(
        "convention", "measure", "decides", right=("right", "95% interval", *published)
    )
    for row in result["results"]:
        low, high = row["interval"]
        table.add_row(
            row["convention"],
            row["measure"],
            HOW[row["convention"], row["measure"]],
            f"{100 * row['accuracy']:.2f}%",
            f"{100 * low:.2f} to {100 * high:.2f}%",
            *(
                f"{row['published_percent'][model]:.2f}%" if row["published_percent"] else "-"
                for model in published
            ),
        )
    console.print(table)
    print_items(console, result)
    console.print(
        "published: on all 10,042 official items, by the same convention; guessing is right in 25%"
    )
    for convention, cut in result["cut"].items():
        if cut:
            console.print(
                f"{convention}: {cut:,} items are longer than the model's context and lost their "
                "beginning"
            )
    speeds = (
        f"{convention} {speed:.1f}" for convention, speed in result["items_per_second"].items()
    )
    console.print(f"items a second: {', '.join(speeds)}")


def print_items(console: Console, result: dict[str, Any]) -> None:
    """Which items were asked, in a line."""
    first = (
        "all" if result["items"] == result["of"] else f"{result['items']:,}, evenly spread, of the"
    )
    label = (
        "the official file"
        if result["official"]
        else "UNOFFICIAL: not the file of the published figures"
    )
    console.print(Text(f"{first} {result['of']:,} items of {result['file']} ({label})"))


def print_loss(result: dict[str, Any]) -> None:
    """The loss in its three units, how it was measured, and the passages at both ends."""
    console = wide_console()
    console.print(", ".join(loss_in_units(result)))
    console.print(
        Text(
            f"{result['tokens']:,} tokens, {result['size']:,} bytes: {result['part']} of "
            f"{result['corpus']}. What the model was trained on says nothing about new text"
        )
    )
    least = result["block_size"] - result["stride"] + 1
    console.print(
        f"windows of {result['block_size']:,} tokens, stride {result['stride']:,}: each token but "
        f"the first ones is predicted from at least {least:,} before it; "
        f"{result['tokens_per_second']:,.0f} tokens/s"
    )
    for which in ("worst", "best"):
        console.print(f"{which} passages:")
        for passage in result[which]:
            text = " ".join(passage["text"].split())
            where = f"{passage['loss']:.4f} at token {passage['place']:,} of {passage['stream']}"
            console.print(Text(f"  {where}: {text[:200]!r}"))
