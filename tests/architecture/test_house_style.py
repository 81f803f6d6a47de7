"""The style that a reader may rely on: small files, short functions, docstrings; and the linters
agree.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.recipes.files import packaged_names

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "src").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """A file as a test's id."""
    return str(path.relative_to(ROOT / "src"))


def definitions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Every class and function below a node with its dotted name, not those within functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            yield f"{inside}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{inside}{child.name}.")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_one_sitting(path: Path):
    text = path.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the first line says why the file exists"
    for node in ast.walk(tree):
        if isinstance(node, Function):
            assert (node.end_lineno or 0) - node.lineno < 80, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_is_public_says_what_it_is_for(path: Path):
    for name, node in definitions(ast.parse(path.read_text("utf-8"))):
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
    tree = ast.parse(path.read_text("utf-8"))
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
    calls = [
        node.func
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]
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


def test_the_recipes_and_the_types_are_in_the_package():
    """Hatchling takes what lies in the package's folder, as long as git doesn't ignore it."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]
    assert wheel == {"packages": ["src/groundup"]}
    data = [
        *(ROOT / "src" / "groundup" / "recipes").glob("*.toml"),
        ROOT / "src" / "groundup" / "py.typed",
    ]
    assert len(data) == 1 + len(packaged_names())
    if (ROOT / ".git").exists():
        ignored = subprocess.run(
            ["git", "check-ignore", *data], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ignored.stdout == ""


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))
