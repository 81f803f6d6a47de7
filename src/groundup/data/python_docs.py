"""The corpus that needs no network: the documentation that every Python installation carries."""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from groundup.errors import CorpusError

# What distributions leave out, rename or generate, so that two installations of one Python give the
# same text.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip"}
LEFT_OUT |= {"site-packages", "dist-packages", "__pycache__"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_docs(library: Path | None = None) -> str:
    """Join the topics of `pydoc_data` and the standard library's docstrings, in order of paths.

    The sources are parsed, never imported.

    Args:
        library: The folder of the standard library; that of this Python if left out.

    Raises:
        CorpusError: The library has no documentation.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    documents = list(_topics(library / "pydoc_data" / "topics.py"))
    for path in sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).parts):
        relative = path.relative_to(library)
        is_generated = any(part.startswith("config-") for part in relative.parts)
        if LEFT_OUT.isdisjoint(relative.parts) and not is_generated:
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            documents += _docstrings(path, module)
    if not documents:
        what = f"the standard library in {library} has no documentation to read"
        raise CorpusError(f"{what}; give --corpus a file")
    return "\n\n".join(documents) + "\n"


def _topics(path: Path) -> Iterator[str]:
    """The texts of the dictionary literal `topics`, which `help('topics')` shows.

    Some Pythons lack it.
    """
    if not path.is_file():
        return
    for statement in ast.parse(path.read_bytes()).body:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict):
            topics = ast.literal_eval(value)
            yield from (topics[name].strip() for name in sorted(topics))


def _docstrings(path: Path, module: str) -> Iterator[str]:
    """Each docstring under its qualified name, as `help` heads it: first the module's own."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # a few files of the library are syntax errors on purpose
        return
    yield from _documented(tree, module)


def _documented(node: ast.Module | ast.ClassDef | Function, name: str) -> Iterator[str]:
    docstring = ast.get_docstring(node)
    if docstring:
        signature = f"({ast.unparse(node.args)})" if isinstance(node, Function) else ""
        lines = (f"    {line}".rstrip() for line in docstring.splitlines())
        yield f"{name}{signature}\n" + "\n".join(lines)
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function):
            yield from _documented(child, f"{name}.{child.name}")
