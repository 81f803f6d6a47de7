"""Where a model's parameters sit: which learned numbers each stage of a token's way uses."""

from math import prod

from groundup.models.config import GPTConfig, ModelConfig, ModernConfig

NORMS = "attention_norm", "mlp_norm", "final_norm"
Table = dict[str, list[tuple[str, tuple[int, ...]]]]  # stage -> names and sizes


def learned_numbers(architecture: str, config: ModelConfig) -> Table:
    """Return the learned numbers of each stage by its name, in one layer and head.

    Stages that aren't listed learn nothing. A head that shares keys and values shares their
    matrices, and norms of queries and keys are those of all heads of a layer.

    Args:
        architecture: bigram, gpt2 or modern.
        config: The model's shape.
    """
    if architecture == "bigram":
        return {"logits": [("table", (config.vocab_size, config.vocab_size))]}
    return _modern(config) if isinstance(config, ModernConfig) else _gpt2(config)


def _gpt2(config: GPTConfig) -> Table:
    width = config.n_embd
    size = width // config.n_head
    found: Table = {name: [("scale", (width,)), ("shift", (width,))] for name in NORMS}
    found["embedding"] = [("token_embedding", (config.vocab_size, width))]
    found["position"] = [("position_embedding", (config.block_size, width))]
    for name in ("query", "key", "value"):
        found[name] = _linear(name, width, size)
    found["projection"] = _linear("projection", width, width)
    found["expand"] = _linear("expand", width, 4 * width)
    return found | {"contract": _linear("contract", 4 * width, width)}


def _linear(name: str, inputs: int, outputs: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"W_{name}", (inputs, outputs)), (f"b_{name}", (outputs,))]


def _modern(config: ModernConfig) -> Table:
    width, size, inner = config.n_embd, config.head_dim, config.n_inner
    found: Table = {name: [("scale", (width,))] for name in NORMS}
    found["embedding"] = [("embed_tokens", (config.vocab_size, width))]
    found |= {name: [("scale", (size,))] for name in ("query_norm", "key_norm")}
    found |= {name: [(f"W_{name}", (width, size))] for name in ("query", "key", "value")}
    found["projection"] = [("W_o", (config.n_head * size, width))]
    found |= {name: [(f"W_{name}", (width, inner))] for name in ("gate", "up")}
    found["down"] = [("W_down", (inner, width))]
    if not config.tied:
        found["logits"] = [("W_head", (width, config.vocab_size))]
    return found


def in_words(numbers: list[tuple[str, tuple[int, ...]]]) -> str:
    """Say what is learned, and how many numbers that is.

    Args:
        numbers: Names and sizes.
    """
    parts = []
    for name, sizes in numbers:
        times = " × ".join(f"{size:,}" for size in sizes)
        parts.append(f"{name}: {times}" + (f" = {prod(sizes):,}" if len(sizes) > 1 else ""))
    return "; ".join(parts)
