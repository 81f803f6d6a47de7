"""How far two results are apart, as one number that a bound can be held against."""

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two tensors, relative to the largest number expected.

    Returns:
        The quotient; NaN where either tensor has one.

    Raises:
        AssertionError: The shapes differ.
    """
    return relative_of_all({"": found}, {"": expected})


def relative_of_all(found: Tensors, expected: Tensors) -> float:
    """Return the largest difference in any tensor, relative to the largest number in all expected.

    Returns:
        The quotient; NaN where any tensor has one.

    Raises:
        AssertionError: The names or the shapes differ.
    """
    _check_names(found, expected)
    largest, differences = [], []
    for name, tensor in expected.items():
        shapes = list(found[name].shape), list(tensor.shape)
        assert shapes[0] == shapes[1], f"{name} {shapes[0]} against {shapes[1]}"
        if tensor.numel():
            largest.append(tensor.detach().abs().max().double().cpu())
            differences.append(_on_cpu(found[name]).sub(_on_cpu(tensor)).abs().max())
    size = torch.stack(largest).max().item() or 1.0
    # torch's maximum keeps a NaN, Python's may lose it
    return torch.stack(differences).max().item() / size


def relative_of_norms(found: Tensors, expected: Tensors) -> float:
    """Return the norm of the difference, relative to the norm expected.

    Each set of tensors is taken as one long vector. Where the norm expected is 0, the norm of the
    difference is returned.

    Raises:
        AssertionError: The names differ.
    """
    _check_names(found, expected)
    difference = sum(
        _on_cpu(found[name]).sub(_on_cpu(tensor)).square().sum()
        for name, tensor in expected.items()
    )
    size = sum(_on_cpu(tensor).square().sum() for tensor in expected.values())
    return float(torch.as_tensor(difference / size if size else difference).sqrt())


def count_unequal(found: Tensors, expected: Tensors) -> int:
    """Count the tensors that differ in any bit, missing and surplus ones among them."""
    common = found.keys() & expected.keys()
    differing = sum(not same_bits(found[name], expected[name]) for name in common)
    return len(found.keys() ^ expected.keys()) + differing


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Return whether dtype, shape and every bit are the same; a NaN equals itself."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    bits, expected_bits = (
        tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        for tensor in (found, expected)
    )
    return torch.equal(bits, expected_bits)


def gradients_of(model: nn.Module) -> Tensors:
    """Return the gradients by the names of the state dict, a tied head's by both of its names."""
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad
    return found


def _check_names(found: Tensors, expected: Tensors) -> None:
    differing = sorted(found.keys() ^ expected.keys())
    assert not differing, f"other tensors: {differing[:3]}"


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()
