"""The models of the ladder: from a table of pairs to the modern GPT, one exchanged part at a time.

A model here is a stack of parts, and `Parts` says which. The parts are those of the other files of
this folder wherever they have them, so what a rung shows is what the package computes: with the
parts of GPT-2 the logits are those of `GPT2`, and with all of them those of `Modern`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models import gpt2, modern, readable, sampling
from groundup.models.attention import causal_attention
from groundup.models.config import GPTConfig, ModernConfig

Part = Callable[[ModernConfig], nn.Module]
# what readable parts call their weights, and what the parts of GPT-2 do
RENAMED = {
    "part.projection": "part.c_proj",
    "part.expand": "part.c_fc",
    "part.contract": "part.c_proj",
    "norm.scale": "norm.weight",
    "norm.shift": "norm.bias",
}
WRITERS = ("projection", "contract", "c_proj", "o_proj", "down_proj")  # to the residual stream


class OneHot(nn.Module):
    """Each token as a vector of zeros with a one at its place: [B, T] -> [B, T, V]."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.width = config.vocab_size

    def forward(self, tokens: Tensor) -> Tensor:
        return F.one_hot(tokens, self.width).to(torch.get_default_dtype())


class Tokens(nn.Module):
    """Each token as a learned vector: [B, T] -> [B, T, C] (Bengio et al. 2003)."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.width = config.n_embd
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens)


class TokensAndPositions(Tokens):
    """A learned vector of the token, plus one of its position (Radford et al. 2019)."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__(config)
        self.positions = nn.Embedding(config.block_size, config.n_embd)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.positions.weight[: tokens.size(1)]


class FusedHeads(gpt2.Attention):
    """GPT-2's attention: all heads by one product and one kernel, [B, T, C] -> [B, T, C]."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__(plain(config))

    def forward(self, hidden: Tensor) -> Tensor:  # pyright: ignore
        return super().forward(hidden, causal_attention)


class Turned(nn.Module):
    """Rotates queries or keys by their positions: [B, h, T, d] -> [B, h, T, d]."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.rotary = modern.Rotary(config)

    def forward(self, vectors: Tensor) -> Tensor:
        positions = torch.arange(vectors.size(-2), device=vectors.device)
        return modern.rotate(vectors, self.rotary(positions[None]))


class PlainHeads(nn.Module):
    """Attention without biases, with a product each for queries, keys and values.

    It maps [B, T, C] to [B, T, C]. What happens to queries and keys before they meet is left to the
    modules `normalise` and `turn`, which do nothing here.
    """

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.head_dim, width = config.head_dim, config.n_embd
        keys = self.key_heads(config) * config.head_dim
        self.q_proj = nn.Linear(width, config.n_head * config.head_dim, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, keys, bias=False)
        self.o_proj = nn.Linear(config.n_head * config.head_dim, width, bias=False)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        self.turn: nn.Module = nn.Identity()

    def key_heads(self, config: ModernConfig) -> int:
        """Return the number of heads of keys and values: one for each head of queries."""
        return config.n_head

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = self.turn(self.q_norm(query)), self.turn(self.k_norm(key))
        found = causal_attention(query, key, value, 0.0)
        return self.o_proj(found.transpose(1, 2).flatten(2))


class TurnedHeads(PlainHeads):
    """Queries and keys are rotated by their positions (Su et al. 2021, section 3.2.2)."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__(config)
        self.turn = Turned(config)


class GroupedHeads(TurnedHeads):
    """Heads of queries share heads of keys and values (Ainslie et al. 2023)."""

    def key_heads(self, config: ModernConfig) -> int:
        """Return the number of heads of keys and values."""
        return config.n_kv_head


class NormalisedHeads(GroupedHeads):
    """Queries and keys are normalised before they are rotated (Dehghani et al. 2023)."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__(config)
        self.q_norm = modern.RMSNorm(config.head_dim)
        self.k_norm = modern.RMSNorm(config.head_dim)


class PlainMLP(nn.Module):
    """GPT-2's MLP without biases: widen four times, GELU, narrow. [B, T, C] -> [B, T, C]."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.down_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(hidden), approximate="tanh"))


class Residual(nn.Module):
    """x + part(norm(x)): the part adds to the stream instead of replacing it (He et al. 2016)."""

    def __init__(self, norm: nn.Module, part: nn.Module) -> None:
        super().__init__()
        self.norm, self.part = norm, part

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.part(self.norm(hidden))


def plain(config: ModernConfig) -> GPTConfig:
    """Return the shape as the parts of GPT-2 want it."""
    shape = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd")}
    return GPTConfig(block_size=config.block_size, vocab_size=config.vocab_size, **shape)


def nothing(config: ModernConfig) -> nn.Module:
    """Return a part that leaves out what it stands for."""
    return nn.Identity()


def one_head(config: ModernConfig) -> nn.Module:
    """Return the readable model's head, as wide as the model."""
    shape = {"block_size": config.block_size, "vocab_size": config.vocab_size, "n_head": 1}
    return readable.Head(GPTConfig(n_embd=config.n_embd, **shape))


def many_heads(config: ModernConfig) -> nn.Module:
    """Return the readable model's heads, and the matrix that mixes what they found."""
    return readable.MultiHeadAttention(plain(config))


def mlp(config: ModernConfig) -> nn.Module:
    """Return the readable model's MLP."""
    return readable.MLP(plain(config))


def fused_mlp(config: ModernConfig) -> nn.Module:
    """Return GPT-2's MLP."""
    return gpt2.MLP(plain(config))


def layer_norm(config: ModernConfig) -> nn.Module:
    """Return the readable model's LayerNorm."""
    return readable.LayerNorm(plain(config))


def fused_norm(config: ModernConfig) -> nn.Module:
    """Return torch's LayerNorm, which GPT-2 has."""
    return nn.LayerNorm(config.n_embd)


def rms_norm(config: ModernConfig) -> nn.Module:
    """Return the modern model's RMSNorm, which has neither mean nor bias."""
    return modern.RMSNorm(config.n_embd)


def as_torch_does(model: nn.Module) -> None:
    """Leave the weights as torch's modules draw them."""


def small_normals(model: nn.Module) -> None:
    """Draw a table or a matrix from a normal distribution with standard deviation 0.02."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)


def as_gpt2(model: nn.Module) -> None:
    """Draw weights as GPT-2 does: those that write to the stream smaller by sqrt(2 L)."""
    small_normals(model)
    layers = sum(isinstance(part, Residual) for part in model.modules()) / 2
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif _writes(name):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers))


def writing_zeros(model: nn.Module) -> None:
    """Draw weights as the modern model does: those that write to the stream are zero."""
    small_normals(model)
    for name, parameter in model.named_parameters():
        if _writes(name):
            nn.init.zeros_(parameter)


def _writes(name: str) -> bool:
    return name.endswith(tuple(f"{writer}.weight" for writer in WRITERS))


def fused_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the parts of GPT-2 that compute what readable parts compute.

    Args:
        weights: The state of a `LadderGPT` with the readable model's parts.
    """
    fused = dict[str, Tensor]()
    stacked: dict[str, list[Tensor]] = {}
    for name, weight in weights.items():
        place, head, kind = name.partition(".heads.")
        if head:
            stacked.setdefault(f"{place}.c_attn.{kind.rpartition('.')[2]}", []).append(weight)
            continue
        old = next((old for old in RENAMED if old in name), "")
        fused[name.replace(old, RENAMED[old]) if old else name] = weight
    for name, parts in stacked.items():  # query, key and value of one head after the other
        fused[name] = torch.cat([*parts[0::3], *parts[1::3], *parts[2::3]])
    return fused


@dataclass(frozen=True)
class Parts:
    """What a model of the ladder is made of; each part is made from the shape of the model.

    Args:
        embedding: Tokens to vectors; its attribute `width` is their length.
        attention: What reads other positions.
        mlp: What reads each position alone.
        norm: What attention, MLP and the head read through.
        join: Makes one module of a norm and a part.
        depth: The number of blocks; None takes n_layer.
        is_tied: Whether the table of the embedding is the head, too.
        initialise: Draws the weights.
    """

    embedding: Part = OneHot
    attention: Part = nothing
    mlp: Part = nothing
    norm: Part = nothing
    join: Callable[[nn.Module, nn.Module], nn.Module] = nn.Sequential
    depth: int | None = 0
    is_tied: bool = False
    initialise: Callable[[nn.Module], None] = as_torch_does


class LadderGPT(nn.Module):
    """A language model made of the parts that are named: an embedding, blocks, a norm, a head."""

    def __init__(self, config: ModernConfig, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        depth = config.n_layer if parts.depth is None else parts.depth
        self.embedding = parts.embedding(config)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    parts.join(parts.norm(config), part(config))
                    for part in (parts.attention, parts.mlp)
                )
            )
            for _ in range(depth)
        )
        self.norm = parts.norm(config)
        width = self.embedding.width
        assert isinstance(width, int)
        self.head = nn.Linear(width, config.vocab_size, bias=False)
        if parts.is_tied:
            assert isinstance(self.embedding, Tokens)
            self.head.weight = self.embedding.tokens.weight
        parts.initialise(self)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return what the head reads: [B, T] -> [B, T, width].

        Args:
            tokens: [B, T] int64, T <= block_size.
        """
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the next tokens: [..., width] -> [..., V]."""
        return self.head(hidden)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits [B, T, V], and the mean loss in nats if there are targets.

        Args:
            tokens: [B, T] int64, T <= block_size.
            targets: [B, T] int64, the token that follows each of `tokens`.
        """
        logits = self.logits(self.hidden(tokens))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    generate = sampling.generate  # tokens: [B, T] -> [B, T + max_new_tokens]
