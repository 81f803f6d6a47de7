"""Statistics of documents, gathered at a fraction of the time that tokenizing them takes."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from groundup.data.shard_folder import damaged

LONGEST = 5  # lines that are remembered
FEW = 200  # characters: from here on numpy is faster than Python's sets
MANY = 16  # lines: from here on numpy is faster than jumps
REPLACEMENT, BYTE_ORDER_MARK = "\ufffd", "\ufeff"
SURROGATES = re.compile("[\ud800-\udfff]")
# all but tab, newline, form feed and carriage return
CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
# How UTF-8 looks that was read as Latin-1 or CP1252: accented letters, no-break spaces and signs;
# curly quotes and dashes; byte-order marks and U+FFFD; emoji. It is a part of what there is,
# because the rest occurs in sound texts too.
MOJIBAKE = re.compile("Â[\x80-\xbf]|Ã[\x80-\xbf]|â[€\x80]|ï»¿|ï¿½|ð[Ÿ\x9f]")
# what every kind of damage beyond ASCII holds, but for controls
SUSPECTS = "ÂÃâïð" + REPLACEMENT + BYTE_ORDER_MARK

# What public corpora write where a document or a line ends; text never becomes a special token.
MARKERS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<eos>", "</s>", "[SEP]")
MARKERS_IN_UTF8 = tuple(marker.encode("utf-8") for marker in MARKERS)

KINDS: dict[str, Callable[[str], int]] = {
    "literal markers": lambda text: sum(map(text.count, MARKERS)),
    "replacement characters": lambda text: text.count(REPLACEMENT),
    "lone surrogates": lambda text: len(SURROGATES.findall(text)),
    "NUL characters": lambda text: text.count("\0"),
    "control characters": lambda text: len(CONTROLS.findall(text)) - text.count("\0"),
    "byte-order marks": lambda text: text.count(BYTE_ORDER_MARK),
    "mojibake": lambda text: len(MOJIBAKE.findall(text)),
}


@dataclass
class Damage:
    """One kind of encoding damage: how often it occurs, in how many documents, and where first."""

    count: int
    documents: int
    example: str


@dataclass(frozen=True)
class LongLine:
    """A line's length in characters, without its newline, and the document that it is in."""

    characters: int
    origin: str


@dataclass
class Statistics:
    """Statistics of some documents.

    The statistics of groups of documents, merged in the order of the documents, equal the
    statistics of all documents at once.

    Args:
        documents: The number of documents.
        size: The size of all documents in bytes of UTF-8.
        longest_lines: The longest lines, the longest first; of equal lines the earlier comes first.
        damage: Encoding damage by its kind, see `KINDS`.
        characters: The characters that occur; a lone surrogate counts as U+FFFD.
    """

    documents: int = 0
    size: int = 0
    longest_lines: list[LongLine] = field(default_factory=list)
    damage: dict[str, Damage] = field(default_factory=dict)
    characters: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._ascii, self._beyond, self._seen = b"", set[str](), np.zeros(0, bool)
        given, self.characters = self.characters, set()
        self._learn(given)

    def examine(self, text: str, data: bytes, origin: str) -> None:
        """Add a document to the statistics.

        Args:
            text: The document's text as it was read, lone surrogates included.
            data: The text in UTF-8, with U+FFFD for each lone surrogate.
            origin: Where the document is from.
        """
        self.documents += 1
        self.size += len(data)
        if len(self.longest_lines) < LONGEST or (
            len(text) > (least := self.longest_lines[-1].characters)
            and _longest_line(data, MANY * least) > least
        ):
            self._measure_lines(text, origin)
        # What is left is what is new or looks damaged, and characters beyond ASCII: in most
        # documents nothing.
        unusual = data.translate(None, self._ascii)
        beyond = unusual.decode("utf-8")
        is_new = bool(unusual) and not self._is_familiar(beyond)
        if is_new:
            self._learn(set(beyond))
        if is_new or any(marker in data for marker in MARKERS_IN_UTF8):
            self._look_for_damage(text, origin)

    def _is_familiar(self, characters: str) -> bool:
        """Whether all were seen, and none, nor any two that may be neighbours, looks damaged."""
        if len(characters) < FEW:
            if not self._beyond.issuperset(characters):
                return False
        else:
            codes = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
            if not self._seen.size or not self._seen[codes].all():
                return False
        if not any(map(characters.__contains__, SUSPECTS)):
            return True
        is_marked = REPLACEMENT in characters or BYTE_ORDER_MARK in characters
        return not is_marked and not MOJIBAKE.search(characters)

    def _learn(self, characters: set[str]) -> None:
        """Make them known, so that the next document passes quickly; controls never do."""
        characters = characters - self.characters
        self.characters |= characters
        quiet = {character for character in characters if not CONTROLS.match(character)}
        self._beyond |= {character for character in quiet if not character.isascii()}
        codes = {ord(character) for character in quiet}
        self._ascii = bytes(sorted({*self._ascii, *(code for code in codes if code < 128)}))
        if self._beyond:
            self._seen = self._seen if self._seen.size else np.zeros(0x110000, bool)
            self._seen[list(codes)] = True

    def _look_for_damage(self, text: str, origin: str) -> None:
        for kind, count_in in KINDS.items():
            if count := count_in(text):
                damage = self.damage.setdefault(kind, Damage(0, 0, origin))
                damage.count += count
                damage.documents += 1

    def _measure_lines(self, text: str, origin: str) -> None:
        """Find lines longer than those remembered, from newline to newline, by jumps."""
        start = 0
        while start < len(text):
            least = self.longest_lines[-1].characters if len(self.longest_lines) == LONGEST else -1
            if len(text) - start <= least:
                return
            if least >= 0 and (newline := text.rfind("\n", start, start + least + 1)) >= 0:
                start = newline + 1
                continue
            end = text.find("\n", start + least + 1)
            end = end if end >= 0 else len(text)
            self._remember([LongLine(end - start, origin)])
            start = end + 1

    def _remember(self, lines: list[LongLine]) -> None:
        """Keep the longest; sorting is stable, so equals stay in their order."""
        together = [*self.longest_lines, *lines]
        self.longest_lines = sorted(together, key=lambda line: -line.characters)[:LONGEST]

    def merge(self, later: "Statistics") -> None:
        """Add the statistics of documents that come after all documents examined so far."""
        self.documents += later.documents
        self.size += later.size
        self._remember(later.longest_lines)
        for kind, damage in later.damage.items():
            known = self.damage.setdefault(kind, Damage(0, 0, damage.example))
            known.count += damage.count
            known.documents += damage.documents
        self._learn(later.characters)

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as values that JSON knows, the same for equal statistics."""
        return {
            "documents": self.documents,
            "bytes": self.size,
            "longest_lines": [asdict(line) for line in self.longest_lines],
            "damage": {kind: asdict(self.damage[kind]) for kind in KINDS if kind in self.damage},
            "characters": "".join(sorted(self.characters)),
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "statistics") -> "Statistics":
        """Make the statistics from values that `to_json` returned.

        Args:
            value: A value from JSON.
            where: Where the value stands, for the error's message.

        Raises:
            CorpusError: The value is something else.
        """
        try:
            lines = [LongLine(**line) for line in value["longest_lines"]]
            kinds = {kind: found for kind, found in value["damage"].items() if kind in KINDS}
            damage = {kind: Damage(**found) for kind, found in kinds.items()}
            counts = int(value["documents"]), int(value["bytes"])
            return cls(*counts, lines, damage, set(value["characters"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(where, error) from error


def _longest_line(data: bytes, enough: int) -> int:
    """At least the characters of the longest line of UTF-8; all if there aren't `enough`."""
    if len(data) < enough:
        return len(data)
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    if not len(newlines):
        return len(data)
    within = int((newlines[1:] - newlines[:-1]).max()) - 1 if len(newlines) > 1 else 0
    return max(int(newlines[0]), len(data) - 1 - int(newlines[-1]), within)
