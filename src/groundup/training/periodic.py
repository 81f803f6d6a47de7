"""Evaluation of the model while a run trains, on a fixed part of a task's items.

The evaluation changes nothing in the run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.errors import EvaluationError, RecipeError, TokenizerError
from groundup.evaluation.multiple_choice import MultipleChoice
from groundup.evaluation.requests import Request, score_share
from groundup.evaluation.statistics import wilson
from groundup.evaluation.task import TASKS, Settings, open_task
from groundup.files import HERE, located
from groundup.models.registry import Model
from groundup.parallel.world import World, main_first
from groundup.recipes.schema import EvalSection, Recipe
from groundup.runs.records import TaskRecord
from groundup.tokenizers.base import Tokenizer

ITEMS_AT_ONCE = 8


@dataclass(frozen=True)
class PeriodicEvaluation:
    """A task on which a model is scored while it trains, each time with the same requests.

    Args:
        task: The task, with its items.
        requests: The requests that the task's periodic convention makes of the items.
        every: The number of steps from one evaluation to the next.
    """

    task: MultipleChoice
    requests: Sequence[Request]
    every: int

    def is_due(self, step: int, finished: bool) -> bool:
        """Return whether to evaluate after `step` steps: also before the first and at the end."""
        return finished or step % self.every == 0

    def run(
        self,
        model: Model,
        world: World,
        device: torch.device,
        *,
        step: int = 0,
        tokens: int = 0,
        seconds: float = 0.0,
        interrupt: Callable[[], None] = lambda: None,
    ) -> TaskRecord:
        """Evaluate the model, which is left in the mode it was in; processes share the requests.

        Args:
            model: The model, on every process.
            world: The processes.
            device: The device on which the processes add up what they found.
            step: The number of steps that the model has been trained for.
            tokens: The number of tokens that the model has been trained on.
            seconds: The seconds of training so far.
            interrupt: Is called after each batch of a process that is alone, and ends the
                evaluation by raising. Of several processes, each has batches of its own.
        """
        was_training = model.training
        model.eval()
        try:
            progress = (lambda _: interrupt()) if world.size == 1 else lambda _: None
            scored = score_share(model, self.requests, ITEMS_AT_ONCE, world, progress)
        finally:
            model.train(was_training)
        convention, measure = self.task.periodic
        found = sum(each.choices[measure] == each.request.item.label for each in scored)
        total = world.sum(torch.tensor(float(found), dtype=torch.float64, device=device))
        right, items = round(total.item()), len(self.requests)
        return TaskRecord(
            *(self.task.name, step, tokens, convention, measure, right / items),
            *(wilson(right, items), right, items, self.task.is_official, seconds),
            chance=None if self.task.is_official is not None else self.task.chance,
        )


def open_evaluations(
    recipe: Recipe, tokenizer: Tokenizer, folders: Sequence[Path], world: World
) -> list[PeriodicEvaluation]:
    """Open the evaluations that the recipe asks for, first in the main process, which downloads.

    Args:
        recipe: The recipe, whose section `eval` says what and how often.
        tokenizer: The tokenizer of the run.
        folders: The folders that relative paths may be relative to, the first ones before others.
        world: The processes.

    Raises:
        RecipeError: `eval.task` is no task that can score a run while it trains.
        CorpusError: The items can't be had.
        EvaluationError: There are too few items, or the tokenizer or the context can't take one.
    """
    section = recipe.eval
    if not section.task_every:
        return []
    registered = TASKS.get(section.task)
    if registered is None or not issubclass(registered.load(), MultipleChoice):
        known = [name for name, each in TASKS.items() if issubclass(each.load(), MultipleChoice)]
        raise RecipeError(
            f"eval.task = {section.task} is no task that scores a run on the way. "
            f"Choose one of {', '.join(known)}"
        )
    settings = settings_of(section, folders)
    task = main_first(world, lambda: open_task(section.task, settings))
    assert isinstance(task, MultipleChoice)
    if section.task_items > len(task.file.items):
        raise EvaluationError(
            f"eval.task_items = {section.task_items}, but {task.file.path} has "
            f"{len(task.file.items)} items. Choose fewer, or 0 for all"
        )
    convention = task.conventions[task.periodic[0]]
    try:
        requests = convention.requests(task.items, tokenizer, recipe.model.block_size)
    except EvaluationError as error:
        remedy = "give a longer --model.block-size"
        if isinstance(error.__cause__, TokenizerError):
            remedy = "train with a tokenizer that knows all texts: --data.tokenizer gpt2"
        raise EvaluationError(
            f"eval.task_every = {section.task_every} can't be done: {error}. Leave it out "
            f"(--eval.task-every 0), or {remedy}"
        ) from error
    return [PeriodicEvaluation(task, requests, section.task_every)]


def settings_of(section: EvalSection, folders: Sequence[Path] = HERE) -> Settings:
    """Return the settings that a recipe has for its task, with paths relative to some folders."""
    file = located(section.task_file, folders) if section.task_file else None
    return Settings(limit=section.task_items, file=file, flag="--eval.task-file")
