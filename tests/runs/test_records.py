"""Throughput, perplexity and the steps that fit into a time are arithmetic, so they are tested as
arithmetic.
"""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.evaluation.units import bits_per_byte, perplexity
from groundup.runs.records import EvaluationRecord, StepRecord, tokens_per_second


@given(vocab_size=st.integers(1, 10**6))
def test_the_perplexity_of_a_uniform_guess_is_the_vocabulary(vocab_size: int) -> None:
    assert perplexity(math.log(vocab_size)) == pytest.approx(vocab_size)


@given(size=st.integers(1, 8))
def test_a_uniform_guess_of_bytes_takes_eight_bits_each(size: int) -> None:
    assert bits_per_byte(size * math.log(256), float(size)) == pytest.approx(8.0)


def test_perplexity_at_its_ends() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(699.0) < math.inf
    assert perplexity(700.0) == math.inf  # exp(710) would raise
    assert perplexity(1e9) == math.inf
    assert perplexity(math.inf) == math.inf


@given(
    tokens=st.integers(1, 10**9),
    started=st.floats(0.0, 1e6),
    elapsed=st.floats(1e-3, 1e4),
    offset=st.floats(0.0, 1e6),
)
def test_throughput_is_tokens_over_the_time_between_two_readings(
    tokens: int, started: float, elapsed: float, offset: float
) -> None:
    """And not over a reading of the clock: when the machine started doesn't matter."""
    rate = tokens_per_second(tokens, started, started + elapsed)
    assert rate == pytest.approx(tokens / elapsed, rel=1e-5)
    assert tokens_per_second(tokens, started + offset, started + offset + elapsed) == pytest.approx(
        rate, rel=1e-5
    )


def test_throughput_of_no_time_is_no_number_to_trust() -> None:
    assert tokens_per_second(100, 5.0, 5.0) == 0.0
    assert tokens_per_second(0, 5.0, 6.0) == 0.0
    assert tokens_per_second(300, 5.0, 7.0) == 150.0


def test_records_are_lines_of_json_that_say_their_kind() -> None:
    step = StepRecord(3, 1536, 2.5, 1e-3, 0.7, 1234.5, 1.25, 2**63 + 1)
    assert json.loads(json.dumps(step.to_json())) == {
        "kind": "step",
        "step": 3,
        "tokens": 1536,
        "loss": 2.5,
        "learning_rate": 1e-3,
        "gradient_norm": 0.7,
        "tokens_per_second": 1234.5,
        "seconds": 1.25,
        "batch_hash": 2**63 + 1,
    }
    evaluation = EvaluationRecord(3, 1536, None, 2.25, 3.25, 1.5)
    assert json.loads(json.dumps(evaluation.to_json())) == {
        "kind": "evaluation",
        "step": 3,
        "tokens": 1536,
        "train_loss": None,
        "validation_loss": 2.25,
        "bits_per_byte": 3.25,
        "seconds": 1.5,
    }
