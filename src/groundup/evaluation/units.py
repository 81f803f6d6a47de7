"""The units that a loss is stated in."""

import math


def perplexity(loss: float) -> float:
    """exp(loss): the size of the die that is as hard to predict. loss: nats a token"""
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """The bits that a model needs for a byte of text: comparable over tokenizers. loss: nats a
    token
    """
    return loss / math.log(2) / bytes_per_token
