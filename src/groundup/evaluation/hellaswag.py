"""HellaSwag (Zellers et al. 2019) as a task: two conventions and the published accuracies.

The same model gets different accuracies by build-nanogpt's convention, `completion`, and by that of
lm-evaluation-harness, `harness`.
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from groundup.data.choice_items import Item, ItemsFile
from groundup.data.hellaswag_items import is_official, open_items, preprocessed
from groundup.errors import EvaluationError
from groundup.evaluation.multiple_choice import MultipleChoice
from groundup.evaluation.requests import COMPLETION, Convention, Request, encode
from groundup.evaluation.scoring import Continuations
from groundup.evaluation.task import Settings
from groundup.tokenizers.base import Tokenizer


def harness(item: Item, tokenizer: Tokenizer) -> Request:
    """Make the request that scores an item: the preprocessed context, then a space and each ending.

    As in lm-evaluation-harness 0.4, the measure acc compares the sums of the log-probabilities of
    the endings, acc_norm divides each sum by the ending's number of characters, and acc_bytes by
    its number of bytes.

    Raises:
        EvaluationError: The item has no activity label, or can't be encoded.
    """
    if item.activity is None:
        raise EvaluationError(
            f"item {item.number} has no activity_label, which the harness's question begins with. "
            "Leave the harness out: --convention completion"
        )
    context, endings = preprocessed(item)
    pairs = [encode_pair(item, context, f" {ending}", tokenizer) for ending in endings]
    lengths = {
        "acc": (1,) * len(endings),
        "acc_norm": tuple(map(len, endings)),
        "acc_bytes": tuple(len(ending.encode("utf-8")) for ending in endings),
    }
    continuations = Continuations(pairs[0][0], tuple(ending for _, ending in pairs))
    return Request(item, continuations, lengths)


def encode_pair(
    item: Item, context: str, ending: str, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Encode an item's context and one of its endings together, and cut them apart.

    The cut is after as many tokens as the context alone has. White space at the end of the context
    goes to the ending.

    Returns:
        The tokens of the context, and those of the ending.

    Raises:
        EvaluationError: A text can't be encoded, or has no tokens.
    """
    context_alone = context.rstrip()
    alone = encode(item, context_alone, tokenizer)
    return alone, encode(item, context + ending, tokenizer, after=len(alone))


# In percent, on all 10,042 items: what build-nanogpt's hellaswag.py states for both conventions.
CONVENTIONS = {
    "completion": replace(
        COMPLETION,
        published={
            "GPT-2 124M": {"acc": 28.59, "acc_norm": 29.55},
            "GPT-2 1.5B": {"acc": 38.42, "acc_norm": 48.93},
        },
    ),
    "harness": Convention(
        harness,
        {
            "acc": "sum of the log-probabilities",
            "acc_norm": "sum over characters",
            "acc_bytes": "sum over bytes",
        },
        published={
            "GPT-2 124M": {"acc": 28.92, "acc_norm": 31.14},
            "GPT-2 1.5B": {"acc": 40.04, "acc_norm": 50.89},
        },
    ),
}


class HellaSwag(MultipleChoice):
    """The task HellaSwag on its validation items: the official ones, or a file of the user's."""

    name = "hellaswag"
    flags = ("file", "per-item", "convention")
    conventions: ClassVar = CONVENTIONS

    @classmethod
    def read(cls, settings: Settings) -> ItemsFile:
        return open_items(settings.file, settings.flag)

    @property
    def is_official(self) -> bool:
        return is_official(self.file)

    def said_of_guessing(self) -> str:
        return (
            "published: on all 10,042 official items, by the same convention; guessing is right in "
            "25%"
        )
