"""`groundup data check`, and how the data doctor's findings are printed."""

import json
import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundup.console import report as say
from groundup.data_inspection.report import Report, report_on

COLOURS = {"ok": "green", "note": "yellow", "warning": "bold red"}


def check(
    path: Path, hellaswag: Path | None, tokenizer: str | None, strict: bool, as_json: bool
) -> int:
    """Verify and inspect a folder of shards, and print what was found: the exit status. Raises
    GroundupError.
    """
    report = report_on(path, hellaswag, tokenizer, thorough=True, say=say)
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), ensure_ascii=False, indent=2) + "\n")
    else:
        print_report(report)
    return exit_status(report, strict)


def exit_status(report: Report, strict: bool) -> int:
    """1 for warnings that were asked to count, else 0."""
    return int(strict and report.warnings > 0)


def print_report(report: Report) -> None:
    """A table in a terminal; plain lines for a pipe, a finding each, its parts separated by
    tabs.
    """
    console = Console(highlight=False)
    verdict = f"{report.path}: {report.warnings} warning{'' if report.warnings == 1 else 's'}"
    if not console.is_terminal:
        for row in report.findings:
            sys.stdout.write(
                "\t".join([row.level, row.what, row.value, *([row.meaning] if row.meaning else [])])
                + "\n"
            )
        sys.stdout.write(verdict + "\n")
        return
    table = Table("", "what", "", "what it means", box=SIMPLE, pad_edge=False)
    for row in report.findings:  # as Text: what comes from a corpus is no markup
        table.add_row(
            Text(row.level, COLOURS[row.level]), Text(row.what), Text(row.value), Text(row.meaning)
        )
    console.print(table)
    console.print(Text(verdict))
