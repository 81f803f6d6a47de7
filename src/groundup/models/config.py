"""The models' configs: plain numbers, checked once, without torch."""

import math
from dataclasses import dataclass

from groundup.errors import ConfigError

LARGEST = 2**40  # of any count: no machine holds more, and two of them multiply within 64 bits
MOST_LISTED = 10**6  # a number whose divisors are named


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT-2 (Radford et al. 2019); the defaults are the 124M model.

    Args:
        block_size: The longest context, in tokens.
        vocab_size: The number of token ids.
        n_layer: The number of blocks.
        n_head: The number of attention heads in a block.
        n_embd: The width of the residual stream.
        dropout: The probability with which a unit is zeroed in training, in [0, 1).

    Raises:
        ConfigError: A value is out of range, or doesn't fit another one.
    """

    block_size: int = 1024
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_counts(self, "block_size", "vocab_size", "n_layer", "n_head", "n_embd")
        _check_dropout(self.dropout)
        _check_divides("n_embd", self.n_embd, "n_head", self.n_head)


@dataclass(frozen=True)
class ModernConfig:
    """The shape of a Qwen3 dense model (Yang et al. 2025); the defaults are of GPT-2's 124M class.

    Args:
        block_size: The longest context, in tokens.
        vocab_size: The number of token ids.
        n_layer: The number of blocks.
        n_head: The number of heads of queries in a block.
        n_kv_head: The number of heads of keys and values in a block; n_head / n_kv_head heads of
            queries share each of them. 0 takes n_head.
        n_embd: The width of the residual stream.
        head_dim: The width of a head, an even number. 0 takes n_embd / n_head.
        n_inner: The width of the MLP. 0 takes 8/3 n_embd, rounded up to a multiple of 16.
        rope_theta: The base of the rotary frequencies.
        tied: Whether the embedding of tokens and the head, which gives logits, are one matrix.
        dropout: The probability with which a unit is zeroed in training, in [0, 1).

    Raises:
        ConfigError: A value is out of range, or doesn't fit another one.
    """

    block_size: int = 1024
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_kv_head: int = 0
    n_embd: int = 768
    head_dim: int = 0
    n_inner: int = 0
    rope_theta: float = 10_000.0
    tied: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_counts(self, "block_size", "vocab_size", "n_layer", "n_head", "n_embd")
        if self.head_dim == 0:  # then a head has its share of the width, as in GPT-2
            _check_divides("n_embd", self.n_embd, "n_head", self.n_head)
        left_out = {"n_kv_head": self.n_head, "head_dim": self.n_embd // self.n_head}
        left_out["n_inner"] = 16 * -(-self.n_embd // 6)
        for name, value in left_out.items():
            if type(given := getattr(self, name)) is int and given == 0:
                object.__setattr__(self, name, value)
        _check_counts(self, *left_out)
        if self.head_dim % 2:
            remedy = "Rotations need pairs: choose it even."
            raise _wrong("head_dim", self.head_dim, "is odd", remedy)
        if not 0.0 < self.rope_theta < math.inf:
            raise _wrong("rope_theta", self.rope_theta, "isn't a number above 0", "Usual: 10000.")
        _check_divides("n_head", self.n_head, "n_kv_head", self.n_kv_head)
        _check_dropout(self.dropout)


def _wrong(field: str, value: object, problem: str, remedy: str) -> ConfigError:
    """Say what is wrong with the value of a field."""
    return ConfigError(field, f"{field} = {value} {problem}", remedy)


def _check_counts(config: object, *fields: str) -> None:
    """Check that each field is a whole number from 1 that a machine can hold."""
    for field in fields:
        if type(value := getattr(config, field)) is not int:
            raise _wrong(field, repr(value), "isn't a whole number", "Choose one from 1.")
        if value < 1:
            raise _wrong(field, value, "is below 1", "Choose a positive whole number.")
        if value > LARGEST:
            raise _wrong(field, value, f"is above {LARGEST:,}", "Choose what a machine can hold.")


def _check_dropout(dropout: float) -> None:
    if not 0.0 <= dropout < 1.0:
        raise _wrong("dropout", dropout, "is outside [0, 1)", "Choose 0.0 to switch it off.")


def _check_divides(whole_name: str, whole: int, part_name: str, part: int) -> None:
    """Check that `whole` is a multiple of `part`; if not, the error lists what would fit."""
    if whole % part == 0:
        return
    remedy = "Make it so."
    if whole <= MOST_LISTED:
        remedy = f"Choose {part_name} from {', '.join(map(str, divisors(whole)))}."
    complaint = f"{whole_name} = {whole} is not divisible by {part_name} = {part}"
    raise ConfigError(part_name, complaint, remedy)


def divisors(number: int) -> list[int]:
    """List what divides a positive number, from 1 to the number itself."""
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})


def largest_divisor(number: int, limit: float) -> int:
    """Return the largest divisor of a number that isn't above the limit, or 0 if there is none."""
    return max((divisor for divisor in divisors(number) if divisor <= limit), default=0)


ModelConfig = GPTConfig | ModernConfig


def parameter_count(architecture: str, config: ModelConfig) -> int:
    """Compute the number of parameters of a model from its config, without building it.

    Args:
        architecture: bigram, readable, gpt2 or modern.
        config: A `ModernConfig` for modern, a `GPTConfig` for any other architecture.
    """
    if architecture == "bigram":
        return config.vocab_size**2
    if isinstance(config, ModernConfig):
        return modern_parameter_count(config)
    return gpt_parameter_count(config)


def gpt_parameter_count(config: GPTConfig) -> int:
    """Compute the number of parameters of a GPT-2 of width C.

    The parameters are the embeddings of tokens, which are the head too, and of positions,
    12 C^2 + 13 C in each block, and the last norm.
    """
    width = config.n_embd
    embeddings = (config.vocab_size + config.block_size) * width
    block = 12 * width * width + 13 * width
    return embeddings + config.n_layer * block + 2 * width


def modern_parameter_count(config: ModernConfig) -> int:
    """Compute the number of parameters of a Qwen3.

    The parameters are the embedding, a head unless it is tied, attention, MLP and four norms in
    each block, and the last norm.
    """
    width = config.n_embd
    embeddings = config.vocab_size * width * (1 if config.tied else 2)
    attention = 2 * (config.n_head + config.n_kv_head) * config.head_dim * width
    block = attention + 3 * config.n_inner * width + 2 * width + 2 * config.head_dim
    return embeddings + config.n_layer * block + width


def adapted_matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """Return the size, (inputs, outputs), of each matrix of a block that gets a LoRA adapter.

    All matrices of attention and of the MLP get an adapter.
    """
    width = config.n_embd
    if isinstance(config, GPTConfig):
        return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    queries, keys = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    inner = config.n_inner
    attention = [(width, queries), (width, keys), (width, keys), (queries, width)]
    return [*attention, (width, inner), (width, inner), (inner, width)]


def adapter_parameter_count(config: ModelConfig, rank: int) -> int:
    """Compute the number of parameters of LoRA adapters on a model.

    Each adapted matrix needs rank * (inputs + outputs).
    """
    sizes = sum(inputs + outputs for inputs, outputs in adapted_matrices(config))
    return config.n_layer * rank * sizes
