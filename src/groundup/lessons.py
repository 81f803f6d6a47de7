"""The lessons: where they are, and what they use beside the package."""

import json
import os
import re
from collections.abc import Callable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from groundup.errors import ConfigError, LessonError
from groundup.files import write_whole

BUDGET = "GROUNDUP_LESSON_BUDGET"  # the share of each lesson's training steps; 1 if it isn't set


def lesson_steps(full: int) -> int:
    """Return the number of steps that a lesson trains for, at least one.

    The number is a share of `full`, whatever time that takes, so that a lesson computes the same on
    a fast machine and on a busy one. GROUNDUP_LESSON_BUDGET states the share.

    Args:
        full: The number of steps of a full run.

    Raises:
        ConfigError: GROUNDUP_LESSON_BUDGET isn't a number above 0 and up to 1.
    """
    given = os.environ.get(BUDGET) or "1"
    try:
        share = float(given)
    except ValueError:
        share = float("nan")
    if not 0.0 < share <= 1.0:
        complaint = f"{BUDGET} = {given} is not a share above 0 and at most 1"
        raise ConfigError(BUDGET, complaint, "Leave it unset for 1.")
    return max(1, round(full * share))


def review(number: int, answer: Any, solution: Any, is_right: Callable[[Any], Any]) -> str:
    """Say whether an answer to an exercise is right, and prove that the lesson's solution is.

    Args:
        number: The number of the exercise in its lesson.
        answer: The reader's answer; three dots (`...`) where there is none yet.
        solution: The lesson's own answer.
        is_right: Tells right answers from wrong ones. An answer that makes it raise is wrong.

    Returns:
        A sentence for the reader.

    Raises:
        AssertionError: The lesson's solution is wrong.
    """
    assert is_right(solution), f"the solution of exercise {number} is wrong"
    if answer is ...:
        return f"Exercise {number}: not answered yet."
    try:
        passed = bool(is_right(answer))
    except Exception as error:  # whatever the reader's code raises
        return f"Exercise {number}: not yet. It ended with {type(error).__name__}: {error}"
    return f"Exercise {number}: right." if passed else f"Exercise {number}: not yet."


def lesson_files() -> list[Traversable]:
    """Return the notebooks, and what they read, in the order of the lessons.

    A wheel has them beside the package's code, a clone of the repository in its `notebooks/`.

    Raises:
        LessonError: This installation has no lessons.
    """
    packaged = resources.files("groundup").joinpath("notebooks")
    folder = packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "notebooks"
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    found = [path for path in files if path.name.endswith((".ipynb", ".json"))]
    if not found:
        raise LessonError(
            "this installation has no lessons: install a wheel of groundup, or a clone of its "
            "repository with pip install -e ."
        )
    return sorted(found, key=lambda path: path.name)


def question_of(lesson: Traversable) -> str:
    """Return the question that a lesson answers, which its first cell asks."""
    source = "".join(json.loads(lesson.read_text("utf-8"))["cells"][0]["source"])
    asked = re.search(r"\*\*Question: (.+?)\*\*", source, re.DOTALL)
    return " ".join(asked[1].split()) if asked else ""


def write_lessons(folder: Path) -> list[Path]:
    """Write the lessons into a folder, without the outputs that they were kept with.

    Args:
        folder: The folder, which is made if it isn't there. None of its files is replaced.

    Returns:
        The files that were written.

    Raises:
        LessonError: A file of a lesson's name is there, or the folder can't be written to.
    """
    files = lesson_files()
    there = [path.name for path in files if (folder / path.name).exists()]
    if there:
        raise LessonError(
            f"{folder} has {there[0]} already, which may hold your answers: choose another --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            write_whole(folder / path.name, _without_outputs(path))
    except OSError as error:
        raise LessonError(f"can't write the lessons into {folder}: {error.strerror}") from error
    return [folder / path.name for path in files]


def _without_outputs(path: Traversable) -> str:
    text = path.read_text("utf-8")
    if not path.name.endswith(".ipynb"):
        return text
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
