"""A terminal for the command line: a test reads what a person would see there, and types what a
person would type.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Terminal:
    """`groundup ARGS...` on a pseudo-terminal of 120 columns; `shown` is all that it printed so
    far.
    """

    def __init__(self, process: int, controller: int) -> None:
        self.process, self.controller = process, controller
        self.shown, self.seen, self.status = "", 0, 0
        self._bytes = b""

    def type(self, keys: str) -> None:
        """Press keys; \\x03 is Ctrl-C, \\x04 Ctrl-D."""
        os.write(self.controller, keys.encode())

    def expect(self, text: str, timeout: float = 60) -> str:
        """Read on until `text` is shown: what came since the last expectation, up to its end."""
        deadline = time.monotonic() + timeout
        while (found := self.shown.find(text, self.seen)) < 0:
            assert time.monotonic() < deadline, (
                f"{text!r} was not shown in {timeout} s: {self.shown[self.seen :]!r}"
            )
            assert self._read(0.2), (
                f"the command ended without {text!r}: {self.shown[self.seen :]!r}"
            )
        before, self.seen = self.seen, found + len(text)
        return self.shown[before : self.seen]

    def interrupt(self, text: str) -> None:
        """Press Ctrl-C until `text` is shown.

        Python loses a Ctrl-C that comes between a question and the reading of its answer; a person
        presses it again.
        """
        for _ in range(5):
            self.type("\x03")
            with suppress(AssertionError):
                self.expect(text, timeout=5)
                return
        self.expect(text, timeout=1)

    def expect_more(self, characters: int, timeout: float = 60) -> None:
        """Read on until so many more characters were shown, whatever they are."""
        deadline = time.monotonic() + timeout
        while len(self.shown) < self.seen + characters:
            assert time.monotonic() < deadline, (
                f"only {self.shown[self.seen :]!r} was shown in {timeout} s"
            )
            assert self._read(0.2), f"the command ended after {self.shown[self.seen :]!r}"
        self.seen += characters

    def end(self) -> int:
        """Read to the end: the exit status."""
        while self._read(1.0):
            pass
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        self.process = 0
        return self.status

    def _read(self, timeout: float) -> bool:
        """Take what is there; whether there can be more."""
        if not select.select([self.controller], [], [], timeout)[0]:
            return True
        try:
            piece = os.read(self.controller, 65536)
        except OSError:  # the other side is closed
            piece = b""
        self._bytes += piece
        self.shown = self._bytes.decode("utf-8", errors="ignore").replace("\r\n", "\n")
        return bool(piece)


@contextmanager
def terminal(*args: object, folder: Path) -> Iterator[Terminal]:
    """A command on a terminal, while the body runs; killed after it if it still lives."""
    words = [sys.executable, "-m", "groundup", *map(str, args)]
    environment = os.environ | {"TERM": "xterm-256color"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    process, controller = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execve(words[0], words, environment)
    fcntl.ioctl(controller, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    opened = Terminal(process, controller)
    try:
        yield opened
    finally:
        if opened.process:
            os.kill(process, 9)
            os.waitpid(process, 0)
        os.close(controller)
