"""HellaSwag (Zellers et al. 2019): of four endings, does the model find the right one the most
probable?
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from groundup.data.hellaswag_items import Item
from groundup.errors import EvaluationError
from groundup.evaluation.conventions import CONVENTIONS, PUBLISHED, Question
from groundup.evaluation.scoring import check_endings, is_cut, sums_of_endings
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Answer:
    """What a model made of an item: the sum of each ending's log-probabilities, in nats, and each
    measure's choice.
    """

    question: Question
    sums: tuple[float, ...]
    choices: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """All that decided the choices."""
        tokens = [len(ending) for ending in self.question.endings]
        return {"log_probabilities": self.sums, "tokens": tokens, "choices": self.choices} | {
            f"{measure}_lengths": lengths
            for measure, lengths in self.question.lengths.items()
            if measure != "acc"
        }


@dataclass(frozen=True)
class Accuracy:
    """How many items a measure chose rightly, by one convention."""

    convention: str
    measure: str
    right: int
    items: int

    def to_json(self) -> dict[str, Any]:
        """Shares of 1; what is published for known models, in percent, beside it."""
        low, high = wilson(self.right, self.items)
        published = {
            model: figures[self.convention][self.measure]
            for model, figures in PUBLISHED.items()
            if self.measure in figures[self.convention]
        }
        found = {
            "convention": self.convention,
            "measure": self.measure,
            "right": self.right,
            "items": self.items,
        }
        return found | {
            "accuracy": self.right / self.items,
            "interval": [low, high],
            "published_percent": published,
        }


@dataclass(frozen=True)
class Sitting:
    """All items, asked by one convention. cut: items whose context didn't fit the model and lost
    its beginning.
    """

    convention: str
    answers: list[Answer]
    cut: int
    seconds: float

    def right(self, measure: str) -> list[bool]:
        """Item by item, whether the choice by that measure is the right one."""
        return [answer.choices[measure] == answer.question.item.label for answer in self.answers]

    @property
    def accuracies(self) -> list[Accuracy]:
        """One for each of the convention's measures."""
        return [
            Accuracy(self.convention, measure, sum(self.right(measure)), len(self.answers))
            for measure in self.measures
        ]

    @property
    def measures(self) -> list[str]:
        """Those of the convention."""
        return list(self.answers[0].choices)


def ask(
    model: Model,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    convention: str,
    *,
    batch_size: int,
    tell: Callable[[int], None] = lambda _: None,
) -> Sitting:
    """Put items to a model in evaluation mode, as `convention` does. Raises EvaluationError."""
    started = time.perf_counter()
    questions = questions_of(items, tokenizer, convention, model.block_size)
    answers = answer(model, questions, batch_size, tell)
    cut = sum(is_cut(question.asked, model.block_size) for question in questions)
    return Sitting(convention, answers, cut, time.perf_counter() - started)


def questions_of(
    items: Sequence[Item], tokenizer: Tokenizer, convention: str, block_size: int
) -> list[Question]:
    """The items as `convention` puts them. Raises EvaluationError where a model of that context
    can't be asked one.
    """
    questions = [CONVENTIONS[convention](item, tokenizer) for item in items]
    check_endings([question.asked for question in questions], block_size)
    return questions


def answer(
    model: Model,
    questions: Sequence[Question],
    batch_size: int,
    tell: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """What a model in evaluation mode chooses. Raises EvaluationError where it gives no number."""
    sums = sums_of_endings(model, [question.asked for question in questions], batch_size, tell)
    for question, found in zip(questions, sums, strict=True):
        if not all(map(math.isfinite, found)):
            raise EvaluationError(
                f"the model gives item {question.item.number} of HellaSwag the log-probabilities "
                f"{found}, which are no numbers to choose by: its weights are damaged, or it "
                "overflows in the precision that it is kept in"
            )
    return [
        Answer(question, tuple(found), question.choices(found))
        for question, found in zip(questions, sums, strict=True)
    ]


def wilson(right: int, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share, right / items (Wilson 1927): the p for which this share isn't too
    far from p.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = right / items, z * z / items
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / items + weight / (4 * items)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)
