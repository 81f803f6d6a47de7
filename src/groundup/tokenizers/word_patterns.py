"""Refuses a `tokenizer.json` whose patterns could take for ever to cut a text into words.

A pattern is a regular expression. Where a choice doesn't lead to a match, its engine goes back and
tries the next choice. If a part with choices is repeated without limit, each character can double
the number of ways to try, so that forty letters take practically for ever. The tokenizers in use
have no such pattern.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from groundup.errors import ForeignTokenizerError
from groundup.tokenizers.base import Contents

LONGEST = 4000  # characters
DEEPEST = 16  # groups within groups
LARGEST = 2000  # parts, what is counted as often as it comes
UNLIMITED = float("inf")

OPENING = regex.compile(r"\((?:\?(?:[ims-]*:|>|P?<\w+>|<?[=!]))?(?![?*])")
LOOKING = ("(?=", "(?!", "(?<=", "(?<!")
NOWHERE = regex.compile(r"[\^$]|\\[bBAzZ]|\(\?[ims-]+\)")  # a place between characters, or a flag
TIMES = regex.compile(r"(?:([*+?])|\{(?=\d|,\d)(\d*)(?:(,)(\d*))?\})[+?]?")
ONE = regex.compile(
    r"\\(?:[pP](?:\{[^{}]*\}|\w)|x(?:\{\w*\}|\w\w)|u(?:\{\w*\}|\w{4})|[sSdDwWhHnrtfv]|\W)"
    r"|[^\\\[()*+?|]",
    regex.DOTALL,
)


@dataclass(frozen=True)
class Extent:
    """What a pattern or a part of one matches.

    Args:
        least: The least number of characters that match.
        size: The number of parts; a part that is repeated n times counts n times.
        has_choices: Whether the pattern may match in several ways.
    """

    least: int = 0
    size: int = 0
    has_choices: bool = False

    def then(self, other: "Extent") -> "Extent":
        """Return the extent of this part followed by the other."""
        return Extent(
            self.least + other.least, self.size + other.size, self.has_choices or other.has_choices
        )

    def instead_of(self, other: "Extent") -> "Extent":
        """Return the extent of a choice between this part and the other."""
        return Extent(min(self.least, other.least), self.size + other.size, True)

    def repeated(self, least: int, most: float) -> "Extent":
        """Return the extent of this part repeated as often as a quantifier says.

        Raises:
            ValueError: The part has choices and is repeated without limit.
        """
        if self.has_choices and most == UNLIMITED:
            raise ValueError(
                "it repeats without limit what has choices inside, which may never come to an end"
            )
        times = max(1, least if most == UNLIMITED else int(most))
        return Extent(self.least * least, self.size * times, self.has_choices or least != most)


def check_patterns(contents: Contents, path: Path | str) -> None:
    """Check that the patterns in all steps of a `tokenizer.json` are safe to run.

    Raises:
        ForeignTokenizerError: A pattern isn't safe to run.
    """
    for pattern in _patterns(
        [value for part, value in contents.items() if part not in ("model", "added_tokens")]
    ):
        try:
            extent_of(pattern)
        except ValueError as error:
            raise ForeignTokenizerError(
                f"{path} has the pattern {pattern[:200]!r}, but {error}"
            ) from error


def _patterns(steps: Any) -> Iterator[str]:
    if isinstance(steps, dict) and isinstance(pattern := steps.get("Regex"), str):
        yield pattern
    for inner in (
        steps.values() if isinstance(steps, dict) else steps if isinstance(steps, list) else ()
    ):
        yield from _patterns(inner)


def extent_of(pattern: str) -> Extent:
    """Find out what a pattern matches.

    Raises:
        ValueError: The pattern isn't safe to run, or isn't understood.
    """
    if len(pattern) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} characters")
    reader = _Reader(pattern)
    whole = reader.alternatives(0)
    if reader.place < len(pattern):
        raise ValueError(
            f"{pattern[reader.place : reader.place + 9]!r} in it is nothing that groundup "
            "understands"
        )
    if whole.size > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} parts")
    return whole


class _Reader:
    """Goes through a pattern; `place` is how far it is."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.place = pattern, 0

    def take(self, what: "regex.Pattern[str]") -> "regex.Match[str] | None":
        """What stands here, passed by if it is that."""
        if match := what.match(self.pattern, self.place):
            self.place = match.end()
        return match

    def alternatives(self, depth: int) -> Extent:
        """Sequences with `|` between them."""
        if depth > DEEPEST:
            raise ValueError(f"it has groups within more than {DEEPEST} others")
        found = self.sequence(depth)
        while self.pattern.startswith("|", self.place):
            self.place += 1
            found = found.instead_of(self.sequence(depth))
        return found

    def sequence(self, depth: int) -> Extent:
        """Parts one after the other, each as often as its quantifier says."""
        found = Extent()
        while (part := self.part(depth)) is not None:
            while times := self.take(TIMES):
                part = part.repeated(*_least_and_most(times))
            found = found.then(part)
        return found

    def part(self, depth: int) -> Extent | None:
        """A character, a class, a group or a place; None where there is none of them."""
        if self.pattern.startswith("[", self.place):
            self.place = _end_of_class(self.pattern, self.place)
            return Extent(1, 1)
        if self.take(NOWHERE):
            return Extent(0, 1)
        if group := self.take(OPENING):
            inner = self.alternatives(depth + 1)
            if not self.pattern.startswith(")", self.place):
                raise ValueError("a group in it never ends")
            self.place += 1
            return Extent(0, inner.size, inner.has_choices) if group[0] in LOOKING else inner
        return Extent(1, 1) if self.take(ONE) else None


def _least_and_most(times: "regex.Match[str]") -> tuple[int, float]:
    """How often a quantifier lets its part come."""
    sign, least, comma, most = times.groups()
    if sign:
        return int(sign == "+"), 1 if sign == "?" else UNLIMITED
    return int(least or 0), int(most) if most else UNLIMITED if comma else int(least)


def _end_of_class(pattern: str, place: int) -> int:
    """The place behind the `]` that ends the class beginning here; classes stand in classes."""
    depth = 0
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            place += 1
        elif character == "[":
            depth += 1
            place += pattern.startswith("^", place + 1)
            place += pattern.startswith("]", place + 1)  # the first in a class is itself
        elif character == "]":
            depth -= 1
            if not depth:
                return place + 1
        place += 1
    raise ValueError("a class in it never ends")
