"""How long the lessons in `notebooks/` train: in full, or for a share where the tests run them."""

import os

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
