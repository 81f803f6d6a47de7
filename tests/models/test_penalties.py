"""Penalties, bias and log-probabilities against their definitions in plain Python."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from groundup.models.sampling import (
    add_bias,
    penalise_repetition,
    penalise_written,
    token_logprobs,
)

logit_rows = st.lists(st.floats(-30.0, 30.0), min_size=6, max_size=6)
texts = st.lists(st.integers(0, 5), max_size=12)


def tokens_of(text: list[int]) -> torch.Tensor:
    """A text as a tensor, also an empty one."""
    return torch.tensor(text, dtype=torch.int64)


@given(logits=logit_rows, text=texts, penalty=st.floats(0.01, 100.0))
@example(logits=[1.0, -1.0, 0.0, -0.0, 2.0, math.inf], text=[0, 0, 1, 2, 3, 5], penalty=2.0)
def test_a_repeated_token_is_penalised_once(logits: list[float], text: list[int], penalty: float):
    row = torch.tensor(logits, dtype=torch.float64)
    found = penalise_repetition(row, tokens_of(text), penalty).tolist()
    for token, logit in enumerate(logits):
        changed = logit / penalty if logit > 0 else logit * penalty
        assert found[token] == (changed if token in text else logit)
    assert row.tolist() == logits


@given(
    logits=logit_rows, written=texts, presence=st.floats(-2.0, 2.0), frequency=st.floats(-2.0, 2.0)
)
def test_written_tokens_pay_once_and_for_each_time(
    logits: list[float], written: list[int], presence: float, frequency: float
):
    row = torch.tensor(logits, dtype=torch.float64)
    found = penalise_written(row, tokens_of(written), presence, frequency).tolist()
    for token, logit in enumerate(logits):
        expected = logit - presence * (token in written) - frequency * written.count(token)
        assert found[token] == pytest.approx(expected, rel=0, abs=1e-13)
        assert token in written or found[token] == logit
    assert row.tolist() == logits


@given(logits=logit_rows, bias=st.dictionaries(st.integers(0, 5), st.floats(-100.0, 100.0)))
def test_a_bias_is_added(logits: list[float], bias: dict[int, float]):
    row = torch.tensor(logits, dtype=torch.float64)
    found = add_bias(row, tuple(bias.items())).tolist()
    assert found == [logit + bias.get(token, 0.0) for token, logit in enumerate(logits)]
    assert row.tolist() == logits


def test_neutral_values_return_the_same_tensor():
    row, text = torch.tensor([1.0, -1.0]), tokens_of([0, 1])
    assert penalise_repetition(row, text, 1.0) is row
    assert penalise_written(row, text, 0.0, 0.0) is row
    assert add_bias(row, ()) is row


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_kind_of_number_stays(dtype: torch.dtype):
    row, text = torch.tensor([1.0, -1.0], dtype=dtype), tokens_of([0])
    assert penalise_repetition(row, text, 2.0).tolist() == [0.5, -1.0]
    assert penalise_written(row, text, 0.5, 1.0).tolist() == [-0.5, -1.0]
    for changed in (
        penalise_repetition(row, text, 2.0),
        penalise_written(row, text, 0.5, 1.0),
        add_bias(row, [(0, 0.5)]),
    ):
        assert changed.dtype == dtype


def test_the_order_shows_in_the_result():
    """Repetition works on the raw logits: 8 / 2 - 1 + 3 isn't (8 - 1 + 3) / 2."""
    row, text = torch.tensor([8.0, 0.0]), tokens_of([0])
    changed = penalise_written(penalise_repetition(row, text, 2.0), text, 0.5, 0.5)
    assert add_bias(changed, [(0, 3.0)]).tolist() == [6.0, 0.0]


@given(
    rows=st.lists(st.lists(st.integers(-3, 3), min_size=9, max_size=9), min_size=1, max_size=4),
    top=st.integers(0, 9),
    last=st.integers(0, 8),
    spread=st.sampled_from([0.1, 1.0, 300.0]),
)
def test_log_probabilities_are_those_of_the_softmax(
    rows: list[list[int]], top: int, last: int, spread: float
):
    """Few different logits: most have equals, at the edge of the most probable ones too."""
    logits = [[level * spread for level in row] for row in rows]
    token = torch.full((len(rows),), last)
    own, most, values = token_logprobs(torch.tensor(logits, dtype=torch.float64), token, top)
    assert most.shape == values.shape == (len(rows), top)
    for number, row in enumerate(logits):
        largest = max(row)
        total = largest + math.log(math.fsum(math.exp(logit - largest) for logit in row))
        order = sorted(range(9), key=lambda token, row=row: (-row[token], token))
        assert own[number].item() == pytest.approx(row[last] - total, rel=1e-13, abs=1e-13)
        assert most[number].tolist() == order[:top]
        expected = [row[token] - total for token in order[:top]]
        assert values[number].tolist() == pytest.approx(expected, rel=1e-13, abs=1e-13)


def test_log_probabilities_of_half_precision_are_as_fine_as_float64():
    logits = torch.tensor([[0.5, -1.0, 3.0]], dtype=torch.bfloat16)
    own, most, values = token_logprobs(logits, torch.tensor([1]), 2)
    assert own.dtype == values.dtype == torch.float64
    assert own.tolist() == logits.double().log_softmax(dim=-1)[:, 1].tolist()
    assert most.tolist() == [[2, 0]]


def test_a_row_that_is_no_number_has_log_probabilities_that_are_none():
    own, most, values = token_logprobs(torch.full((1, 4), math.nan), torch.tensor([0]), 2)
    assert own.isnan().all()
    assert values.isnan().all()
    assert most.tolist() == [[0, 1]]
