"""The command `groundup verify`: prints what groundup claims, each claim with error and bound."""

import json as json_format
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from groundup.console import plain_console

if TYPE_CHECKING:
    from groundup.verification.verify import Finding

COLOURS = {"ok": "green", "FAILED": "bold red", "skipped": "yellow"}


def verify_claims(model: str | None = None, /, *, device: str = "auto", json: bool = False) -> None:
    """Prove on this machine that all parts compute the same: each claim with error and bound.

    Args:
        model: A run, a model folder, or gpt2 or OWNER/NAME of the hub; small random models if left
            out.
        device: auto, cpu, cuda, cuda:1 or mps.
        json: One JSON object instead of a table.
    """
    import torch

    from groundup.machine.choice import choose_device
    from groundup.verification.verify import models_to_test, verify_all

    chosen = choose_device(device)
    models = models_to_test(model, chosen)
    console = plain_console(soft_wrap=True, quiet=json)
    what = "small random models" if model is None else f"{model} ({models[0].architecture})"
    console.print(Text(f"verifying {what} on {chosen}, torch {torch.__version__}"))
    found = []
    for finding in verify_all(models):
        found.append(finding)
        print_finding(finding, console)
    statuses = [finding.status for finding in found]
    failed, skipped = statuses.count("FAILED"), statuses.count("skipped")
    hold = len(found) - failed - skipped
    console.print(Text(f"{len(found)} rows: {hold} hold, {failed} failed, {skipped} skipped"))
    if json:
        whole = {"model": model, "device": str(chosen), "torch": torch.__version__}
        whole |= {"claims": list(map(asdict, found)), "failed": failed, "skipped": skipped}
        line = json_format.dumps(whole, ensure_ascii=False, allow_nan=False)
        sys.stdout.write(f"{line}\n")
    raise SystemExit(int(failed > 0))


def print_finding(finding: "Finding", console: Console) -> None:
    """Print a row: status, claim, model, error and bound; below a failure, what it means."""
    measured = "-" if finding.error is None else f"{finding.error:.2g}"
    bound = f"of {finding.bound:g}" if finding.bound else "exactly 0"
    bound = "" if finding.bound is None else bound
    row = Text(f"{finding.status:<8}", COLOURS[finding.status])
    row.append(f"{finding.claim:<38} {finding.model:<15} ", "default")
    if finding.status == "skipped":
        console.print(row.append(finding.note, "default"))
        return
    console.print(row.append(f"{measured:>8} {bound}", "default"))
    if finding.status == "FAILED":
        console.print(Text(f"        This means: {finding.note}"))
