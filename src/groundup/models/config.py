"""The models' configs: plain numbers, checked once, without torch."""

import math
from dataclasses import dataclass

from groundup.errors import ConfigError

# of any count: more than any machine holds, and two of them multiply within 64 bits
LARGEST = 2**40
MOST_LISTED = 10**6  # a number whose divisors are named


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT-2 (Radford et al. 2019); the defaults are the 124M model.

    block_size: the longest context in tokens. vocab_size: token ids. n_layer: blocks. n_head:
    attention heads a block. n_embd: width of the residual stream. dropout: the probability, in [0,
    1). Raises ConfigError.
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

    block_size, vocab_size, n_layer, n_head and n_embd as in `GPTConfig`. n_kv_head: heads of keys
    and values, each shared by n_head / n_kv_head queries. head_dim: width of a head, even. n_inner:
    width of the MLP. rope_theta: the base of the rotary frequencies. tied: whether one table reads
    tokens and writes them. dropout: the probability of a unit in training, in [0, 1). Raises
    ConfigError.
    """

    block_size: int = 1024
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_kv_head: int = 12
    n_embd: int = 768
    head_dim: int = 64
    n_inner: int = 2048
    rope_theta: float = 10_000.0
    tied: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        counts = (
            "block_size",
            "vocab_size",
            "n_layer",
            "n_head",
            "n_kv_head",
            "n_embd",
            "head_dim",
            "n_inner",
        )
        _check_counts(self, *counts)
        if self.head_dim % 2:
            raise ConfigError(
                "head_dim",
                f"head_dim = {self.head_dim} is odd",
                "Rotations need pairs: choose it even.",
            )
        if not 0.0 < self.rope_theta < math.inf:
            raise ConfigError(
                "rope_theta",
                f"rope_theta = {self.rope_theta} isn't a number above 0",
                "Usual: 10000.",
            )
        _check_divides("n_head", self.n_head, "n_kv_head", self.n_kv_head)
        _check_dropout(self.dropout)


def _check_counts(config: object, *fields: str) -> None:
    """Each field must be a whole number from 1. Raises ConfigError."""
    for field in fields:
        if type(value := getattr(config, field)) is not int:
            raise ConfigError(
                field, f"{field} = {value!r} isn't a whole number", "Choose one from 1."
            )
        if value < 1:
            raise ConfigError(
                field, f"{field} = {value} is below 1", "Choose a positive whole number."
            )
        if value > LARGEST:
            raise ConfigError(
                field, f"{field} = {value} is above {LARGEST:,}", "Choose what a machine can hold."
            )


def _check_dropout(dropout: float) -> None:
    """Raises ConfigError."""
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(
            "dropout", f"dropout = {dropout} is outside [0, 1)", "Choose 0.0 to switch it off."
        )


def _check_divides(whole_name: str, whole: int, part_name: str, part: int) -> None:
    """`whole` must be a multiple of `part`. Raises ConfigError that lists what would fit."""
    if whole % part and whole > MOST_LISTED:
        raise ConfigError(
            part_name,
            f"{whole_name} = {whole} is not divisible by {part_name} = {part}",
            "Make it so.",
        )
    if whole % part:
        small = [divisor for divisor in range(1, math.isqrt(whole) + 1) if whole % divisor == 0]
        fitting = ", ".join(map(str, sorted({*small, *(whole // divisor for divisor in small)})))
        raise ConfigError(
            part_name,
            f"{whole_name} = {whole} is not divisible by {part_name} = {part}",
            f"Choose {part_name} from {fitting}.",
        )


ModelConfig = GPTConfig | ModernConfig


def parameter_count(architecture: str, config: ModelConfig) -> int:
    """Trainable parameters of a model, from its config alone."""
    if architecture == "bigram":
        return config.vocab_size**2
    return (
        modern_parameter_count(config)
        if isinstance(config, ModernConfig)
        else gpt_parameter_count(config)
    )


def gpt_parameter_count(config: GPTConfig) -> int:
    """Parameters of a GPT-2 with a tied head: embeddings, 12 C^2 + 13 C a block, and the
    last norm.
    """
    width = config.n_embd
    embeddings = (config.vocab_size + config.block_size) * width
    block = 12 * width * width + 13 * width
    return embeddings + config.n_layer * block + 2 * width


def modern_parameter_count(config: ModernConfig) -> int:
    """Parameters of a Qwen3: the embedding, a head unless tied, and in a block attention, MLP and
    four norms.
    """
    width = config.n_embd
    embeddings = config.vocab_size * width * (1 if config.tied else 2)
    attention = 2 * (config.n_head + config.n_kv_head) * config.head_dim * width
    block = attention + 3 * config.n_inner * width + 2 * width + 2 * config.head_dim
    return embeddings + config.n_layer * block + width


def adapted_matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """Of one block, (inputs, outputs) of each matrix that gets an adapter: all of attention's and
    of the MLP's.
    """
    width = config.n_embd
    if isinstance(config, GPTConfig):
        return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    queries, keys, inner = (
        config.n_head * config.head_dim,
        config.n_kv_head * config.head_dim,
        config.n_inner,
    )
    attention = [(width, queries), (width, keys), (width, keys), (queries, width)]
    return [*attention, (width, inner), (width, inner), (inner, width)]


def adapter_parameter_count(config: ModelConfig, rank: int) -> int:
    """Trainable parameters of adapters of that rank (Hu et al. 2021): rank (inputs + outputs) for
    each matrix.
    """
    return (
        config.n_layer
        * rank
        * sum(inputs + outputs for inputs, outputs in adapted_matrices(config))
    )
