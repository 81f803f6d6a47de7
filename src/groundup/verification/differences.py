"""How far two results are apart, as one number to compare with a bound."""

from collections.abc import Iterator

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Values = Tensor | Tensors  # one, or several by name


def relative(found: Values, expected: Values) -> float:
    """Return the largest difference in any tensor, divided by the largest absolute expected value.

    Args:
        found: A tensor, or several by name.
        expected: A tensor, or several by the same names.

    Returns:
        The quotient, or NaN if a tensor has a NaN.

    Raises:
        AssertionError: The names or the shapes differ.
    """
    largest, differences = [], []
    for name, one, other in _pairs(found, expected):
        shapes = list(one.shape), list(other.shape)
        assert shapes[0] == shapes[1], f"{name} {shapes[0]} against {shapes[1]}"
        if other.numel():
            largest.append(other.abs().max())
            differences.append(one.sub(other).abs().max())
    size = torch.stack(largest).max().item() or 1.0
    # torch's maximum keeps a NaN, Python's may lose it
    return torch.stack(differences).max().item() / size


def relative_of_norms(found: Values, expected: Values) -> float:
    """Return the norm of the difference, divided by the norm of the expected values.

    Each set of tensors is taken as one long vector. Where the expected values are all 0, the norm
    of the difference is returned.

    Args:
        found: A tensor, or several by name.
        expected: A tensor, or several by the same names.

    Raises:
        AssertionError: The names differ.
    """
    difference = size = torch.zeros((), dtype=torch.float64)
    for _, one, other in _pairs(found, expected):
        difference = difference + one.sub(other).square().sum()
        size = size + other.square().sum()
    return (difference / size if size else difference).sqrt().item()


def count_unequal(found: Tensors, expected: Tensors) -> int:
    """Count the tensors that differ in any bit, missing and surplus ones among them."""
    common = found.keys() & expected.keys()
    differing = sum(not same_bits(found[name], expected[name]) for name in common)
    return len(found.keys() ^ expected.keys()) + differing


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors have the same dtype, shape and bits, those of NaNs included."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    whole = (tensor.detach().cpu().contiguous().flatten() for tensor in (found, expected))
    return torch.equal(*(tensor.view(torch.uint8) for tensor in whole))


def _pairs(found: Values, expected: Values) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the names, which must be the same, and both tensors on the CPU in float64."""
    found = {"": found} if isinstance(found, Tensor) else found
    expected = {"": expected} if isinstance(expected, Tensor) else expected
    differing = sorted(found.keys() ^ expected.keys())
    assert not differing, f"other tensors: {differing[:3]}"
    for name, tensor in expected.items():
        yield name, found[name].detach().cpu().double(), tensor.detach().cpu().double()
