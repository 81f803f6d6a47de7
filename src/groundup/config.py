"""The models' configs: plain numbers, checked once, without torch."""

import math
from dataclasses import dataclass

from groundup.errors import ConfigError


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT-2 (Radford et al. 2019); the defaults are the 124M model.

    block_size: the longest context in tokens. vocab_size: token ids. n_layer: blocks. n_head: attention heads a block.
    n_embd: width of the residual stream. dropout: the probability, in [0, 1).
    Raises ConfigError.
    """

    block_size: int = 1024
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in ("block_size", "vocab_size", "n_layer", "n_head", "n_embd"):
            if type(value := getattr(self, field)) is not int:
                raise ConfigError(field, f"{field} = {value!r} isn't a whole number", "Choose one from 1.")
            if value < 1:
                raise ConfigError(field, f"{field} = {value} is below 1", "Choose a positive whole number.")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError("dropout", f"dropout = {self.dropout} is outside [0, 1)", "Choose 0.0 to switch it off.")
        if self.n_embd % self.n_head:
            small = [heads for heads in range(1, math.isqrt(self.n_embd) + 1) if self.n_embd % heads == 0]
            fitting = ", ".join(map(str, sorted({*small, *(self.n_embd // heads for heads in small)})))
            raise ConfigError(
                "n_head",
                f"n_embd = {self.n_embd} is not divisible by n_head = {self.n_head}",
                f"Choose n_head from {fitting}.",
            )


def gpt_parameter_count(config: GPTConfig) -> int:
    """Parameters of a GPT-2 with a tied head: embeddings, 12 C^2 + 13 C a block, and the last norm."""
    width = config.n_embd
    embeddings = (config.vocab_size + config.block_size) * width
    block = 12 * width * width + 13 * width
    return embeddings + config.n_layer * block + 2 * width
