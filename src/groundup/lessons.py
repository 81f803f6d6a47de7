"""What the lessons in `notebooks/` use beside the package: their length, and their exercises."""

import os
from collections.abc import Callable
from typing import Any

from groundup.errors import ConfigError

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
