"""HellaSwag's two conventions: which tokens are scored after which others, and how scores become a
choice.

The same model gets different figures by them: a figure says nothing without its convention.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from groundup.data.hellaswag_items import Item
from groundup.errors import EvaluationError, TokenizerError
from groundup.evaluation.scoring import Continuations
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Question:
    """An item as a convention puts it: after the context's tokens, how probable are each ending's?

    context, endings: [tokens] int64 each. lengths: for each measure, what the sum of an ending's
    log-probabilities is divided by before the largest is chosen.
    """

    item: Item
    context: np.ndarray
    endings: tuple[np.ndarray, ...]
    lengths: dict[str, tuple[int, ...]]

    @property
    def asked(self) -> Continuations:
        """What is to be scored."""
        return Continuations(self.context, self.endings)

    def choices(self, sums: Sequence[float]) -> dict[str, int]:
        """The ending that each measure chooses, by the sums of the endings' log-probabilities; the
        first of equals.
        """
        return {measure: _largest(sums, lengths) for measure, lengths in self.lengths.items()}


def _largest(sums: Sequence[float], lengths: Sequence[int]) -> int:
    means = [
        total / length if length else -np.inf for total, length in zip(sums, lengths, strict=True)
    ]
    return int(np.argmax(means))


def completion(item: Item, tokenizer: Tokenizer) -> Question:
    """The raw context, then a space and the raw ending: acc by the sum, acc_norm by the mean of a
    token.

    As build-nanogpt's `hellaswag.py` has it: context and ending are encoded each for itself.
    """
    context = _encode(item, item.context, tokenizer)
    endings = tuple(_encode(item, f" {ending}", tokenizer) for ending in item.endings)
    lengths = {"acc": (1,) * len(endings), "acc_norm": tuple(map(len, endings))}
    return Question(item, context, endings, lengths)


def harness(item: Item, tokenizer: Tokenizer) -> Question:
    """The cleaned activity and context, then a space and the cleaned ending, as
    lm-evaluation-harness 0.4 has it.

    acc by the sum, acc_norm by the sum over the characters of the ending, acc_bytes by that over
    its bytes. An item without `ctx_a` and `ctx_b` is asked with its `ctx` as it is. Raises
    EvaluationError for one without an activity.
    """
    if item.activity is None:
        raise EvaluationError(
            f"item {item.number} has no activity_label, which the harness's question begins with. "
            "Leave the harness out: --convention completion"
        )
    context = (
        item.context if item.parts is None else f"{item.parts[0]} {item.parts[1].capitalize()}"
    )
    query, endings = (
        cleaned(f"{item.activity}: {context}"),
        [cleaned(ending) for ending in item.endings],
    )
    pairs = [encode_pair(item, query, f" {ending}", tokenizer) for ending in endings]
    lengths = {
        "acc": (1,) * len(endings),
        "acc_norm": tuple(map(len, endings)),
        "acc_bytes": tuple(len(ending.encode("utf-8")) for ending in endings),
    }
    return Question(item, pairs[0][0], tuple(ending for _, ending in pairs), lengths)


CONVENTIONS: dict[str, Callable[[Item, Tokenizer], Question]] = {
    "completion": completion,
    "harness": harness,
}


def ways_of(convention: str) -> list[str]:
    """The conventions that a name means: itself, or all for `both`."""
    return list(CONVENTIONS) if convention == "both" else [convention]


# In percent, on all 10,042 items: what build-nanogpt's hellaswag.py states for both conventions.
PUBLISHED = {
    "GPT-2 124M": {
        "completion": {"acc": 28.59, "acc_norm": 29.55},
        "harness": {"acc": 28.92, "acc_norm": 31.14},
    },
    "GPT-2 1.5B": {
        "completion": {"acc": 38.42, "acc_norm": 48.93},
        "harness": {"acc": 40.04, "acc_norm": 50.89},
    },
}


def cleaned(text: str) -> str:
    """The text without what its source, WikiHow, put in brackets; a title becomes a sentence of its
    own.
    """
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def encode_pair(
    item: Item, context: str, ending: str, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Both encoded together, cut where the context alone would end; its trailing white space goes
    to the ending.
    """
    kept = context.rstrip()
    alone = _encode(item, kept, tokenizer)
    return alone, _encode(item, context + ending, tokenizer, after=len(alone))


def _encode(item: Item, text: str, tokenizer: Tokenizer, after: int = 0) -> np.ndarray:
    """The text's tokens from place `after` on. Raises EvaluationError where there are none."""
    try:
        tokens = tokenizer.encode(text)[after:]
    except TokenizerError as error:
        raise EvaluationError(
            f"item {item.number} of HellaSwag can't become tokens: {error}"
        ) from error
    if not len(tokens):
        raise EvaluationError(
            f"item {item.number} of HellaSwag has no tokens in {text[-60:]!r}: nothing can be "
            "scored"
        )
    return tokens
