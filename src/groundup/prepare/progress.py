"""What a preparation shows while it works: documents, tokens, speed and time left; lines now and
then in a pipe.
"""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from groundup.prepare.inputs import Part
from groundup.prepare.steps import Plan

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A context: a line that is renewed in a terminal, one every ten seconds elsewhere; both on
    stderr.
    """

    def __init__(self, plan: Plan) -> None:
        self.source, self.limit = plan.preparation.source, plan.preparation.limit
        self.size = sum(part.size for part in plan.parts)
        self.read = self.documents = self.tokens = self.bytes = 0
        self.started = self.written = time.monotonic()
        console = Console(file=sys.stderr, highlight=False)
        self.live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def part(self, part: Part, result: dict[str, Any]) -> None:
        """A part was encoded."""
        self.read += part.size
        self.documents, self.tokens = (
            self.documents + result["documents"],
            self.tokens + result["tokens"],
        )
        self.bytes += result["bytes"]
        seconds = time.monotonic() - self.started
        done = min(
            1.0, max(self.read / max(1, self.size), self.tokens / self.limit if self.limit else 0.0)
        )
        speed, left = (
            self.bytes / 1e6 / max(seconds, 1e-3),
            _duration(seconds * (1 - done) / max(done, 1e-6)),
        )
        self._show(
            f"{self.source}: {self.documents:,} documents, {self.tokens:,} tokens, {speed:.1f} "
            f"MB/s, {left} left"
        )

    def shard(self, number: int, of: int) -> None:
        """A shard was written."""
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()


def _duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
