"""How long the lessons in `notebooks/` train: in full, or a share of it where the tests run
them.
"""

import os

from groundup.errors import ConfigError

# the share of each lesson's training steps that is taken, 1 where it isn't set
BUDGET = "GROUNDUP_LESSON_BUDGET"


def lesson_steps(full: int) -> int:
    """The steps that a lesson trains for: `full`, or the share of them that GROUNDUP_LESSON_BUDGET
    says, at least one.

    A share, and no time limit, so that a lesson computes the same on a fast machine and on a busy
    one. Raises ConfigError for a share that isn't above 0 and at most 1.
    """
    given = os.environ.get(BUDGET) or "1"
    try:
        share = float(given)
    except ValueError:
        share = float("nan")
    if not 0.0 < share <= 1.0:
        raise ConfigError(
            BUDGET,
            f"{BUDGET} = {given} is not a share above 0 and at most 1",
            "Leave it unset for 1.",
        )
    return max(1, round(full * share))
