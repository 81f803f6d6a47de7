"""Stop strings: a text comes in pieces, and nothing from the first stop string on is shown."""


class StopFilter:
    """Shows a text up to the first stop string that it holds, however it is cut into pieces.

    Of several stop strings the one that begins first in the text counts. While one that would begin
    before a complete one can still come true, the matter is open: so the text shown is the same for
    all ways to cut it. Each stop string is followed by the automaton of Knuth, Morris and Pratt
    (1977), so that a character costs the same on average however long they are.

    Args:
        stops: The stop strings, none of them empty.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.found = False  # whether the text holds a stop string for certain
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)  # characters of each that the text ends with
        self._held = ""
        self._start: int | None = None  # where in `_held` the first complete one begins

    def push(self, piece: str) -> str:
        """Take the next piece of the text, and return what may be shown now.

        The longest end of the text that may be the beginning of a stop string is held back. Once
        `found`, nothing is shown any more.
        """
        if self.found:
            return ""
        length = len(self._held)  # of the text that isn't shown
        self._held += piece
        for character in piece:
            length += 1
            self._follow(character, length)
            if self._start is not None and self._start <= length - max(self._matched):
                return self._stop()
        return self._show(length - max(self._matched, default=0))

    def finish(self) -> str:
        """End the text, and return what was held back of it, up to a stop string."""
        return self._show(len(self._held)) if self._start is None else self._stop()

    def _follow(self, character: str, length: int) -> None:
        """Match a character, with which the text that isn't shown is `length` long."""
        for number, (stop, borders) in enumerate(self._stops):
            matched = self._matched[number]
            while matched and stop[matched] != character:
                matched = borders[matched - 1]
            matched += stop[matched] == character
            if matched == len(stop):
                start = length - matched
                self._start = start if self._start is None else min(self._start, start)
                matched = 0  # another one of it would begin later
            self._matched[number] = matched

    def _show(self, count: int) -> str:
        """Return the first `count` characters that are held, and hold the others."""
        shown, self._held = self._held[:count], self._held[count:]
        self._start = None if self._start is None else self._start - count
        return shown

    def _stop(self) -> str:
        """Return what comes before the stop string, and drop the rest."""
        self.found = True
        shown, self._held = self._held[: self._start], ""
        return shown


def _borders(stop: str) -> list[int]:
    """Return, for each beginning of a string, how long a shorter beginning it ends with at most."""
    borders = [0]
    for end in range(1, len(stop)):
        matched = borders[-1]
        while matched and stop[matched] != stop[end]:
            matched = borders[matched - 1]
        borders.append(matched + (stop[matched] == stop[end]))
    return borders
