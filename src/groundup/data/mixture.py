"""Mixes corpora: the number of an example alone decides which corpus the example comes from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from groundup.data.permutation import PERIOD, permute, random_key
from groundup.data.sampler import Sampler

PURPOSE = 2**63  # no epoch is that large: the random numbers of a mixture are none of a sampler's


def seed_of(seed: int, place: int) -> int:
    """Derive the seed of one corpus from a mixture's seed and the index of the corpus."""
    return int(random_key(seed, PURPOSE, 2 + place)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Mixture:
    """Batches whose rows come from several samplers, in shares that are exact but for rounding.

    The method is systematic sampling. A period is 2^16 examples, whose slots lie at even distances,
    from a seeded offset on, over the cumulated shares. So each corpus has its share of the slots
    rounded up or down, and exactly its share on average over seeds. A seeded permutation decides
    the order of the slots. A closed formula gives the position of an example in its corpus, so the
    step is the whole state, the memory is constant, and every corpus has its own epochs.

    Args:
        samplers: One sampler for each corpus, all of the same block size and batch size.
        shares: The share of each corpus; the sum of the shares is 1.
        seed: Decides the order of the examples.
    """

    samplers: tuple[Sampler, ...]
    shares: tuple[float, ...]
    seed: int

    @property
    def batch_size(self) -> int:
        """The number of rows in a batch."""
        return self.samplers[0].batch_size

    @property
    def windows_per_epoch(self) -> int:
        """The number of windows in all corpora.

        In that many examples a corpus with a large share is read more than once, and a corpus with
        a small share isn't read to its end.
        """
        return sum(sampler.windows_per_epoch for sampler in self.samplers)

    @cached_property
    def _pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each example of a period its corpus and its place there, [PERIOD] each.

        And of each corpus how many examples of a period it has.
        """
        offset = float(random_key(self.seed, PURPOSE, 0)[0] >> np.uint64(11)) * 2.0**-53
        slots = (np.arange(PERIOD) + offset) / PERIOD
        owners = np.searchsorted(np.cumsum(self.shares)[:-1], slots, side="right").astype(np.int32)
        order = permute(np.arange(PERIOD), PERIOD, random_key(self.seed, PURPOSE, 1))
        owners = owners[order]
        places = np.empty(PERIOD, dtype=np.int64)
        for corpus in range(len(self.samplers)):
            members = np.flatnonzero(owners == corpus)
            places[members] = np.arange(len(members))
        return owners, places, np.bincount(owners, minlength=len(self.samplers))

    def batch(self, step: int, rows: slice = slice(None)) -> Tensor:
        """Give the windows of batch `step`, or only the windows of some of its rows.

        Returns:
            [rows, block_size + 1] int64.

        Raises:
            CorpusError: A token isn't in the vocabulary.
        """
        owners, places = self.origins(step * self.batch_size + np.arange(self.batch_size)[rows])
        found = np.empty((len(owners), self.samplers[0].block_size + 1), dtype=np.int64)
        for corpus in map(int, np.unique(owners)):
            inside = owners == corpus
            found[inside] = self.samplers[corpus].windows(places[inside])
        return torch.from_numpy(found)

    def origins(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find each example's corpus, and its position in the endless order of that corpus.

        Args:
            examples: The numbers of the examples, [n].

        Returns:
            The indices of the corpora, [n], and the positions, [n].
        """
        owners, places, counts = self._pattern
        periods, inside = np.divmod(examples, PERIOD)
        return owners[inside], periods * counts[owners[inside]] + places[inside]
