"""How far two results are apart, as one number that a bound can be held against."""

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in relation to the largest number expected; NaN where either has one.

    Raises AssertionError for other shapes.
    """
    return relative_of_all({"": found}, {"": expected})


def relative_of_all(found: Tensors, expected: Tensors) -> float:
    """The same over several tensors: the largest difference of any to the largest number of all.

    Raises AssertionError for other names or shapes.
    """
    assert found.keys() == expected.keys(), (
        f"other tensors: {sorted(found.keys() ^ expected.keys())[:3]}"
    )
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


def of_norms(found: Tensors, expected: Tensors) -> float:
    """The length of the difference of two sets of tensors, each taken as one long vector, to the
    length expected.
    """
    assert found.keys() == expected.keys(), (
        f"other tensors: {sorted(found.keys() ^ expected.keys())[:3]}"
    )
    differences = sum(
        _on_cpu(found[name]).sub(_on_cpu(tensor)).square().sum()
        for name, tensor in expected.items()
    )
    size = sum(_on_cpu(tensor).square().sum() for tensor in expected.values())
    return (
        float(torch.as_tensor(differences / size).sqrt())
        if size
        else float(torch.as_tensor(differences).sqrt())
    )


def count_unequal(found: Tensors, expected: Tensors) -> int:
    """Tensors that aren't the same bit for bit, missing and surplus ones among them."""
    common = found.keys() & expected.keys()
    return len(found.keys() ^ expected.keys()) + sum(
        not same_bits(found[name], expected[name]) for name in common
    )


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Whether type, shape and every bit are the same; a NaN equals itself."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    bits, expected_bits = (
        tensor.detach().cpu().contiguous().flatten() for tensor in (found, expected)
    )
    return torch.equal(bits.view(torch.uint8), expected_bits.view(torch.uint8))


def gradients_of(model: nn.Module) -> Tensors:
    """The gradients under the names of the state dict, a tied head's under both of its names."""
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad
    return found


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()
