"""HellaSwag while a run trains: a fixed part of its items, put to the model as it stands. It
changes nothing of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.data.hellaswag_items import open_items, spread
from groundup.errors import EvaluationError
from groundup.evaluation.conventions import Question
from groundup.evaluation.hellaswag import answer, questions_of, wilson
from groundup.models.registry import Model
from groundup.parallel.world import World, main_first
from groundup.recipes.schema import Recipe
from groundup.runs.records import HellaSwagRecord
from groundup.tokenizers.base import Tokenizer

# what training curves of GPT-2's size are drawn in, since build-nanogpt
CONVENTION, MEASURE = "completion", "acc_norm"
QUESTIONS_AT_ONCE = 8


@dataclass(frozen=True)
class Exam:
    """The questions of every scoring of a run. sha256: of the file that they are from."""

    questions: Sequence[Question]
    sha256: str
    official: bool

    def right(self, model: Model, world: World, device: torch.device) -> int:
        """How many the model chooses rightly; processes share them, and the model is left in the
        mode it was in.

        device: where processes add up.
        """
        was_training = model.training
        model.eval()
        try:
            answers = answer(model, self.questions[world.rank :: world.size], QUESTIONS_AT_ONCE)
        finally:
            model.train(was_training)
        right = sum(found.choices[MEASURE] == found.question.item.label for found in answers)
        return round(
            world.sum(torch.tensor(float(right), dtype=torch.float64, device=device)).item()
        )

    def record(self, right: int, step: int, tokens: int, seconds: float) -> HellaSwagRecord:
        """What a scoring found, after `step` steps, `tokens` tokens and `seconds` of training."""
        items = len(self.questions)
        interval = wilson(right, items)
        return HellaSwagRecord(
            step,
            tokens,
            CONVENTION,
            MEASURE,
            right / items,
            interval,
            right,
            items,
            self.official,
            seconds,
        )


def read_exam(recipe: Recipe, tokenizer: Tokenizer, folder: Path, world: World) -> Exam | None:
    """The questions that the recipe wants to be asked, paths relative to `folder`; None where it
    wants none.

    The main process reads first, which may have to download. Raises CorpusError for a file that
    can't be had, and EvaluationError for an item that this tokenizer or this context has no room
    for.
    """
    section = recipe.eval
    if not section.hellaswag_every:
        return None
    file = folder / section.hellaswag_file if section.hellaswag_file else None
    source = main_first(world, lambda: open_items(file, "--eval.hellaswag-file"))
    if section.hellaswag_items > len(source.items):
        raise EvaluationError(
            f"eval.hellaswag_items = {section.hellaswag_items}, but {source.path} has "
            f"{len(source.items)} items. Choose fewer, or 0 for all"
        )
    chosen = spread(source.items, section.hellaswag_items)
    try:
        questions = questions_of(chosen, tokenizer, CONVENTION, recipe.model.block_size)
    except EvaluationError as error:
        raise EvaluationError(
            f"eval.hellaswag_every = {section.hellaswag_every} can't be done: {error}. Leave it "
            "out, or train a model that can be asked: --data.tokenizer gpt2 knows all texts"
        ) from error
    return Exam(questions, source.sha256, source.is_official)
