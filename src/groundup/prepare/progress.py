"""What a preparation shows while it works: documents, tokens, speed and the time that is left."""

import sys
import time
from typing import Any

from rich.live import Live
from rich.text import Text

from groundup.console import duration, plain_console
from groundup.prepare.inputs import Part
from groundup.prepare.plan import Plan

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A context manager that shows progress on stderr, outside a terminal every ten seconds."""

    def __init__(self, plan: Plan) -> None:
        self.source, self.limit = plan.preparation.source, plan.preparation.limit
        self.size = sum(part.size for part in plan.parts)
        self.read = self.documents = self.tokens = self.bytes = 0
        self.started = self.written = time.monotonic()
        console = plain_console(file=sys.stderr)
        is_live = console.is_terminal
        self.live = Live(console=console, refresh_per_second=4, transient=True) if is_live else None

    def part(self, part: Part, result: dict[str, Any]) -> None:
        """Count a part that was encoded, and show how far the work is."""
        self.read += part.size
        self.documents += result["documents"]
        self.tokens += result["tokens"]
        self.bytes += result["bytes"]
        seconds = time.monotonic() - self.started
        of_limit = self.tokens / self.limit if self.limit else 0.0
        done = min(1.0, max(self.read / max(1, self.size), of_limit))
        speed = f"{self.bytes / 1e6 / max(seconds, 1e-3):.1f} MB/s"
        left = duration(seconds * (1 - done) / max(done, 1e-6))
        counts = f"{self.documents:,} documents, {self.tokens:,} tokens"
        self._show(f"{self.source}: {counts}, {speed}, {left} left")

    def shard(self, number: int, of: int) -> None:
        """Show that a shard was written."""
        self._show(f"{self.source}: shard {number:,} of {of:,} written")

    def _show(self, line: str) -> None:
        if self.live is not None:
            self.live.update(Text(line))
        elif time.monotonic() - self.written > SECONDS_BETWEEN_LINES:
            self.written = time.monotonic()
            sys.stderr.write(f"{line}\n")

    def __enter__(self) -> "Progress":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
