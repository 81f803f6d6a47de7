"""A conversation at the terminal: ask for a prompt and settings, write, and ask again."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.generation.stream import SamplingSettings

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 2.0


def converse(
    write: "Callable[[str, SamplingSettings], Iterator[str]]",
    settings: "SamplingSettings",
    prompt: str,
) -> None:
    """Ask and write until the end of input (Ctrl-D); each answer is the next default.

    Ctrl-C during a text stops that text; at a question, it asks again.

    Args:
        write: Yields the text after a prompt, piece by piece.
        settings: The first defaults.
        prompt: The first default prompt.
    """
    show("An empty answer takes the value in brackets. Ctrl-C stops a text, Ctrl-D leaves.\n")
    while True:
        try:
            asked = ask_text("Prompt", prompt)
            temperature = ask_number(
                "Temperature", settings.temperature, LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE
            )
            length = int(ask_number("Length", settings.length, 1, 1_000_000, whole=True))
            settings = replace(settings, temperature=temperature, length=length)
            pieces = write(asked, settings)
            # before it is shown or remembered: a prompt that can't be read is an error
            first = next(pieces, "")
            prompt = asked
            show(prompt + first)
            for piece in pieces:
                show(piece)
            # the same prompt again gives another text
            settings = replace(settings, seed=settings.seed + 1)
        except KeyboardInterrupt:
            show("\n[stopped]")
        except EOFError:
            show("\n")
            return
        except GroundupError as error:
            show(f"{error}")
        show("\n\n")


def ask_text(question: str, default: str) -> str:
    """Ask for a line of text; an empty one takes the default."""
    shown = default if len(default) <= 40 else default[:37] + "..."
    return input(f"{question} [{shown}]: ") or default


def ask_number(
    question: str, default: float, low: float, high: float, whole: bool = False
) -> float:
    """Ask for a number until it is one in the range; an empty line takes the default."""
    while True:
        answer = input(f"{question} ({low:g} to {high:g}) [{default:g}]: ").strip()
        if not answer:
            return default
        try:
            number = int(answer) if whole else float(answer)
        except ValueError:
            number = float("nan")
        if low <= number <= high:
            return number
        show(f"{answer!r} is not a {'whole ' if whole else ''}number from {low:g} to {high:g}.\n")


def show(text: str) -> None:
    """Write text on stdout at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
