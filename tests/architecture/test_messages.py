"""What is said to the user goes through `logging`: nothing hands on a callback for sentences."""

import ast
from collections.abc import Iterator

import pytest
from source_tree import FILES, SOURCE, Function, tree_of

SPOKEN = {"notice", "notices", "tell", "told", "say"}
SENTENCES = "Callable[[str], None]"
HANDLERS = {"console.py"}  # where messages leave the package


def callbacks_for_sentences(tree: ast.AST) -> Iterator[str]:
    """Parameters, fields and aliases that are for sentences by their name or their type."""
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.Lambda):
            args = node.args
            for given in [*args.posonlyargs, *args.args, *args.kwonlyargs]:
                annotation = ast.unparse(given.annotation) if given.annotation else ""
                if given.arg in SPOKEN or SENTENCES in annotation:
                    yield given.arg
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id in SPOKEN or SENTENCES in ast.unparse(node.annotation):
                yield node.target.id
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(SENTENCES):
            yield ast.unparse(node.targets[0])


def test_messages_are_logged():
    found = {
        str(path.relative_to(SOURCE)): list(callbacks_for_sentences(tree_of(path)))
        for path in FILES
        if path.name not in HANDLERS
    }
    assert not {file: names for file, names in found.items() if names}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def load(name, report: Callable[[str], None] = print): ...", ["report"]),
        ("def load(name, *, say=print): ...", ["say"]),
        ("class Reading:\n    notice: Notice | None", ["notice"]),
        ("Notice = Callable[[str], None]", ["Notice"]),
        ("def load(name, progress: Callable[[int], None]): ...", []),
    ],
)
def test_a_callback_for_sentences_is_found(source: str, names: list[str]):
    assert list(callbacks_for_sentences(ast.parse(source))) == names
