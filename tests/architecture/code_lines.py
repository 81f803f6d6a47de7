"""Counts lines of code: those of a formatted source that hold more than docstrings and comments.

`python tests/architecture/code_lines.py [FOLDER]` prints the sum and that of each room.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "groundup"
BLANK = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def code_lines(text: str) -> int:
    """How many lines of a Python source hold code, docstrings not counted."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in BLANK:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def by_room(folder: Path) -> Counter[str]:
    """The lines of code of each room in a folder, with `.` for the files beside the rooms."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).parts
        found[parts[0] if len(parts) > 1 else "."] += code_lines(path.read_text("utf-8"))
    return found


if __name__ == "__main__":
    counted = by_room(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
    print(counted.total(), *(f"{room} {lines}" for room, lines in counted.most_common()), sep="\n")
