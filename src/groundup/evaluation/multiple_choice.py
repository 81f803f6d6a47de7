"""Multiple choice: how often a model finds the right ending of an item the most probable.

All tasks of items with endings to choose from share this module.
"""

import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from groundup.data.choice_items import Item, ItemsFile, spread
from groundup.evaluation.requests import Convention, Request, ScoredItem, score_requests
from groundup.evaluation.scoring import is_cut
from groundup.evaluation.statistics import PairedItems, p_text, wilson
from groundup.evaluation.task import (
    Finding,
    NamedModel,
    Progress,
    Result,
    Settings,
    Table,
    Task,
    naming,
)


@dataclass(frozen=True)
class Scores:
    """The scores of all items of a task, by one convention of putting items to a model.

    Args:
        convention: The convention's name.
        items: The scored items.
        cut: The number of items that were too long for the model and lost their beginning.
        seconds: How long scoring took.
    """

    convention: str
    items: list[ScoredItem]
    cut: int
    seconds: float

    def right(self, measure: str) -> list[bool]:
        """Tell for each item whether the ending that a measure chooses is the right one."""
        return [scored.choices[measure] == scored.request.item.label for scored in self.items]

    @property
    def measures(self) -> list[str]:
        """The names of the measures, by each of which the convention chooses endings."""
        return list(self.items[0].choices)


@dataclass(frozen=True)
class ChoiceResult(Result):
    """The endings that a model chose for the items of a task, by one or several conventions."""

    identity: ClassVar = ("task", "file", "official", "items", "of")
    task: "MultipleChoice"
    model: str
    scores: list[Scores]

    def to_json(self) -> dict[str, Any]:
        """Return the accuracies and how they were found, as `--json` prints them."""
        seconds = {scores.convention: scores.seconds for scores in self.scores}
        items = len(self.task.items)
        return {
            **self.task.facts(model=self.model),
            "results": [
                self._row(scores, measure) for scores in self.scores for measure in scores.measures
            ],
            "cut": {scores.convention: scores.cut for scores in self.scores},
            "seconds": seconds,
            "items_per_second": {name: items / taken for name, taken in seconds.items()},
        }

    def _row(self, scores: Scores, measure: str) -> dict[str, Any]:
        right, items = sum(scores.right(measure)), len(scores.items)
        published = {
            model: figures[measure]
            for model, figures in self.task.conventions[scores.convention].published.items()
            if measure in figures
        }
        row = {"convention": scores.convention, "measure": measure, "right": right, "items": items}
        row |= {"accuracy": right / items, "interval": list(wilson(right, items))}
        return row if self.task.is_official is None else row | {"published_percent": published}

    def report(self) -> Iterator[str | Table]:
        """Yield a table of the accuracies, then lines that a reader needs to compare accuracies."""
        result = self.to_json()
        published = list(result["results"][0].get("published_percent", ()))
        table = Table(("convention", "measure", "decides"), ("right", "95% interval", *published))
        for row in result["results"]:
            (low, high), known = row["interval"], row.get("published_percent", {})
            name, measure = row["convention"], row["measure"]
            table.rows.append(
                (
                    *(name, measure, self.task.conventions[name].decides[measure]),
                    *(f"{100 * row['accuracy']:.2f}%", f"{100 * low:.2f} to {100 * high:.2f}%"),
                    *(f"{known[model]:.2f}%" if known else "-" for model in published),
                )
            )
        yield table
        yield self.task.said_of_items()
        yield self.task.said_of_guessing()
        for name, cut in result["cut"].items():
            if cut:
                yield (
                    f"{name}: {cut:,} items are longer than the model's context and lost their "
                    "beginning"
                )
        speeds = (f"{name} {speed:.1f}" for name, speed in result["items_per_second"].items())
        yield f"items a second: {', '.join(speeds)}"

    def items(self) -> list[dict[str, Any]]:
        """Return each item with the scores and the choices of its endings by each convention."""
        return [
            {"ind": item.number, "label": item.label}
            | {scores.convention: scores.items[place].to_json() for scores in self.scores}
            for place, item in enumerate(self.task.items)
        ]


@dataclass(frozen=True)
class ChoiceComparison(Finding):
    """The endings that two models chose for the same items of a task."""

    task: "MultipleChoice"
    models: tuple[str, str]
    scores: tuple[list[Scores], list[Scores]]

    def to_json(self) -> dict[str, Any]:
        """Return both models' accuracy by each measure, and the difference of the two."""
        return {
            **self.task.facts(models=list(self.models)),
            "results": [
                {"convention": a.convention, "measure": measure}
                | PairedItems.of(a.right(measure), b.right(measure)).to_json()
                for a, b in zip(*self.scores, strict=True)
                for measure in a.measures
            ],
            "cut": [{scores.convention: scores.cut for scores in some} for some in self.scores],
            "seconds": [sum(scores.seconds for scores in some) for some in self.scores],
        }

    def report(self) -> Iterator[str | Table]:
        """Yield a table with a row for each measure, then lines on the items and the statistics."""
        result = self.to_json()
        counts = ("both right", "only A", "only B", "neither")
        table = Table(("convention", "measure"), ("A", "B", "B - A", "95% interval", "p", *counts))
        for row in result["results"]:
            (first, second), (low, high) = row["accuracy"], row["interval"]
            table.rows.append(
                (
                    *(row["convention"], row["measure"], f"{first:.2%}", f"{second:.2%}"),
                    *(f"{100 * row['difference']:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}"),
                    p_text(row["p_value"]),
                    *(f"{row[count]:,}" for count in ("both", "only_a", "only_b", "neither")),
                )
            )
        yield table
        yield self.task.said_of_items()
        yield (
            "B - A in points of accuracy, paired item by item: Bonett and Price's interval, "
            "McNemar's exact test. p is how often chance alone would part equal models as far"
        )
        for letter, cut in zip("AB", result["cut"], strict=True):
            for name, count in cut.items():
                if count:
                    yield (
                        f"{letter}, {name}: {count:,} items are longer than its context and lost a "
                        "part"
                    )


@dataclass(frozen=True)
class MultipleChoice(Task):
    """The base of tasks in which a model chooses one of the endings of each item.

    `conventions` are the ways to put an item to a model; `periodic` is the convention and the
    measure by which a model is scored during training.
    """

    conventions: ClassVar[dict[str, Convention]]
    periodic: ClassVar[tuple[str, str]] = ("completion", "acc_norm")
    file: ItemsFile
    settings: Settings

    @classmethod
    @abstractmethod
    def read(cls, settings: Settings) -> ItemsFile:
        """Read the task's items.

        Raises:
            CorpusError: The items can't be read or downloaded, or a line of their file is no item.
            EvaluationError: The settings name no items, and the task has none of its own.
        """

    @classmethod
    def open(cls, settings: Settings) -> Self:
        return cls(cls.read(settings), settings)

    @cached_property
    def items(self) -> list[Item]:
        """The items that are put to models: all, or `settings.limit` spread over the file."""
        return spread(self.file.items, self.settings.limit)

    @property
    def is_official(self) -> bool | None:
        """Whether published accuracies were measured on the task's file; None if there are none."""
        return None

    @property
    def chance(self) -> float:
        """The accuracy that guessing is expected to reach."""
        return sum(1 / len(item.endings) for item in self.items) / len(self.items)

    def facts(self, **models: Any) -> dict[str, Any]:
        """Return what all JSON of findings states first: the task, the models, the items' file."""
        stated = {"task": self.name, **models, "file": str(self.file.path)}
        if self.is_official is not None:
            stated["official"] = self.is_official
        return stated | {"items": len(self.items), "of": len(self.file.items)}

    def said_of_items(self) -> str:
        """Return a line that says which items are put to models."""
        items, of = len(self.items), len(self.file.items)
        first = "all" if items == of else f"{items:,}, evenly spread, of the"
        label = {
            None: "",
            True: " (the official file)",
            False: " (UNOFFICIAL: not the file of the published figures)",
        }[self.is_official]
        return f"{first} {of:,} items of {self.file.path}{label}"

    def said_of_guessing(self) -> str:
        """Return a line that says what the accuracies may be compared with."""
        return f"guessing is right in {self.chance:.1%}"

    def evaluate(self, named: NamedModel, progress: Progress) -> ChoiceResult:
        """Let a model choose an ending for each item, and return its choices.

        Raises:
            EvaluationError: An item can't be encoded, an ending is longer than the model's context,
                or a score isn't finite.
        """
        return ChoiceResult(self, named.name, self._score(named, self._requests(named), progress))

    def compare(
        self, first: NamedModel, second: NamedModel, progress: Progress
    ) -> ChoiceComparison:
        """Let two models choose an ending for each item, and return the choices of both.

        The items of both models are encoded and checked before the first is scored.

        Raises:
            EvaluationError: An item can't be encoded, an ending is longer than a model's context,
                or a score isn't finite. The error names the model.
        """
        scores, requests = [], []
        for named in (first, second):  # before the other has worked for an hour
            with naming(named.name):
                requests.append(self._requests(named))
        for named, asked in zip((first, second), requests, strict=True):
            with naming(named.name):
                scores.append(self._score(named, asked, progress, f"{named.name}, "))
        return ChoiceComparison(self, (first.name, second.name), (scores[0], scores[1]))

    def _requests(self, named: NamedModel) -> dict[str, list[Request]]:
        """The requests of each convention that was asked for."""
        wanted = self.settings.convention
        return {
            name: convention.requests(self.items, named.tokenizer, named.model.block_size)
            for name, convention in self.conventions.items()
            if wanted in ("both", name)
        }

    def _score(
        self,
        named: NamedModel,
        requests: dict[str, list[Request]],
        progress: Progress,
        who: str = "",
    ) -> list[Scores]:
        found, model = [], named.model
        for name, asked in requests.items():
            started = time.perf_counter()
            tell = progress(f"{who}{name}, items", len(asked))
            scored = score_requests(model, asked, self.settings.batch_size, tell)
            cut = sum(is_cut(request.continuations, model.block_size) for request in asked)
            found.append(Scores(name, scored, cut, time.perf_counter() - started))
        return found
