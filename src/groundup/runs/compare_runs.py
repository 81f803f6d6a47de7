"""`groundup compare` of two runs: their records side by side, at equal tokens, at equal time, and
in one picture.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.cli.run_report import print_runs
from groundup.console import print_json
from groundup.errors import RunError
from groundup.recipes.schema import Recipe, differences
from groundup.runs.folder import RECIPE_FILE, RunFolder, all_runs, run_or_path
from groundup.runs.plot import Curve, plot_two
from groundup.tokenizers.base import TOKENIZER_FILE

MEASURED = {"step", "tokens", "seconds", "validation_loss", "bits_per_byte"}

Lines = list[dict[str, Any]]  # of metrics.jsonl


@dataclass(frozen=True)
class RunRecord:
    """What a run left behind. evaluations: those of metrics.jsonl, one after its first step at
    least.
    """

    folder: RunFolder
    recipe: Recipe
    facts: dict[str, Any]
    last: dict[str, Any]
    evaluations: Lines

    @classmethod
    def of(cls, folder: RunFolder) -> "RunRecord":
        """Raises RunError for a run that was never measured, and what a damaged one raises."""
        recipe, facts, lines = folder.read_recipe(), folder.read_facts(), folder.read_metrics()
        evaluations = [
            line for line in lines if line["kind"] == "evaluation" and line.keys() >= MEASURED
        ]
        if not any(line["step"] for line in evaluations):
            raise RunError(
                f"{folder.name} has no evaluation after its first step, so there is no curve to "
                f"compare. Train it further: groundup train --resume {folder.name}"
            )
        last = max(
            (line for line in lines if {"tokens", "seconds"} <= line.keys()),
            key=lambda line: line["step"],
        )
        return cls(folder, recipe, facts, last, evaluations)

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation with the lowest validation loss, after the first step."""
        return min(
            (line for line in self.evaluations if line["step"]),
            key=lambda line: line["validation_loss"],
        )

    @property
    def tokenizer(self) -> tuple[int, bytes]:
        """What tells vocabularies apart: the size, and the newest checkpoint's file where there is
        one.
        """
        file = self.folder.checkpoints / "latest" / TOKENIZER_FILE
        return self.facts["vocab_size"], file.read_bytes() if file.is_file() else b""

    def to_json(self) -> dict[str, Any]:
        """The run in numbers."""
        best, corpus = self.best, self.facts["corpus"]
        return {
            "run": self.folder.name,
            "architecture": self.recipe.model.architecture,
            "parameters": self.facts["parameters"],
            "vocab_size": self.facts["vocab_size"],
            "corpus": {"name": corpus["name"], "fingerprint": corpus["fingerprint"]},
            "steps": self.last["step"],
            "planned_steps": self.recipe.train.steps,
            "tokens": self.last["tokens"],
            "seconds": self.last["seconds"],
            "best": {key: best[key] for key in ("step", "validation_loss", "bits_per_byte")},
        }


def compare_runs(names: tuple[str, str], *, out: Path | None, as_json: bool) -> None:
    """Compare two runs by what they recorded, print it, and draw both curves. Raises
    GroundupError.
    """
    for name in names:
        if run_named(name) is None:
            raise RunError(
                f"{name} isn't a run, so it has no curve. Runs here: "
                f"{', '.join(run.name for run in all_runs()) or 'none yet'}. Any two models can "
                "be compared at a task: --task hellaswag, or --task loss --corpus TEXT"
            )
    first, second = (RunRecord.of(RunFolder(run_or_path(name))) for name in names)
    same_vocabulary = first.tokenizer == second.tokenizer
    field = "validation_loss" if same_vocabulary else "bits_per_byte"
    picture = out or Path(f"compare-{first.folder.name}-{second.folder.name}.png")
    result = {
        "task": None,
        "models": list(names),
        "runs": [first.to_json(), second.to_json()],
        "same_text": is_same_text(first, second),
        "same_vocabulary": same_vocabulary,
        "unit": "nats a token" if same_vocabulary else "bits a byte",
        "at_equal_tokens": at_equal(first, second, "tokens", field),
        "at_equal_seconds": at_equal(first, second, "seconds", field),
        "recipe_differences": recipe_differences(names),
        "picture": str(picture),
    }
    draw(first, second, picture, field, result)
    if as_json:
        print_json(result)
    else:
        print_runs(result)


def draw(
    first: RunRecord, second: RunRecord, picture: Path, field: str, result: dict[str, Any]
) -> None:
    """Both curves in one picture. Raises RunError where it can't be written."""
    both = [Curve(record.folder.name, record.evaluations) for record in (first, second)]
    marks = {axis: result[f"at_equal_{axis}"]["at"] for axis in ("tokens", "seconds")}
    try:
        plot_two(both[0], both[1], picture, field=field, unit=result["unit"], marks=marks)
    except OSError as error:
        raise RunError(
            f"the picture {picture} can't be written: {error.strerror}. Choose another --out"
        ) from error


def run_named(name: str) -> RunFolder | None:
    """The run that a name means; None for any other model."""
    path = run_or_path(name)
    return RunFolder(path) if (path / RECIPE_FILE).is_file() else None


def recipe_differences(names: tuple[str, str]) -> list[dict[str, Any]] | None:
    """The fields in which the recipes of two runs differ; None where one of the two is no run.
    Raises RunError.
    """
    runs = [run_named(name) for name in names]
    if runs[0] is None or runs[1] is None:
        return None
    found = differences(runs[0].read_recipe(), runs[1].read_recipe())
    return [{"field": field, "a": before, "b": after} for field, before, after in found]


def is_same_text(first: RunRecord, second: RunRecord) -> bool:
    """Whether both were measured on the same text: the same corpora, split alike."""
    corpora = [record.facts["corpus"]["fingerprint"] for record in (first, second)]
    shares = [record.recipe.data.validation_fraction for record in (first, second)]
    return corpora[0] == corpora[1] and shares[0] == shares[1]


def at_equal(first: RunRecord, second: RunRecord, axis: str, field: str) -> dict[str, Any]:
    """The losses of both where the shorter one was last measured, along `axis`: `tokens` or
    `seconds`.

    interpolated: whether that is a straight line's value between two evaluations. A loss is None
    before the first one.
    """
    place = min(record.evaluations[-1][axis] for record in (first, second))
    losses = [value_at(record.evaluations, axis, place, field) for record in (first, second)]
    measured = [
        any(line[axis] == place for line in record.evaluations) for record in (first, second)
    ]
    gap = None if losses[0] is None or losses[1] is None else losses[1] - losses[0]
    interpolated = [
        value is not None and not exact for value, exact in zip(losses, measured, strict=True)
    ]
    return {"at": place, "losses": losses, "difference": gap, "interpolated": interpolated}


def value_at(evaluations: Lines, axis: str, place: float, field: str) -> float | None:
    """A measured value at `place` on the axis, on a straight line between the evaluations around
    it.
    """
    before = [line for line in evaluations if line[axis] <= place]
    after = [line for line in evaluations if line[axis] >= place]
    if not before or not after:
        return None
    left, right = before[-1], after[0]
    if left[axis] == right[axis]:
        return right[field]
    share = (place - left[axis]) / (right[axis] - left[axis])
    return left[field] + share * (right[field] - left[field])
