"""A text cut into the same passages for two tokenizers, so that two losses can be paired."""

from dataclasses import dataclass

import numpy as np

SIZE = 1024  # bytes: long enough for neighbours to count as independent of each other


@dataclass(frozen=True)
class Reading:
    """How a model read a text: sizes, the bytes of each token [tokens]; losses, of each but the
    first [tokens - 1].
    """

    sizes: np.ndarray
    losses: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """The byte after each token, [tokens]."""
        return np.cumsum(self.sizes)

    def sums(self, cuts: np.ndarray) -> np.ndarray:
        """The nats from each cut to the next: of the tokens that end after the one and not after
        the other.
        """
        # of the last token before each cut
        places = np.searchsorted(self.ends, cuts, side="right") - 1
        total = np.concatenate([[0.0], np.cumsum(self.losses, dtype=np.float64)])
        return np.diff(total[places])


@dataclass(frozen=True)
class Passages:
    """The same stretches for both: their bytes [passages], and each model's nats [2, passages] and
    tokens [2].
    """

    sizes: np.ndarray
    nats: np.ndarray
    tokens: np.ndarray

    @classmethod
    def joined(cls, several: list["Passages"]) -> "Passages":
        """Those of all streams."""
        return cls(
            np.concatenate([some.sizes for some in several]),
            np.concatenate([some.nats for some in several], axis=1),
            np.sum([some.tokens for some in several], axis=0),
        )

    def __len__(self) -> int:
        return len(self.sizes)


def common_passages(readings: tuple[Reading, Reading], size: int = SIZE) -> Passages:
    """Cut where a token of both readings ends, `size` bytes apart or a little more; what is left
    goes to the last.

    Both read the same bytes. The passages begin behind the first token of both, which nobody
    predicts.
    """
    cuts = _cuts(np.intersect1d(readings[0].ends, readings[1].ends), size)
    counted = [
        int(np.diff(np.searchsorted(reading.ends, cuts[[0, -1]], side="right"))[0])
        for reading in readings
    ]
    return Passages(
        np.diff(cuts), np.stack([reading.sums(cuts) for reading in readings]), np.array(counted)
    )


def _cuts(boundaries: np.ndarray, size: int) -> np.ndarray:
    """The first boundary, the next that is `size` away, and so on to the last. boundaries: sorted,
    at least one
    """
    cuts, last = [int(boundaries[0])], int(boundaries[-1])
    while last - cuts[-1] >= 2 * size:
        cuts.append(int(boundaries[np.searchsorted(boundaries, cuts[-1] + size)]))
    return np.array([*cuts, last] if last > cuts[-1] else cuts)
