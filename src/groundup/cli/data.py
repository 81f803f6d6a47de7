"""`groundup data` on the command line, and how findings about shards are printed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App
from rich.text import Text

from groundup.console import plain_console, plain_table, print_json

if TYPE_CHECKING:
    from groundup.data_inspection.report import Report

COLOURS = {"ok": "green", "note": "yellow", "warning": "bold red"}

data = App(name="data", help="Look at what a model is to learn from.")


@data.command(name="check")
def check_data(
    folder: Path,
    /,
    *,
    strict: bool = False,
    hellaswag: Path | None = None,
    tokenizer: str | None = None,
    json: bool = False,
) -> None:
    """Verify every shard, and report what a training run should know.

    That is: sizes, damage, copies, overlap.

    Args:
        folder: What `groundup prepare` made, or a folder with .bin files of nanoGPT or llm.c.
        strict: Exit with status 1 if there is a warning.
        hellaswag: HellaSwag's validation items: hellaswag_val.jsonl; the cache's if left out.
        tokenizer: What made .bin files that have no index: gpt2, or a folder with a tokenizer.json.
        json: One JSON object instead of a table.
    """
    from groundup.data_inspection.report import report_on

    report = report_on(folder, hellaswag, tokenizer, thorough=True)
    if json:
        print_json(report.to_json())
    else:
        print_report(report)
    raise SystemExit(1 if strict and report.warnings else 0)


def print_report(report: "Report") -> None:
    """Print a table in a terminal; for a pipe a line for each finding, tabs between its parts."""
    console = plain_console()
    verdict = f"{report.path}: {report.warnings} warning{'' if report.warnings == 1 else 's'}"
    if not console.is_terminal:
        for row in report.findings:
            parts = [row.level, row.what, row.value, *filter(None, [row.meaning])]
            sys.stdout.write("\t".join(parts) + "\n")
        sys.stdout.write(verdict + "\n")
        return
    table = plain_table("", "what", "", "what it means")
    for row in report.findings:  # as Text: what comes from a corpus is no markup
        words = map(Text, (row.what, row.value, row.meaning))
        table.add_row(Text(row.level, COLOURS[row.level]), *words)
    console.print(table)
    console.print(Text(verdict))
