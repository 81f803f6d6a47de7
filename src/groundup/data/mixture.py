"""Mixtures of corpora: each example comes from one of them, in exact shares, as a function of the
example's number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from groundup.data.permutation import permute, random_key
from groundup.data.sampler import Sampler
from groundup.errors import RecipeError

PERIOD = 2**16  # examples after which the order of the corpora repeats
PURPOSE = 2**63  # no epoch is that large: the random numbers of a mixture are none of a sampler's


@dataclass(frozen=True)
class Share:
    """A corpus of a mixture, and its share of the tokens: all shares make 1."""

    name: str
    weight: float


def parse_mixture(given: str, exists: Callable[[str], bool]) -> list[Share]:
    """`a:0.7,b:0.3` as its corpora with weights that sum to 1; what exists under the whole name is
    one corpus.

    exists: whether there is a file or folder of that name. Raises RecipeError.
    """
    pieces = [piece.strip().rpartition(":") for piece in given.split(",")]
    weights = [_number(weight) if name else None for name, _, weight in pieces]
    if exists(given) or all(weight is None for weight in weights):
        return [Share(given, 1.0)]
    for (name, _, said), weight in zip(pieces, weights, strict=True):
        if weight is None:
            raise RecipeError(
                f"data.corpus = {given} has {name + ':' if name else ''}{said or 'an empty name'} "
                "without a weight: a mixture is NAME:WEIGHT,NAME:WEIGHT, as in a:0.7,b:0.3"
            )
        if not (math.isfinite(weight) and weight > 0):
            raise RecipeError(
                f"data.corpus = {given} gives {name} the weight {said}: choose a finite one above 0"
            )
    total, names = math.fsum(weight or 0.0 for weight in weights), [name for name, _, _ in pieces]
    shares = [
        Share(name, (weight or 0.0) / total) for name, weight in zip(names, weights, strict=True)
    ]
    for share in shares:
        if names.count(share.name) > 1:
            raise RecipeError(f"data.corpus = {given} names {share.name} twice: give it one weight")
        if share.weight < 1 / PERIOD:
            raise RecipeError(
                f"data.corpus = {given} gives {share.name} {share.weight:.2g} of the tokens, but "
                f"a share has to be at least 1 in {PERIOD:,}: raise its weight, or leave it out"
            )
    return shares


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def seed_of(seed: int, place: int) -> int:
    """The seed of the corpus at that place of a mixture."""
    return int(random_key(seed, PURPOSE, 2 + place)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Mixture:
    """Batches whose rows come from several samplers, in shares that are exact over `PERIOD`
    examples but for rounding.

    Systematic sampling: the slots of a period lie evenly spread, from a seeded offset on, over the
    cumulated shares, so each corpus has its share rounded up or down, and exactly its share on
    average over seeds; a seeded permutation is the order in which slots come. An example's place in
    its corpus is a closed form: the whole state is the step, the memory is constant, and every
    corpus goes through its own epochs. The samplers have one block and batch size.
    """

    samplers: tuple[Sampler, ...]
    shares: tuple[float, ...]
    seed: int

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.samplers[0].batch_size

    @property
    def windows_per_epoch(self) -> int:
        """As many as all corpora have together: larger shares are passed over more often, smaller
        ones not wholly.
        """
        return sum(sampler.windows_per_epoch for sampler in self.samplers)

    @cached_property
    def _pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each example of a period its corpus and its place there, [PERIOD] each; of each corpus
        its examples.
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
        """The windows of batch `step`, or those of its `rows`: [rows, block_size + 1] int64."""
        owners, places = self.origins(step * self.batch_size + np.arange(self.batch_size)[rows])
        found = np.empty((len(owners), self.samplers[0].block_size + 1), dtype=np.int64)
        for corpus in map(int, np.unique(owners)):
            inside = owners == corpus
            found[inside] = self.samplers[corpus].windows(places[inside])
        return torch.from_numpy(found)

    def origins(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The corpus of each example, and its place in that corpus's endless order. examples: [n]
        -> [n], [n]
        """
        owners, places, counts = self._pattern
        periods, inside = np.divmod(examples, PERIOD)
        return owners[inside], periods * counts[owners[inside]] + places[inside]
