"""Stopping politely: a signal asks, the trainer finishes its step, saves and goes."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """The signal that asked the run to stop, 0 while none has."""

    def __init__(self) -> None:
        self.signal = 0

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal: the first asks, a second Ctrl-C ends the process at once, without any more writing."""
        if self.signal and number == signal.SIGINT:
            os._exit(130)
        self.signal = number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        again = " Ctrl-C again stops at once." if number == signal.SIGINT else ""
        sys.stderr.write(f"\n{name}: finishing this step, then saving.{again}\n")
        sys.stderr.flush()


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while the body runs."""
    request = StopRequest()
    previous = {number: signal.signal(number, request.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
