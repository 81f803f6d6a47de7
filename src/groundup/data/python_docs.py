"""The corpus that needs no network: the documentation that every Python installation carries."""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from groundup.errors import CorpusError

# What distributions leave out, rename or generate, so that two installations of one Python give the
# same text.
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "ensurepip",
    "site-packages",
}
LEFT_OUT |= {"dist-packages", "__pycache__"}


def python_docs(library: Path | None = None) -> str:
    """The topics of `pydoc_data`, then the docstrings of the standard library, in the order of
    their paths.

    The sources are parsed, never imported. `library` is the folder of the standard library. Raises
    CorpusError.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    documents = list(_topics(library / "pydoc_data" / "topics.py"))
    for path in sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).parts):
        relative = path.relative_to(library)
        if LEFT_OUT.isdisjoint(relative.parts) and not any(
            part.startswith("config-") for part in relative.parts
        ):
            documents += _docstrings(
                path, ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            )
    if not documents:
        raise CorpusError(
            f"the standard library in {library} has no documentation to read; give --corpus a file"
        )
    return "\n\n".join(documents) + "\n"


def _topics(path: Path) -> Iterator[str]:
    """The texts of the dictionary literal `topics`, which `help('topics')` shows; none where a
    Python lacks it.
    """
    if not path.is_file():
        return
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(
            statement.value, ast.Dict
        ):
            topics = ast.literal_eval(statement.value)
            yield from (topics[name].strip() for name in sorted(topics))


def _docstrings(path: Path, module: str) -> Iterator[str]:
    """Each docstring under its qualified name, as `help` heads it: the module's, then the
    definitions' in order.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # a few files of the library are syntax errors on purpose
        return
    yield from _documented(tree, module)


def _documented(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[str]:
    docstring = ast.get_docstring(node)
    if docstring:
        signature = (
            f"({ast.unparse(node.args)})"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            else ""
        )
        yield f"{name}{signature}\n" + "\n".join(
            f"    {line}".rstrip() for line in docstring.splitlines()
        )
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, f"{name}.{child.name}")
