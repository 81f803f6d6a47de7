"""The units that a loss is stated in beside nats a token: perplexity and bits a byte."""

import math
from typing import Any


def perplexity(loss: float) -> float:
    """Compute exp(loss), the number of equally probable tokens that would have the same loss.

    Args:
        loss: The mean loss in nats a token.
    """
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Compute the bits per byte of text, which can be compared between tokenizers.

    Args:
        loss: The mean loss in nats a token.
        bytes_per_token: How many bytes of text a token stands for, on average.
    """
    return loss / math.log(2) / bytes_per_token


def loss_in_units(result: dict[str, Any]) -> list[str]:
    """Write the loss that `groundup evaluate` found in each unit in which the loss is a number."""
    stated = [f"{result['loss']:.4f} nats a token"]
    if result["bits_per_byte"] is not None:
        stated.append(f"{result['bits_per_byte']:.4f} bits a byte")
    if result["perplexity"] is not None:
        stated.append(f"perplexity {result['perplexity']:.2f}")
    return stated
