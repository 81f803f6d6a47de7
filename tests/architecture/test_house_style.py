"""The style that a reader may rely on: small files, short functions, docstrings; and the linters
agree.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from code_lines import by_room, code_lines
from source_tree import FILES, ROOT, SOURCE, Function, definitions, tree_of

WIDTH = 100  # columns
LONGEST = 50  # lines of a function
CODE = 21_900  # lines of code in the whole package
LOOSE = 8  # files beside the rooms


def name_of(path: Path) -> str:
    """A file as a test's id."""
    return str(path.relative_to(ROOT / "src"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_one_sitting(path: Path):
    text = path.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 400
    tree = tree_of(path)
    assert ast.get_docstring(tree), "the first line says why the file exists"
    for node in ast.walk(tree):
        if isinstance(node, Function):
            assert (node.end_lineno or 0) - node.lineno < LONGEST, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_is_public_says_what_it_is_for(path: Path):
    for name, node in definitions(tree_of(path)):
        parts = name.split(".")
        # What a class inherits, or answers in one line, is explained where it comes from.
        known = {"forward", "__init__", "__post_init__"} | inherited(path, node)
        is_short = isinstance(node, Function) and len(node.body) == 1
        if (
            any(part.startswith("_") for part in parts)
            or parts[-1] in known
            or (is_short and len(parts) > 1)
        ):
            continue
        assert ast.get_docstring(node), f"{name} has no docstring"


def inherited(path: Path, node: ast.AST) -> set[str]:
    """Methods whose docstring is on a base class in the same file."""
    tree = tree_of(path)
    classes = {child.name: child for child in tree.body if isinstance(child, ast.ClassDef)}
    found: set[str] = set()
    for child in classes.values():
        if node in ast.walk(child) or any(
            ast.dump(node) == ast.dump(method) for method in child.body
        ):
            bases = [
                classes[base.id]
                for base in child.bases
                if isinstance(base, ast.Name) and base.id in classes
            ]
            found |= {
                method.name
                for base in bases
                for method in base.body
                if isinstance(method, Function)
            }
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_prints(path: Path):
    calls = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert "print" not in [call.id for call in calls if isinstance(call, ast.Name)]


@pytest.mark.parametrize("args", [["ruff", "check"], ["ruff", "format", "--check"]], ids=" ".join)
def test_the_linter_agrees(args: list[str]):
    finished = subprocess.run(
        [sys.executable, "-m", *args], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_types_agree():
    args = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    finished = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "0 errors" in finished.stdout


def test_the_package_stays_small():
    counted = by_room(SOURCE)
    assert counted.total() <= CODE, counted.most_common()


def test_code_lines_are_counted_without_docstrings_and_comments():
    lines = [
        '"""What',
        'for."""',
        "",
        "# why",
        "def f():",
        '    """What."""',
        "    return (  # two",
    ]
    assert code_lines("\n".join([*lines, '        "a"', "    )", ""])) == 4


def test_few_files_stand_beside_the_rooms():
    assert len(list(SOURCE.glob("*.py"))) <= LOOSE


def sources_of(path: Path) -> str:
    """A Python file, or the cells of a notebook."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def test_no_line_is_wider_than_a_screen():
    """The linter lets lines with a long address or with a pragma pass."""
    folders = ("src", "tests", "benchmarks", "notebooks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.[pi][yp]*")]
    assert {path.suffix for path in files} == {".py", ".ipynb"}
    wide = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in files
        for line in sources_of(path).splitlines()
        if len(line) > WIDTH and "](https://" not in line
    ]
    assert not wide, "\n".join(wide)


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))
