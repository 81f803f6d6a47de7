"""Where runs live, and what a user calls one."""

from pathlib import Path

RUNS = Path("runs")


def run_or_path(name: str) -> Path:
    """A run's name in `runs/`, or any path."""
    return RUNS / name if (RUNS / name).is_dir() else Path(name)
