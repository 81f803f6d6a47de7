"""What has changed in a run since it began, as its `run.json` lists it."""

from typing import Any


def last_change(facts: dict[str, Any], what: str) -> dict[str, Any] | None:
    """Return the last recorded change of one thing, or None if it never changed.

    Args:
        facts: What `run.json` states of a run.
        what: The name of the thing, `corpus` for instance.
    """
    changes = reversed(facts.get("changes", []))
    return next((change for change in changes if change["what"] == what), None)


def since_when(facts: dict[str, Any], what: str) -> str:
    """Say since when a thing was as the facts state it."""
    change = last_change(facts, what)
    return f"step {change['step']:,}, when another was accepted" if change else "the run began"


def measured_alike(
    evaluations: list[dict[str, Any]], facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the evaluations that were made on the validation text that a run has now.

    Args:
        evaluations: Lines of `metrics.jsonl`.
        facts: What `run.json` states of the run.
    """
    others = [
        change["step"]
        for change in facts.get("changes", [])
        if change["what"] == "corpus"
        and change["was"].get("validation") != change["is"]["validation"]
    ]
    return [line for line in evaluations if line["step"] > max(others, default=-1)]
