"""The interactive writer: ask for a prompt, a temperature and a length, write, and ask again."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from groundup.errors import GroundupError
from groundup.generation.stream import SamplingSettings

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 2.0


def converse(
    write: Callable[[str, SamplingSettings], Iterator[str]], settings: SamplingSettings, prompt: str
) -> None:
    """Ask and write until the end of input (Ctrl-D); each answer is the next default.

    Ctrl-C during a text stops that text, at a question it asks again.
    """
    say("An empty answer takes the value in brackets. Ctrl-C stops a text, Ctrl-D leaves.\n")
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
            say(prompt + first)
            for piece in pieces:
                say(piece)
            # the same prompt again gives another text
            settings = replace(settings, seed=settings.seed + 1)
        except KeyboardInterrupt:
            say("\n[stopped]")
        except EOFError:
            say("\n")
            return
        except GroundupError as error:
            say(f"{error}")
        say("\n\n")


def ask_text(question: str, default: str) -> str:
    """A line of text; an empty one takes the default."""
    shown = default if len(default) <= 40 else default[:37] + "..."
    return input(f"{question} [{shown}]: ") or default


def ask_number(
    question: str, default: float, low: float, high: float, whole: bool = False
) -> float:
    """A number within the range, asked for until it is one; an empty line takes the default."""
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
        say(f"{answer!r} is not a {'whole ' if whole else ''}number from {low:g} to {high:g}.\n")


def say(text: str) -> None:
    """Show text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
