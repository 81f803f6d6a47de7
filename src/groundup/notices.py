"""What is said to the user beside the result: on stderr, so that what is piped on is the result alone."""

import sys


def report(text: str) -> None:
    """A line for the user that isn't part of the result."""
    sys.stderr.write(f"{text}\n")
