"""The units that a loss is stated in."""

import math
from typing import Any


def perplexity(loss: float) -> float:
    """exp(loss): the size of the die that is as hard to predict. loss: nats a token"""
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """The bits that a model needs for a byte of text: comparable over tokenizers. loss: nats a
    token
    """
    return loss / math.log(2) / bytes_per_token


def loss_in_units(result: dict[str, Any]) -> list[str]:
    """State the loss that `groundup evaluate` found in each unit that it can be stated in."""
    stated = [f"{result['loss']:.4f} nats a token"]
    if result["bits_per_byte"] is not None:
        stated.append(f"{result['bits_per_byte']:.4f} bits a byte")
    if result["perplexity"] is not None:
        stated.append(f"perplexity {result['perplexity']:.2f}")
    return stated
