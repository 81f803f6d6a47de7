"""HellaSwag (Zellers et al. 2019): of four endings, does the model find the right one the most probable?"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from groundup.data.hellaswag import Item
from groundup.evaluation.conventions import CONVENTIONS, PUBLISHED, Question
from groundup.evaluation.scoring import Continuations, is_cut, sums_of_endings
from groundup.models.catalogue import Model
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Answer:
    """What a model made of an item: the sum of each ending's log-probabilities, in nats, and each measure's choice."""

    question: Question
    sums: tuple[float, ...]
    choices: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """All that decided the choices."""
        tokens = [len(ending) for ending in self.question.endings]
        return {"log_probabilities": self.sums, "tokens": tokens, "choices": self.choices} | {
            f"{measure}_lengths": lengths for measure, lengths in self.question.lengths.items() if measure != "acc"
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
        found = {"convention": self.convention, "measure": self.measure, "right": self.right, "items": self.items}
        return found | {"accuracy": self.right / self.items, "interval": [low, high], "published_percent": published}


@dataclass(frozen=True)
class Sitting:
    """All items, asked by one convention. cut: items whose context didn't fit the model and lost its beginning."""

    convention: str
    answers: list[Answer]
    cut: int
    seconds: float

    @property
    def accuracies(self) -> list[Accuracy]:
        """One for each of the convention's measures."""
        counts = {
            measure: sum(answer.choices[measure] == answer.question.item.label for answer in self.answers)
            for measure in self.answers[0].choices
        }
        return [Accuracy(self.convention, measure, right, len(self.answers)) for measure, right in counts.items()]


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
    questions = [CONVENTIONS[convention](item, tokenizer) for item in items]
    asked = [Continuations(question.context, question.endings) for question in questions]
    answers = [
        Answer(question, tuple(sums), question.choices(sums))
        for question, sums in zip(questions, sums_of_endings(model, asked, batch_size, tell), strict=True)
    ]
    cut = sum(is_cut(continuations, model.block_size) for continuations in asked)
    return Sitting(convention, answers, cut, time.perf_counter() - started)


def wilson(right: int, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share, right / items (Wilson 1927): the p for which this share isn't too far from p."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = right / items, z * z / items
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / items + weight / (4 * items)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)
