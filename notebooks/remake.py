"""Run lessons in full and keep what they show: `python notebooks/remake.py [NAME.ipynb ...]`.

Without names all lessons are run. Each gets its links, and its solutions are folded.
`python notebooks/remake.py --figures FOLDER` runs nothing, and writes the pictures that are kept.
"""

import base64
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
    """Return the line that opens a lesson in Colab and in Kaggle, and explains its words."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    place = project["urls"]["Repository"].removeprefix("https://github.com/")
    lesson, docs = f"{place}/blob/main/notebooks/{name}", f"{place}/blob/main/docs"
    links = {
        LINKS: f"colab.research.google.com/github/{lesson}",
        "[Open in Kaggle]": f"kaggle.com/kernels/welcome?src=https://github.com/{lesson}",
        "[Words: glossary]": f"github.com/{docs}/glossary.md",
        "[Symbols]": f"github.com/{docs}/symbols.md",
    }
    return " · ".join(f"{text}(https://{address})" for text, address in links.items())


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


def write_figures(folder: Path) -> list[Path]:
    """Write each picture that the lessons keep as a PNG file: 04-gpt-1.png is the first of 04."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(HERE.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        pictures = [
            each.data["image/png"] for each in outputs if "image/png" in each.get("data", {})
        ]
        for number, picture in enumerate(pictures, start=1):
            written.append(folder / f"{path.stem}-{number}.png")
            written[-1].write_bytes(base64.b64decode(picture))
    return written


if __name__ == "__main__":
    if sys.argv[1:2] == ["--figures"]:
        print(f"{len(write_figures(Path(sys.argv[2])))} pictures in {sys.argv[2]}")
        raise SystemExit
    os.environ.pop(BUDGET, None)
    for lesson in sys.argv[1:] or sorted(HERE.glob("*.ipynb")):
        remake(Path(lesson))
