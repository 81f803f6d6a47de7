"""The mean loss: each token weighs the same, and each process does equally many forward passes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from groundup.data.sampler import IGNORED
from groundup.data.splits import Tokens
from groundup.evaluation.validation import mean_loss, share_of
from groundup.parallel.world import World

VOCABULARY = 50


class Costs(nn.Module):
    """A loss that is known for each token: `costs[target]`, averaged over the targets that count.

    As the true one it isn't a number where no target counts.
    """

    def __init__(self, costs: Tensor) -> None:
        super().__init__()
        self.costs, self.passes = costs, 0

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        assert inputs.min() >= 0, "a model looks its inputs up"
        self.passes += 1
        return self.costs[targets[targets != IGNORED]].mean()


class Together(World):
    """One of several processes, whose sum is made later, by `added`."""

    def sum(self, values: Tensor) -> Tensor:
        SUMS.append(values)
        return torch.ones_like(values)


SUMS: list[Tensor] = []


def measure(stream: np.ndarray, objective: nn.Module, world: World, **sizes: int) -> float:
    tokens, device = Tokens.of(stream.astype(np.uint16)), torch.device("cpu")
    return mean_loss(objective, tokens, device=device, world=world, **sizes)


@given(
    length=st.integers(2, 400),
    block_size=st.integers(1, 30),
    batch_size=st.integers(1, 6),
    size=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_processes_do_equally_many_passes_and_add_up_to_the_mean(
    length: int, block_size: int, batch_size: int, size: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    stream, costs = random.integers(VOCABULARY, size=length), torch.rand(VOCABULARY).double()
    sizes = {"block_size": block_size, "batch_size": batch_size}
    SUMS.clear()
    passes = []
    for rank in range(size):
        objective = Costs(costs)
        measure(stream, objective, Together(rank, size), **sizes)
        passes.append(objective.passes)
    assert len(set(passes)) == 1, passes
    loss, count = torch.stack(SUMS).sum(0).tolist()
    assert count == length - 1, "every token but the first is a target once"
    assert loss / count == pytest.approx(costs[torch.from_numpy(stream[1:])].mean().item())


def test_the_last_window_weighs_by_its_tokens() -> None:
    """Nine targets in windows of four: the last has a single token, and not a third's weight."""
    stream, costs = np.arange(10), torch.zeros(VOCABULARY).double()
    costs[9] = 90.0
    for batch_size in (1, 2, 3, 4):
        found = measure(stream, Costs(costs), World(), block_size=4, batch_size=batch_size)
        assert found == pytest.approx(10.0)


def test_a_process_without_a_batch_of_its_own_gets_an_ignored_one() -> None:
    batches = [torch.full((2, 3), number) for number in range(4)]
    shares = [list(share_of(batches, World(rank, 3))) for rank in range(3)]
    assert [[batch[0, 0].item() for batch in share] for share in shares] == [
        [0, 3],
        [1, IGNORED],
        [2, IGNORED],
    ]
    assert list(share_of([], World(1, 3))) == []


@pytest.mark.parametrize("training", [True, False])
def test_the_objective_is_left_in_its_mode(training: bool) -> None:
    objective = Costs(torch.ones(VOCABULARY)).train(training)
    measure(np.arange(10), objective, World(), block_size=4, batch_size=2)
    assert objective.training is training
