"""One token's way through a model, stage by stage: what is computed, its numbers and its code."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import groundup
from groundup.inspection.reading import Inspection


@dataclass(frozen=True)
class Values:
    """Numbers of a stage.

    Args:
        name: Their name in the formula.
        numbers: [n].
        kind: vector; tokens, a number for each token of the text from the first; vocabulary, a
            number for each of `tokens`; or bytes.
        range: signed, or probability for numbers from 0 to 1.
        tokens: The tokens that numbers of the kind vocabulary belong to.
    """

    name: str
    numbers: Tensor
    kind: str = "vector"
    range: str = "signed"
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Lines:
    """Lines of groundup's own source.

    Args:
        file: The file, from the package's folder.
        first: The number of the first line.
        lines: The lines.
    """

    file: str
    first: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """A stage of the computation.

    Args:
        name: Its name, the same for all models that have it.
        scope: model, block or head: what it is a part of.
        title: What to call it.
        sentence: What happens there, for somebody who has never seen a transformer.
        formula: How it is computed, in the symbols of the code.
        values: Its numbers.
        code: The lines that compute it.
        shape: The shape of what it computes, in words; made of `values` where it is left out.
    """

    name: str
    scope: str
    title: str
    sentence: str
    formula: str
    values: tuple[Values, ...]
    code: tuple[Lines, ...]
    shape: str = ""


@dataclass(frozen=True)
class Place:
    """What of a text is looked at: one token, in one layer and head.

    Args:
        inspection: The text.
        position: The index of the token.
        layer: The index of the layer.
        head: The index of the head of queries.
    """

    inspection: Inspection
    position: int
    layer: int = 0
    head: int = 0

    @property
    def block(self) -> Any:
        """The block of the layer."""
        assert self.inspection.parts is not None
        return self.inspection.parts.blocks[self.layer]

    def residual(self, after: int) -> Tensor:
        """The residual stream before the block, after its attention or after its MLP: 0, 1 or 2."""
        return self.inspection.stream[2 * self.layer + after, self.position]

    def key(self) -> Tensor:
        """The key of the token, as attention takes it."""
        shared = self.inspection.shared(self.head)
        return self.inspection.keys[self.layer, shared, self.position]

    def value(self) -> Tensor:
        """The value of the token."""
        shared = self.inspection.shared(self.head)
        return self.inspection.values[self.layer, shared, self.position]

    def scores(self) -> Tensor:
        """What the token's query scores with each key up to its own: [position + 1]."""
        return self.inspection.scores(self.layer, self.head, self.position, self.position + 1)[0]

    def weights(self, head: int) -> Tensor:
        """How much the token reads from each token up to itself: [position + 1]."""
        return self.inspection.attention(self.layer, head, self.position, self.position + 1)[0]

    def picked(self, head: int) -> Tensor:
        """The weighted sum of the values that a head reads: [head_dim]."""
        shared = self.inspection.shared(head)
        values = self.inspection.values[self.layer, shared, : self.position + 1]
        weights = self.weights(head)
        return weights @ values.to(weights.dtype)

    def all_picked(self) -> Tensor:
        """The weighted sums of all heads, one after the other."""
        found = [self.picked(head) for head in range(self.inspection.n_head)]
        return torch.cat(found).to(self.inspection.stream.dtype)


def one_vector(
    name: str, scope: str, title: str, sentence: str, formula: str, *lines: Lines, of: Values
) -> Stage:
    """Return a stage that computes one vector; all else is as `Stage` takes it."""
    return Stage(name, scope, title, sentence, formula, (of,), lines)


def code(where: Callable[..., Any], *markers: str) -> tuple[Lines, ...]:
    """Return the statements of a function or class in which texts occur.

    Args:
        where: The function or class.
        markers: A text of each statement, which no other has.
    """
    return tuple(_statement(where, marker) for marker in markers)


@cache
def _statement(where: Callable[..., Any], marker: str) -> Lines:
    where = inspect.unwrap(where)  # of torch.no_grad, for example
    source, first = inspect.getsourcelines(where)
    tree = ast.parse(textwrap.dedent("".join(source)))
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
        and not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.If | ast.With)
        and marker in "\n".join(_lines(source, node))
    ]
    assert len(found) == 1, f"{marker!r} is in {len(found)} statements of {where.__qualname__}"
    file = Path(inspect.getfile(where)).relative_to(Path(groundup.__file__).parent)
    return Lines(file.as_posix(), first + found[0].lineno - 1, tuple(_lines(source, found[0])))


def _lines(source: Sequence[str], node: ast.stmt) -> list[str]:
    assert node.end_lineno is not None
    return [line.rstrip("\n") for line in source[node.lineno - 1 : node.end_lineno]]
