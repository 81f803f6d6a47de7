"""Run lessons in full and keep what they show: `python notebooks/remake.py [NAME.ipynb ...]`.

Without names all lessons are run. Each gets its links, and its solutions are folded.
"""

import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from groundup.lessons import BUDGET

HERE = Path(__file__).parent
SOLUTION = "# Solution"  # how a cell begins that is folded until a reader opens it
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # Jupyter's way, and Colab's
LINKS = "[Open in Colab]"


def links_of(name: str) -> str:
    """Return the line that opens a lesson in Colab and in Kaggle."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    place = project["urls"]["Repository"].removeprefix("https://github.com/")
    file = f"{place}/blob/main/notebooks/{name}"
    kaggle = f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}"
    return f"{LINKS}(https://colab.research.google.com/github/{file}) · [Open in Kaggle]({kaggle})"


def dress(notebook: Any, name: str) -> None:
    """Give a lesson its links below the title, numbered cells, and folded solutions."""
    cells, links = notebook.cells, links_of(name)
    if cells[1].source.startswith(LINKS):
        cells[1].source = links
    else:
        cells.insert(1, nbformat.v4.new_markdown_cell(links))
    for number, cell in enumerate(cells, start=1):
        cell["id"] = f"cell-{number}"
        is_solution = cell.cell_type == "code" and cell.source.startswith(SOLUTION)
        cell["metadata"] = FOLDED if is_solution else {}


def remake(path: Path) -> None:
    """Run a lesson from its first cell to its last, and write it back with its outputs.

    Raises:
        CellExecutionError: A cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    dress(notebook, path.name)
    began = time.perf_counter()
    client = NotebookClient(notebook, kernel_name="python3", record_timing=False, timeout=None)
    client.execute(cwd=str(path.parent))
    dress(notebook, path.name)
    nbformat.write(notebook, path)
    print(f"{path.name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    os.environ.pop(BUDGET, None)
    for lesson in sys.argv[1:] or sorted(HERE.glob("*.ipynb")):
        remake(Path(lesson))
