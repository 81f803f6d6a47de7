"""Run lessons in full and keep what they show: `python notebooks/remake.py [NAME.ipynb ...]`, by
default all.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from groundup.lessons import BUDGET


def remake(path: Path) -> None:
    """Run a lesson from its first cell to its last, and write it back with its outputs. Raises
    CellExecutionError.
    """
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    NotebookClient(notebook, kernel_name="python3", record_timing=False, timeout=None).execute(
        cwd=str(path.parent)
    )
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
    nbformat.write(notebook, path)
    print(f"{path.name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    os.environ.pop(BUDGET, None)
    here = Path(__file__).parent
    for lesson in sys.argv[1:] or sorted(here.glob("*.ipynb")):
        remake(Path(lesson))
