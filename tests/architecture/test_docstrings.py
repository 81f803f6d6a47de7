"""Docstrings begin with one sentence on one line, and their sections are Google's and true."""

import ast
import re
from collections.abc import Iterator

import pytest
from source_tree import FILES, MODULES, Function, definitions, module_name, room_of, tree_of

SECTIONS = ["Args", "Returns", "Yields", "Raises"]
OTHER_HEADINGS = re.compile(
    r"^(Arguments|Params|Parameters|Return|Yield|Raise|Throws|Exceptions|Note|Notes|Example):?$"
)
PROSE = re.compile(r"\bRaises? (an? )?`?[A-Z]\w*(Error|Exit)\b")
STILL_OLD: set[str] = set()  # rooms whose docstrings are not in this form yet


def public_docstrings(tree: ast.Module) -> Iterator[tuple[str, ast.AST, str]]:
    """The docstring of a module and of each class and function without a leading underscore."""
    nodes = [("module", tree), *definitions(tree)]
    for name, node in nodes:
        text = ast.get_docstring(node)
        if text and not any(part.startswith("_") for part in name.split(".")):
            yield name, node, text


def faults(node: ast.AST, text: str) -> Iterator[str]:
    """What is wrong with the form of a docstring, a line each."""
    first, *rest = text.split("\n")
    if not first.endswith(".") or (rest and rest[0]):
        yield f"the first sentence isn't one line that ends with a full stop: {first!r}"
    if PROSE.search(re.split(r"^Raises:$", text, flags=re.MULTILINE)[0]):
        yield "what is raised belongs into a section, Raises:"
    for line in rest:
        if OTHER_HEADINGS.match(line):
            yield f"{line!r} is no heading of a section: {', '.join(SECTIONS)} are"
    headings = [line[:-1] for line in rest if line[:-1] in SECTIONS and line[-1:] == ":"]
    if headings != sorted(set(headings), key=SECTIONS.index):
        yield f"sections stand in the order {', '.join(SECTIONS)}, each once: {headings}"
    for heading in headings:
        yield from faults_of_section(heading, rest, node)


def faults_of_section(heading: str, lines: list[str], node: ast.AST) -> Iterator[str]:
    """What is wrong with one section: nothing in it, or a parameter that isn't one."""
    at = lines.index(f"{heading}:")
    entries = []
    for line in lines[at + 1 :]:
        if line and not line.startswith("    "):
            break
        entries += [line[4:]] if line[4:5].strip() else []
    if not entries or (at and lines[at - 1]):
        yield f"{heading}: has nothing indented by four spaces below it, or no empty line above it"
    if heading == "Args" and isinstance(node, Function):
        args = node.args
        known = {arg.arg for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs]}
        known |= {arg.arg for arg in (args.vararg, args.kwarg) if arg}
        for entry in entries:
            named = re.match(r"([\w*`, ]+?)(?: \([^)]*\))?:", entry)
            names = re.findall(r"\w+", named[1]) if named else []
            if not names or not set(names) <= known:
                yield f"Args: {entry!r} doesn't begin with a parameter and a colon"


@pytest.mark.parametrize("room", sorted({room_of(name) for name in MODULES} - STILL_OLD))
def test_the_docstrings_of_a_room_are_in_form(room: str):
    found = [
        f"{module_name(path)}.{name}: {fault}"
        for path in FILES
        if room_of(module_name(path)) == room
        for name, node, text in public_docstrings(tree_of(path))
        for fault in faults(node, text)
    ]
    assert not found, "\n".join(found)


GOOD = '''def read(path, limit=3):
    """Read a file's lines.

    Args:
        path: The file, which
            exists.
        limit (int): How many at most.

    Returns:
        The lines.

    Raises:
        DataError: The file isn't text.
    """'''


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("lines.\n", "lines,\n    whatever they hold.\n", "the first sentence"),
        ("lines.\n", "lines\n", "the first sentence"),
        ("Args:", "Parameters:", "is no heading"),
        ("path:", "file:", "doesn't begin with a parameter"),
        ("        The lines.\n", "", "has nothing indented"),
        ("    Returns:", "    Raises:", "each once"),
        ("Read a file's lines.", "Read. Raises DataError for what isn't text.", "what is raised"),
    ],
)
def test_a_fault_of_form_is_found(old: str, new: str, said: str):
    tree = ast.parse(GOOD.replace(old, new))
    [(_, node, text)] = [found for found in public_docstrings(tree) if found[0] == "read"]
    found = list(faults(node, text))
    assert any(said in fault for fault in found) if said else not found
