"""How texts are drawn: every setting with its range, whoever asks for a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from groundup.errors import GenerationError

WRONG_TOP_K = "must be a number of tokens, from 1, below 2^31; leave it out to keep all"

WHOLE = "length", "top_k", "seed"
# (setting, smallest value, largest value, what is said of others)
RANGES = (
    ("length", 1, 2**31, "must be at least 1 token, at most 2^31"),
    ("temperature", 0, 100, "must be a finite number from 0 (greedy) to 100; the usual: 0.1 to 2"),
    ("top_k", 0, 2**31 - 1, WRONG_TOP_K),
    ("top_p", 5e-324, 1, "must be in (0, 1]; 1 keeps all tokens"),
    ("seed", 0, 2**63 - 1, "must be a whole number from 0, below 2^63"),
    ("min_p", 0, 1, "must be in [0, 1]; 0 keeps all tokens"),
    ("repetition_penalty", 0.01, 100, "must be a number from 0.01 to 100; 1 is none"),
    ("presence_penalty", -2, 2, "must be a number from -2 to 2; 0 is none"),
    ("frequency_penalty", -2, 2, "must be a number from -2 to 2; 0 is none"),
)


@dataclass(frozen=True)
class SamplingSettings:
    """How a text is drawn, and where it ends.

    The logits change in this order: repetition penalty, presence and frequency penalty, bias; then,
    unless it is greedy, temperature, top-k, top-p, min-p.

    Args:
        length: The number of tokens to write.
        temperature: Divides the logits; 0 is greedy.
        top_k: The number of most probable tokens to draw from; 0 keeps all.
        top_p: Draw from the most probable tokens that reach this probability together; in (0, 1].
        seed: The same seed, prompt and model give the same text.
        min_p: Draw from tokens at least this many times as probable as the most probable one.
        repetition_penalty: Divides the positive logits of all tokens of the text, the prompt's too,
            and multiplies the negative ones; 1 is none.
        presence_penalty: Is taken off the logit of each token that was written; 0 is none.
        frequency_penalty: The same, for each time that the token was written.
        logit_bias: Pairs of a token and what is added to its logit, from -100 to 100, as
            `tuple(mapping.items())` makes them; each token once.
        stop: At most eight texts, before the first of which the text ends.
        ignore_ends: Whether the tokens that end a text are written as all others are.

    Raises:
        GenerationError: A value is out of its range.
    """

    length: int = 500
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1337
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop: tuple[str, ...] = ()
    ignore_ends: bool = False

    def __post_init__(self) -> None:
        for name, smallest, largest, wanted in RANGES:
            value: Any = getattr(self, name)
            kinds = (Integral, "whole number") if name in WHOLE else (Real, "number")
            if not issubclass(type(value), kinds[0]):
                raise GenerationError(f"{name.replace('_', '-')} = {value!r} must be a {kinds[1]}")
            if not smallest <= value <= largest:  # as NaN isn't either
                raise GenerationError(f"{name.replace('_', '-')} = {value} {wanted}")
        if isinstance(self.logit_bias, Mapping):
            raise GenerationError("logit-bias must be pairs: give tuple(mapping.items())")
        for token, added in self.logit_bias:
            if not (isinstance(token, Integral) and isinstance(added, Real)):
                wanted = "a token, which is a whole number, and a number"
                raise GenerationError(f"logit-bias = {token!r}: {added!r} must be {wanted}")
            if not (0 <= token < 2**31 and -100 <= added <= 100):
                wanted = "of a token from 0, below 2^31, and from -100 to 100"
                raise GenerationError(f"logit-bias = {token}: {added} must be {wanted}")
        if len(dict(self.logit_bias)) < len(self.logit_bias):
            raise GenerationError(f"logit-bias = {self.logit_bias} must name each token once")
        if isinstance(self.stop, str) or not all(isinstance(each, str) for each in self.stop):
            raise GenerationError(f"stop = {self.stop!r} must be several texts: ('one', 'other')")
        if len(self.stop) > 8 or not all(self.stop):
            raise GenerationError(f"stop = {self.stop} must be at most 8 texts, none of them empty")
