"""The formulas in docstrings: each model, optimizer and schedule has some, with their paper, in the
symbols of docs/symbols.md.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE, PAGE = ROOT / "src" / "groundup", ROOT / "docs" / "symbols.md"
MODULES = [
    *(f"models/{name}.py" for name in ("bigram", "readable", "gpt2", "modern", "attention")),
    *(f"models/{name}.py" for name in ("lora", "sampling", "cache")),
    *("optim/muon.py", "optim/groups.py", "optim/schedules.py"),
]
SECTION = re.compile(r"^ *(Args|Returns|Yields|Raises|Attributes):$", re.MULTILINE)
PAPER = re.compile(r"\b(19|20)\d\d\b|OpenAI")
NUMBER = re.compile(r"(?<![\w])\d[\d.]*(e-?\d+)?")
GRAMMAR = {"if", "else", "blocks", "change"}  # words in which a formula is more than symbols


def rows() -> Iterator[list[str]]:
    """The cells of each row of the page's tables, without their heads."""
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("symbol", "function") and "---" not in line:
            yield cells


def code_in(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


SYMBOLS = {symbol for cells in rows() for symbol in code_in(cells[0])}


def formulas_in(docstring: str, margin: int) -> list[str]:
    """The lines that are indented once more than the text, which is by `margin`, above sections."""
    text = SECTION.split(docstring)[0]
    indented = re.compile(rf" {{{margin + 4}}}\S")
    return [line.strip() for line in text.splitlines() if indented.match(line)]


def documented(name: str) -> Iterator[tuple[str, list[str]]]:
    """Each docstring of a file that has formulas, and these."""
    tree = ast.parse((SOURCE / name).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            if found := formulas_in(docstring, node.col_offset + 4):
                yield docstring, found


def unknown_in(formula: str) -> set[str]:
    """The names in a formula that aren't symbols of the page, with or without a subscript."""
    names = set(re.findall(r"[A-Za-z]\w*", NUMBER.sub(" ", formula))) - GRAMMAR
    return {name for name in names if name not in SYMBOLS and name.split("_")[0] not in SYMBOLS}


@pytest.mark.parametrize("name", MODULES)
def test_a_file_states_its_formulas_their_papers_and_no_symbols_of_its_own(name: str):
    found = list(documented(name))
    assert found, "no docstring has a formula: a line indented once more than its text"
    for docstring, formulas in found:
        assert PAPER.search(docstring), f"which paper is it from? {docstring}"
        for formula in formulas:
            assert re.search(r"<-|=", formula), formula
            assert not unknown_in(formula), f"{formula}: not in docs/symbols.md"


def test_each_symbol_is_defined_once_and_its_names_are_in_the_code():
    defined = [symbol for cells in rows() for symbol in code_in(cells[0])]
    assert len(defined) == len(set(defined))
    code = "\n".join((SOURCE / name).read_text("utf-8") for name in MODULES)
    for symbol, _, names, shape in (cells for cells in rows() if len(cells) == 4):
        assert code_in(names), symbol
        for name in code_in(names):
            assert re.search(rf"\b{name}\b", code), f"{name} of {symbol} is nowhere in the code"
        for sizes in re.findall(r"\[([A-Z][^]]*)\]", shape):
            assert set(re.findall(r"[A-Za-z]\w*", sizes)) <= SYMBOLS, shape


def test_no_symbol_stands_in_the_table_for_nothing():
    used = {
        name
        for file in MODULES
        for _, formulas in documented(file)
        for formula in formulas
        for found in re.findall(r"[A-Za-z]\w*", NUMBER.sub(" ", formula))
        for name in (found, found.split("_")[0], *found.partition("_")[2])
    }
    assert SYMBOLS - used <= {"B", "T", "C"}  # these are sizes alone


@pytest.mark.parametrize(
    ("formula", "unknown"),
    [
        ("y = W_o [y_1, ..., y_h] + b_o", set()),
        ("q_(i+d/2) <- 1e-5 q_i cos(2t theta_i)", set()),
        ("y = A x + softplus(x)", {"A", "softplus"}),
        ("dq_t = q_t", {"dq_t"}),
    ],
)
def test_a_symbol_of_ones_own_is_found(formula: str, unknown: set[str]):
    assert unknown_in(formula) == unknown
