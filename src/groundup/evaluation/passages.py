"""Cuts a text into the same passages for two tokenizers, so that two models can be compared."""

from dataclasses import dataclass

import numpy as np

SIZE = 1024  # bytes: long enough for neighbours to count as independent of each other


@dataclass(frozen=True)
class Reading:
    """How a model read a text.

    Args:
        sizes: The number of bytes of each token, [tokens].
        losses: The loss of each token but the first, in nats, [tokens - 1].
    """

    sizes: np.ndarray
    losses: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """The number of bytes up to the end of each token, [tokens]."""
        return np.cumsum(self.sizes)

    def sums(self, cuts: np.ndarray) -> np.ndarray:
        """Sum the losses, in nats, of the tokens between each cut of the text and the next cut.

        A token that ends exactly at a cut counts to the passage before the cut.

        Args:
            cuts: The number of bytes before each cut, [cuts].

        Returns:
            [cuts - 1].
        """
        last = np.searchsorted(self.ends, cuts, side="right") - 1  # the last token before each cut
        total = np.concatenate([[0.0], np.cumsum(self.losses, dtype=np.float64)])
        return np.diff(total[last])


@dataclass(frozen=True)
class Passages:
    """The same passages of a text for two models.

    Args:
        sizes: The number of bytes of each passage, [passages].
        nats: Each model's loss on each passage, summed over tokens, in nats, [2, passages].
        tokens: How many tokens each model predicted, [2].
    """

    sizes: np.ndarray
    nats: np.ndarray
    tokens: np.ndarray

    @classmethod
    def joined(cls, several: list["Passages"]) -> "Passages":
        """Join the passages of several streams of tokens, in their order."""
        return cls(
            np.concatenate([some.sizes for some in several]),
            np.concatenate([some.nats for some in several], axis=1),
            np.sum([some.tokens for some in several], axis=0),
        )

    def __len__(self) -> int:
        return len(self.sizes)


def common_passages(readings: tuple[Reading, Reading], size: int = SIZE) -> Passages:
    """Cut a text that two models read where a token of both ends, after `size` bytes or more.

    The models read the same bytes. The first passage begins where for the first time a token ends
    in both readings, because no model predicts its first token. What is left at the end of the
    text goes to the last passage.
    """
    cuts = _cuts(np.intersect1d(readings[0].ends, readings[1].ends), size)
    counted = [
        int(np.diff(np.searchsorted(reading.ends, cuts[[0, -1]], side="right"))[0])
        for reading in readings
    ]
    nats = np.stack([reading.sums(cuts) for reading in readings])
    return Passages(np.diff(cuts), nats, np.array(counted))


def _cuts(boundaries: np.ndarray, size: int) -> np.ndarray:
    """The first of the sorted boundaries, the next that is `size` away, and so on to the last."""
    cuts, last = [int(boundaries[0])], int(boundaries[-1])
    while last - cuts[-1] >= 2 * size:
        cuts.append(int(boundaries[np.searchsorted(boundaries, cuts[-1] + size)]))
    return np.array([*cuts, last] if last > cuts[-1] else cuts)
