"""Which slots are free, and which beginnings of texts they hold."""

from collections.abc import Sequence


class Pool:
    """The slots of an engine, by number.

    A beginning is held in whole pieces, as they were read: what a token's keys and values are, to
    the last bit, depends on the pieces in which a text was read. Tokens that were written one by
    one are never held.

    Args:
        slots: The number of slots.
        room: The number of tokens that a slot has room for.
        piece: The number of tokens of a piece.
    """

    def __init__(self, slots: int, room: int, piece: int) -> None:
        self.slots, self.room, self.piece = slots, room, piece
        self._free = list(range(slots))  # those that have been free for longest come first
        self._held: list[list[int]] = [[] for _ in range(slots)]

    @property
    def free(self) -> int:
        """The number of free slots."""
        return len(self._free)

    def take(self, text: Sequence[int]) -> tuple[int, int, int | None]:
        """Take a free slot for a text, the one that holds the most of it if there is one.

        Args:
            text: The tokens to be read, of which one at least remains to be read; or nothing, for a
                text that must be read whole.

        Returns:
            The slot, the number of tokens of the text whose keys and values are there already, and
            the slot from which they must be copied, or None if they are in place.
        """
        common = {slot: self._common(slot, text) for slot in range(self.slots)}
        source = max(common, key=lambda slot: (common[slot], slot in self._free))
        read = common[source]
        slot = source if read and source in self._free else self._free[0]
        self._free.remove(slot)
        self._held[slot] = list(text[:read])
        return slot, read, None if slot == source or not read else source

    def release(self, slot: int) -> None:
        """Make a slot free. What it holds stays until another text takes it."""
        self._free.append(slot)

    def hold(self, slot: int, text: Sequence[int]) -> None:
        """Note the beginning that a slot holds: whole pieces, or nothing."""
        assert len(text) % self.piece == 0
        self._held[slot] = list(text)

    def _common(self, slot: int, text: Sequence[int]) -> int:
        """Return how many tokens a slot holds of a text, in whole pieces."""
        held = self._held[slot]
        most = min(len(held), max(0, len(text) - 1)) // self.piece * self.piece
        ends = range(most, 0, -self.piece)
        return next((end for end in ends if held[:end] == list(text[:end])), 0)
