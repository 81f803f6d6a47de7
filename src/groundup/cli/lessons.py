"""The command `groundup lessons`: lists the lessons, or writes them into a folder."""

from pathlib import Path

from groundup.console import plain_table, show_at_once, wide_console
from groundup.lessons import lesson_files, question_of, write_lessons


def lessons(*, out: Path | None = None) -> None:
    """List the lessons, or write them as notebooks, ready to run.

    Args:
        out: The folder that the notebooks go into. Files that are there already stay.
    """
    if out is not None:
        written = write_lessons(out)
        show_at_once(
            f"{len(written)} files in {out}. Open them with Jupyter or VS Code "
            "(pip install jupyterlab), and begin with 01.\n"
        )
        return
    table = plain_table("lesson", "question")
    for path in lesson_files():
        if path.name.endswith(".ipynb"):
            table.add_row(path.name.removesuffix(".ipynb"), question_of(path))
    console = wide_console(width=200)
    console.print(table)
    console.print("Write them into a folder: groundup lessons --out lessons")
