"""Stopping on a signal: the signal is noted, and the trainer finishes its step and saves."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class StopRequest:
    """The signal that asked the run to stop, 0 while none has."""

    def __init__(self) -> None:
        self.signal = 0

    def ask(self, number: int) -> None:
        """Take note of a signal. A second Ctrl-C ends the process at once, without saving."""
        if self.signal and number == signal.SIGINT:
            os._exit(130)
        self.signal = number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        again = " Ctrl-C again stops at once." if number == signal.SIGINT else ""
        with suppress(OSError, ValueError):  # nobody reads it any more
            sys.stderr.write(f"\n{name}: finishing this step, then saving.{again}\n")
            sys.stderr.flush()

    def listen(self, arrivals: int) -> None:
        """Take note of each signal whose number arrives in a pipe, until a 0 does."""
        while number := os.read(arrivals, 1)[0]:
            if number in (signal.SIGINT, signal.SIGTERM):
                self.ask(number)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while the body runs.

    A thread listens: Python runs its own handlers only after the call in progress, and a backward
    pass can be long.

    Yields:
        The request.
    """
    request = StopRequest()
    arrivals, sender = os.pipe()
    os.set_blocking(sender, False)  # as set_wakeup_fd wants it
    listener = threading.Thread(target=request.listen, args=(arrivals,), daemon=True)
    listener.start()
    previous_sender = signal.set_wakeup_fd(sender)
    previous = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_sender)
        with suppress(BlockingIOError):  # a full pipe: the listener ends with the process
            os.write(sender, b"\0")
            listener.join()
            os.close(sender)
            os.close(arrivals)
