"""Requests, which put an item's tokens to a model by a convention, and what the model chooses.

A convention says which tokens are scored after which others, and a measure how scores become a
choice. An accuracy depends on both, so it means nothing without the convention and the measure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groundup.data.choice_items import Item
from groundup.errors import EvaluationError, TokenizerError
from groundup.evaluation.scoring import (
    Continuations,
    check_endings,
    count_passes,
    pass_ignored_tokens,
    sums_of_endings,
)
from groundup.models.registry import Model
from groundup.parallel.world import World
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Request:
    """An item of a multiple-choice task, as a convention puts it to a model.

    Args:
        item: The item.
        continuations: The context's tokens and each ending's.
        lengths: For each measure, what the sum of each ending's log-probabilities is divided by
            before the largest is chosen.
    """

    item: Item
    continuations: Continuations
    lengths: dict[str, tuple[int, ...]]

    def choices(self, sums: Sequence[float]) -> dict[str, int]:
        """Choose the best ending by each measure, or the first of several that are equally good.

        Args:
            sums: The sum of each ending's log-probabilities, in nats.

        Returns:
            The index of the chosen ending, by the name of the measure.
        """
        return {measure: _largest(sums, lengths) for measure, lengths in self.lengths.items()}


def _largest(sums: Sequence[float], lengths: Sequence[int]) -> int:
    pairs = zip(sums, lengths, strict=True)
    return int(np.argmax([total / length if length else -np.inf for total, length in pairs]))


@dataclass(frozen=True)
class Convention:
    """A way to put items to a model.

    Args:
        request: Makes the `Request` of an item, or raises EvaluationError if that is impossible.
        decides: For each measure, in words, the score by which the chosen ending is the best.
        published: For each model with published results, the accuracy by each measure, in percent.
    """

    request: Callable[[Item, Tokenizer], Request]
    decides: dict[str, str]
    published: dict[str, dict[str, float]] = field(default_factory=dict)

    def requests(
        self, items: Sequence[Item], tokenizer: Tokenizer, block_size: int
    ) -> list[Request]:
        """Make the requests of all items.

        Raises:
            EvaluationError: An item can't be encoded, or an ending is longer than `block_size`.
        """
        requests = [self.request(item, tokenizer) for item in items]
        check_endings([request.continuations for request in requests], block_size)
        return requests


def completion(item: Item, tokenizer: Tokenizer) -> Request:
    """Make the request that scores an item: the raw context, then a space and each raw ending.

    Context and ending are encoded separately, as in build-nanogpt's `hellaswag.py`. The
    measure acc compares the sums of the log-probabilities of the endings, acc_norm the means per
    token.
    """
    context = encode(item, item.context, tokenizer)
    endings = tuple(encode(item, f" {ending}", tokenizer) for ending in item.endings)
    lengths = {"acc": (1,) * len(endings), "acc_norm": tuple(map(len, endings))}
    return Request(item, Continuations(context, endings), lengths)


COMPLETION = Convention(
    completion, {"acc": "sum of the log-probabilities", "acc_norm": "their mean of a token"}
)


def encode(item: Item, text: str, tokenizer: Tokenizer, after: int = 0) -> np.ndarray:
    """Encode a text of an item, without its first `after` tokens, [tokens] int64.

    Raises:
        EvaluationError: The text can't be encoded, or no token is left.
    """
    try:
        tokens = tokenizer.encode(text)[after:]
    except TokenizerError as error:
        raise EvaluationError(f"{item.name} can't become tokens: {error}") from error
    if not len(tokens):
        raise EvaluationError(f"{item.name} has no tokens in {text[-60:]!r}: nothing can be scored")
    return tokens


@dataclass(frozen=True)
class ScoredItem:
    """How a model scored the endings of a request, and what it chose.

    Args:
        request: The request.
        sums: The sum of each ending's log-probabilities, in nats.
        choices: The index of the ending that each measure chooses, by the measure's name.
    """

    request: Request
    sums: tuple[float, ...]
    choices: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the endings' scores and lengths, and the choices that follow from them."""
        tokens = [len(ending) for ending in self.request.continuations.endings]
        lengths = {
            f"{measure}_lengths": lengths
            for measure, lengths in self.request.lengths.items()
            if measure != "acc"
        }
        return {"log_probabilities": self.sums, "tokens": tokens, "choices": self.choices} | lengths


def score_requests(
    model: Model,
    requests: Sequence[Request],
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[ScoredItem]:
    """Let a model score the endings of requests, and return the scores in the same order.

    Args:
        model: A model in evaluation mode.
        requests: The requests.
        batch_size: How many requests are computed together at the most.
        progress: Is told after each batch how many requests are done.

    Raises:
        EvaluationError: A log-probability isn't finite.
    """
    asked = [request.continuations for request in requests]
    scored = []
    for request, sums in zip(
        requests, sums_of_endings(model, asked, batch_size, progress), strict=True
    ):
        if not all(map(math.isfinite, sums)):
            raise EvaluationError(
                f"the model gives {request.item.name} the log-probabilities {sums}, which are no "
                "numbers to choose by: its weights are damaged, or it overflows in the precision "
                "that it is kept in"
            )
        scored.append(ScoredItem(request, tuple(sums), request.choices(sums)))
    return scored


def score_share(
    model: Model,
    requests: Sequence[Request],
    batch_size: int,
    world: World,
    progress: Callable[[int], None] = lambda _: None,
) -> list[ScoredItem]:
    """Score this process's share of the requests, with equally many passes in all processes.

    The share that needs the most forward passes decides the number. The other processes add passes
    over a token whose scores nobody uses. `progress` is called after each batch.
    """
    shares = [requests[rank :: world.size] for rank in range(world.size)]
    scored = score_requests(model, shares[world.rank], batch_size, progress)
    if world.size > 1:
        passes = [
            count_passes(model, [request.continuations for request in share], batch_size)
            for share in shares
        ]
        pass_ignored_tokens(model, max(passes) - passes[world.rank])
    return scored
