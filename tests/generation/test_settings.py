"""Every setting of a text has two ends: they are taken, and what lies beyond them is named."""

import math
from dataclasses import fields
from typing import Any

import pytest

from groundup.errors import GenerationError
from groundup.generation.settings import SamplingSettings

ENDS: dict[str, tuple[Any, Any]] = {
    "length": (1, 2**31),
    "temperature": (0.0, 100.0),
    "top_k": (0, 2**31 - 1),
    "top_p": (5e-324, 1.0),
    "seed": (0, 2**63 - 1),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}


def beyond(end: float, direction: float) -> float:
    """The next number."""
    step = 1 if direction > 0 else -1
    return math.nextafter(end, direction) if isinstance(end, float) else end + step


@pytest.mark.parametrize("name", ENDS)
def test_a_number_is_taken_up_to_its_ends(name: str):
    for end, direction in zip(ENDS[name], (-math.inf, math.inf), strict=True):
        assert getattr(SamplingSettings(**{name: end}), name) == end
        for value in (beyond(end, direction), math.nan, direction):
            with pytest.raises(
                GenerationError, match=f"^{name.replace('_', '-')} = {value} must be "
            ):
                SamplingSettings(**{name: value})


def test_every_number_has_ends():
    values = {field.name: field.default for field in fields(SamplingSettings)}
    numbers = {name for name, value in values.items() if type(value) in (int, float)}
    assert numbers == set(ENDS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"length": 0}, "length = 0 must be at least 1 token, at most 2^31"),
        (
            {"temperature": -1.0},
            "temperature = -1.0 must be a finite number from 0 (greedy) to 100",
        ),
        ({"top_k": -1}, "top-k = -1 must be a number of tokens, from 1, below 2^31"),
        ({"top_p": 0.0}, "top-p = 0.0 must be in (0, 1]"),
        ({"seed": 2**63}, "seed = 9223372036854775808 must be a whole number from 0, below 2^63"),
        ({"min_p": 1.5}, "min-p = 1.5 must be in [0, 1]"),
        ({"repetition_penalty": 0.0}, "repetition-penalty = 0.0 must be a number from 0.01 to 100"),
        ({"presence_penalty": 3.0}, "presence-penalty = 3.0 must be a number from -2 to 2"),
        (
            {"logit_bias": ((5, 100.5),)},
            "logit-bias = 5: 100.5 must be of a token from 0, below 2^31",
        ),
        ({"logit_bias": ((1, 0.0), (5, -101))}, "logit-bias = 5: -101 must be "),
        ({"logit_bias": ((5, math.nan),)}, "logit-bias = 5: nan must be "),
        ({"logit_bias": ((-1, 1.0),)}, "logit-bias = -1: 1.0 must be "),
        ({"logit_bias": ((2**31, 1.0),)}, "logit-bias = 2147483648: 1.0 must be "),
        ({"logit_bias": ((5, 1.0), (5, 2.0))}, "must name each token once"),
        ({"stop": ("a", "")}, "stop = ('a', '') must be at most 8 texts, none of them empty"),
        ({"stop": tuple("abcdefghi")}, "must be at most 8 texts"),
        ({"stop": "abc"}, "stop = 'abc' must be several texts"),
        ({"stop": (3,)}, "stop = (3,) must be several texts"),
        ({"seed": 1.0}, "seed = 1.0 must be a whole number"),
        ({"length": 10.5}, "length = 10.5 must be a whole number"),
        ({"top_k": "3"}, "top-k = '3' must be a whole number"),
        ({"top_p": None}, "top-p = None must be a number"),
        ({"logit_bias": {5: 1.0}}, "logit-bias must be pairs: give tuple(mapping.items())"),
        ({"logit_bias": ((5.5, 100),)}, "logit-bias = 5.5: 100 must be a token"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, Any], said: str):
    with pytest.raises(GenerationError) as caught:
        SamplingSettings(**change)
    assert said in str(caught.value)


def test_settings_within_their_range_are_kept():
    bias = tuple({7: -100, 2**31 - 1: 100.0}.items())
    chosen = SamplingSettings(logit_bias=bias, stop=("a", "b\n", "c", "d"), ignore_ends=True)
    assert chosen.logit_bias == bias
    assert chosen.stop == ("a", "b\n", "c", "d")
    assert chosen.ignore_ends
    assert hash(chosen) == hash(
        SamplingSettings(logit_bias=bias, stop=chosen.stop, ignore_ends=True)
    )
