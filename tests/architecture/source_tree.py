"""The package's own source, parsed once for all tests of this folder."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "groundup"
FILES = sorted(SOURCE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree_of(path: Path) -> ast.Module:
    """A source file, parsed."""
    return ast.parse(path.read_text("utf-8"))


def module_name(path: Path) -> str:
    """`groundup.data.sampler` for src/groundup/data/sampler.py."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path) for path in FILES}


def room_of(module: str) -> str:
    """The room of a module of ours."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(node: ast.AST, door: str = "") -> Iterator[str]:
    """Every module that the code below a node imports, at the top, inside functions or for types.

    Args:
        node: The code to search.
        door: The name of a function whose imports are left out.

    Yields:
        Names of modules; `from groundup.data import sampler` gives `groundup.data.sampler`.
    """
    if isinstance(node, Function) and node.name == door:
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import hides the room that it leads to"
        for alias in node.names:
            deeper = f"{node.module}.{alias.name}"
            yield deeper if deeper in MODULES else node.module or ""
    for child in ast.iter_child_nodes(node):
        yield from imported(child, door)


def ours(path: Path, door: str = "") -> set[str]:
    """The modules of ours that a file imports."""
    return {name for name in imported(tree_of(path), door) if name.split(".")[0] == "groundup"}


def definitions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Every class and function below a node with its dotted name, not those within functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            yield f"{inside}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{inside}{child.name}.")
