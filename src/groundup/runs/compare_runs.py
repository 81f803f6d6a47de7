"""Compares the losses of two runs: at equal tokens, at equal time, and in one picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import RunError
from groundup.recipes.schema import Recipe, differences
from groundup.runs.changes import measured_alike
from groundup.runs.folder import RECIPE_FILE, RunFolder, all_runs, run_or_path
from groundup.runs.plot import Curve, plot_two
from groundup.tokenizers.agreement import disagreement
from groundup.tokenizers.base import TOKENIZER_FILE
from groundup.tokenizers.load import load_tokenizer

MEASURED = {"step", "tokens", "seconds", "validation_loss", "bits_per_byte"}
AXES = ("tokens", "seconds")

Lines = list[dict[str, Any]]  # of metrics.jsonl


@dataclass(frozen=True)
class RunRecord:
    """What a run recorded in its folder.

    Args:
        folder: The run's folder.
        recipe: The run's recipe.
        facts: The contents of its `run.json`.
        last: The last line of its `metrics.jsonl`.
        evaluations: The lines of its `metrics.jsonl` that are evaluations on the validation text
            that it has now, at least one of them after the first step.
    """

    folder: RunFolder
    recipe: Recipe
    facts: dict[str, Any]
    last: dict[str, Any]
    evaluations: Lines

    @classmethod
    def of(cls, folder: RunFolder) -> "RunRecord":
        """Read what a run recorded.

        Raises:
            RunError: The run has no evaluation after its first step, or is damaged.
            RecipeError: The run's recipe is damaged.
        """
        recipe, facts, lines = folder.read_recipe(), folder.read_facts(), folder.read_metrics()
        evaluations = [
            line for line in lines if line["kind"] == "evaluation" and line.keys() >= MEASURED
        ]
        evaluations = measured_alike(evaluations, facts)
        if not any(line["step"] for line in evaluations):
            raise RunError(
                f"{folder.name} has no evaluation after its first step, so there is no curve to "
                f"compare. Train it further: groundup train --resume {folder.argument}"
            )
        done = (line for line in lines if {"tokens", "seconds"} <= line.keys())
        last = max(done, key=lambda line: line["step"])
        return cls(folder, recipe, facts, last, evaluations)

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation with the lowest validation loss of those after the first step."""
        learned = (line for line in self.evaluations if line["step"])
        return min(learned, key=lambda line: line["validation_loss"])

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the run as `groundup compare --json` prints them."""
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


@dataclass(frozen=True)
class EqualPoint:
    """The losses of two runs where the shorter one was last measured, by tokens or by seconds.

    Args:
        axis: `tokens` or `seconds`.
        at: The number of tokens or seconds at that point.
        losses: The loss of each run, or None before its first evaluation.
        interpolated: For each run, whether its loss is a straight line's value between two
            evaluations.
    """

    axis: str
    at: float
    losses: tuple[float | None, float | None]
    interpolated: tuple[bool, bool]

    @property
    def difference(self) -> float | None:
        """The second run's loss minus the first's; None if a loss is None."""
        first, second = self.losses
        return None if first is None or second is None else second - first

    def to_json(self) -> dict[str, Any]:
        """Return the losses, their difference, and whether the losses are interpolated."""
        return {
            "at": self.at,
            "losses": list(self.losses),
            "difference": self.difference,
            "interpolated": list(self.interpolated),
        }


@dataclass(frozen=True)
class RunComparison:
    """The comparison of two runs by what they recorded.

    Args:
        names: The names that the user gave for the runs.
        runs: What the runs recorded.
        same_vocabulary: Whether the runs' losses in nats a token can be compared.
        at_equal: The runs' losses at equal tokens and at equal time.
        recipe_differences: The fields in which the runs' recipes differ.
        picture: The file of the picture, in which the losses of both runs are drawn.
    """

    names: tuple[str, str]
    runs: tuple[RunRecord, RunRecord]
    same_vocabulary: bool
    at_equal: tuple[EqualPoint, EqualPoint]
    recipe_differences: list[dict[str, Any]] | None
    picture: Path

    @property
    def unit(self) -> str:
        """The unit in which losses are compared."""
        return "nats a token" if self.same_vocabulary else "bits a byte"

    @property
    def same_text(self) -> bool:
        """Whether both runs were measured on the same text: the same corpora, split alike."""
        first, second = (
            (run.facts["corpus"]["fingerprint"], run.recipe.data.validation_fraction)
            for run in self.runs
        )
        return first == second

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as `groundup compare --json` prints it."""
        return {
            "task": None,
            "models": list(self.names),
            "runs": [run.to_json() for run in self.runs],
            "same_text": self.same_text,
            "same_vocabulary": self.same_vocabulary,
            "unit": self.unit,
            **{f"at_equal_{found.axis}": found.to_json() for found in self.at_equal},
            "recipe_differences": self.recipe_differences,
            "picture": str(self.picture),
        }


def compare_runs(names: tuple[str, str], out: Path | None = None) -> RunComparison:
    """Compare two runs by what they recorded, and draw the losses of both.

    Args:
        names: The runs' names or paths.
        out: Where the picture goes; `compare-A-B.png` where it is left out.

    Raises:
        RunError: A name is no run's, a run has no evaluation after its first step, or the picture
            can't be written.
        RecipeError: A run's recipe is damaged.
        TokenizerError: A run's tokenizer is damaged.
    """
    for name in names:
        if run_named(name) is None:
            raise RunError(
                f"{name} isn't a run, so it has no curve. Runs here: "
                f"{', '.join(run.name for run in all_runs()) or 'none yet'}. Any two models can "
                "be compared at a task: --task hellaswag, or --task loss --corpus TEXT"
            )
    first, second = (RunRecord.of(RunFolder(run_or_path(name))) for name in names)
    same_vocabulary = _same_ids(first, second)
    field = "validation_loss" if same_vocabulary else "bits_per_byte"
    by_tokens, by_seconds = (at_equal(first, second, axis, field) for axis in AXES)
    comparison = RunComparison(
        *(names, (first, second), same_vocabulary, (by_tokens, by_seconds)),
        recipe_differences(names),
        out or Path(f"compare-{first.folder.name}-{second.folder.name}.png"),
    )
    draw(comparison, field)
    return comparison


def _same_ids(first: RunRecord, second: RunRecord) -> bool:
    """Whether both runs give a text the same ids, as far as their checkpoints tell."""
    folders = [run.folder.checkpoints for run in (first, second)]
    files = [file for each in folders for file in [*each.glob(f"step-*/{TOKENIZER_FILE}")][:1]]
    if len(files) < 2:
        return not files and first.facts["vocab_size"] == second.facts["vocab_size"]
    same = files[0].read_bytes() == files[1].read_bytes()
    return same or not disagreement(*map(load_tokenizer, files))


def draw(comparison: RunComparison, field: str) -> None:
    """Draw the losses of both runs in one picture.

    Args:
        comparison: The comparison, which names the file of the picture.
        field: Which loss: `validation_loss` or `bits_per_byte`.

    Raises:
        RunError: The picture can't be written.
    """
    first, second = (Curve(run.folder.name, run.evaluations) for run in comparison.runs)
    marks = {found.axis: found.at for found in comparison.at_equal}
    try:
        plot_two(first, second, comparison.picture, field=field, unit=comparison.unit, marks=marks)
    except OSError as error:
        raise RunError(
            f"the picture {comparison.picture} can't be written: {error.strerror}. Choose another "
            "--out"
        ) from error


def run_named(name: str) -> RunFolder | None:
    """Find the run that a name means, or return None if the name means no run."""
    path = run_or_path(name)
    return RunFolder(path) if (path / RECIPE_FILE).is_file() else None


def recipe_differences(names: tuple[str, str]) -> list[dict[str, Any]] | None:
    """List the fields in which two runs' recipes differ, or return None if a name means no run.

    Raises:
        RunError: A recipe can't be read.
        RecipeError: A recipe is damaged.
    """
    first, second = (run_named(name) for name in names)
    if first is None or second is None:
        return None
    found = differences(first.read_recipe(), second.read_recipe())
    return [{"field": field, "a": before, "b": after} for field, before, after in found]


def at_equal(first: RunRecord, second: RunRecord, axis: str, field: str) -> EqualPoint:
    """Find the losses of both runs where the shorter one was last measured, along an axis.

    Args:
        first: A run.
        second: The other run.
        axis: `tokens` or `seconds`.
        field: Which loss: `validation_loss` or `bits_per_byte`.
    """
    at = min(run.evaluations[-1][axis] for run in (first, second))
    losses = [value_at(run.evaluations, axis, at, field) for run in (first, second)]
    interpolated = [
        loss is not None and all(line[axis] != at for line in run.evaluations)
        for run, loss in zip((first, second), losses, strict=True)
    ]
    return EqualPoint(axis, at, (losses[0], losses[1]), (interpolated[0], interpolated[1]))


def value_at(evaluations: Lines, axis: str, place: float, field: str) -> float | None:
    """Interpolate a run's loss linearly between its evaluations before and after a point.

    The result is None before the first evaluation and after the last.

    Args:
        evaluations: The run's evaluations.
        axis: `tokens` or `seconds`.
        place: The point, a number of tokens or seconds.
        field: Which loss: `validation_loss` or `bits_per_byte`.
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
