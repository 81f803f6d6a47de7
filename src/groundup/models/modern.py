"""The modern GPT: rotary positions, RMSNorm, SwiGLU and grouped queries, in Qwen3's names for every
weight.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models import sampling
from groundup.models.attention import causal_attention
from groundup.models.cache import KVCache, LayerCache, layers_of
from groundup.models.config import ModernConfig


class RMSNorm(nn.RMSNorm):
    """Root mean square 1 for every vector, then a learned scale (Zhang & Sennrich 2019, equation
    4).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        # a bfloat16 product is normalised in float32
        return super().forward(x.to(self.weight.dtype))


class Rotary(nn.Module):
    """Turns queries and keys by an angle that grows with their position (Su et al. 2021, section
    3.2.2).

    Dimension i is paired with i + head_dim / 2, as in Qwen3. [batch, heads, time, head_dim] -> the
    same
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.shape, self.theta = (config.block_size, config.head_dim), config.rope_theta
        self.register_buffer("cosine", torch.empty(self.shape), persistent=False)
        self.register_buffer("sine", torch.empty(self.shape), persistent=False)
        self.fill()

    def fill(self) -> None:
        """Both tables, [block_size, head_dim], computed in float64 whatever they are kept in."""
        block_size, head_dim = self.shape
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
        positions = torch.arange(block_size, dtype=torch.float64, device="cpu")
        angles = (positions[:, None] * self.theta**-exponents).repeat(1, 2)
        self.cosine.copy_(angles.cos())
        self.sine.copy_(angles.sin())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rotary":
        # to another device or dtype; coming back from bfloat16 would leave rounded tables
        super()._apply(fn, recurse)
        self.fill()
        return self

    def forward(self, vectors: Tensor, position: int = 0) -> Tensor:
        turned = slice(position, position + vectors.size(-2))  # `position` is the first vector's
        first, second = vectors.chunk(2, dim=-1)
        quarter_turn = torch.cat([-second, first], dim=-1)
        return vectors * self.cosine[turned].to(vectors) + quarter_turn * self.sine[turned].to(
            vectors
        )


class Attention(nn.Module):
    """Causal self-attention whose keys and values are shared by groups of queries (Ainslie et al.
    2023).

    Queries and keys are normalised by head before they are turned (Dehghani et al. 2023). [batch,
    time, n_embd] -> same
    """

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.n_embd, config.n_head * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.n_embd, config.n_kv_head * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.n_embd, config.n_kv_head * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=False)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)

    def forward(self, hidden: Tensor, rotary: Rotary, cache: LayerCache | None = None) -> Tensor:
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_dim))  # [batch, time, heads, head_dim]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        position = 0 if cache is None else cache.length
        query = rotary(self.q_norm(query).transpose(1, 2), position)
        key, value = rotary(self.k_norm(key).transpose(1, 2), position), value.transpose(1, 2)
        if cache is not None:
            key, value = cache.append(key, value)
        found = causal_attention(query, key, value, dropout=0.0)
        return self.o_proj(found.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU: one projection opens or closes the other (Shazeer 2020, equation 6). [..., n_embd] ->
    same
    """

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.n_embd, config.n_inner, bias=False)
        self.up_proj = nn.Linear(config.n_embd, config.n_inner, bias=False)
        self.down_proj = nn.Linear(config.n_inner, config.n_embd, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class SequenceDropout(nn.Module):
    """In training, a unit is zero throughout a sequence, or larger throughout (Gal & Ghahramani
    2016, section 4.2).

    One mask for all positions needs next to no random numbers, which on a CPU take a quarter of the
    step otherwise. [batch, time, width] -> same
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return hidden
        return hidden * F.dropout(
            hidden.new_ones(hidden.size(0), 1, hidden.size(2)), self.probability
        )


class Block(nn.Module):
    """Attention and MLP, each on a normalised copy, each added to the residual stream."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.n_embd)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.n_embd)
        self.mlp = MLP(config)
        self.dropout = SequenceDropout(config.dropout)

    def forward(self, hidden: Tensor, rotary: Rotary, cache: LayerCache | None = None) -> Tensor:
        hidden = hidden + self.dropout(self.self_attn(self.input_layernorm(hidden), rotary, cache))
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))


class Transformer(nn.Module):
    """Embedding, blocks and the last norm. tokens: [batch, time] int64 -> [batch, time, n_embd]"""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.rotary = Rotary(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        hidden = self.embed_tokens(tokens)
        for layer, cached in zip(self.layers, layers_of(cache, len(self.layers)), strict=True):
            hidden = layer(hidden, self.rotary, cached)
        return self.norm(hidden)


class Modern(nn.Module):
    """A Qwen3 dense model (Yang et al. 2025), in names and in maths."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        self.model = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.initialise()

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Modern":
        """A published Qwen3 dense model, in eval mode.

        name: Qwen/Qwen3-0.6B, any OWNER/NAME[@REVISION] of the hub, a run or a model folder.
        Raises CheckpointError, and CorpusError for what can't be had from the hub.
        """
        # a door upwards: models know no files otherwise
        from groundup.checkpoints.model_folder import load_as

        return load_as(cls, name)

    @property
    def head(self) -> nn.Linear:
        """The projection to logits, under the name that all models share."""
        return self.lm_head

    def initialise(self) -> None:
        """Normal with deviation 0.02; what writes to the residual stream starts at zero: a block
        begins as nothing.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """The states before the head. tokens: [batch, time] int64, time <= block_size -> [batch,
        time, n_embd]

        cache: of the tokens before these, with which they must fit into block_size; these are added
        to it.
        """
        time = tokens.size(1) + (0 if cache is None else cache.length)
        assert time <= self.block_size, (
            f"{time} tokens are more than block_size = {self.block_size}"
        )
        return self.model(tokens, cache)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """tokens, targets: [batch, time] int64 -> logits [batch, time, vocab] and the mean loss in
        nats, or None.
        """
        logits = self.lm_head(self.hidden(tokens))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    generate = sampling.generate  # tokens: [batch, time] -> [batch, time + max_new_tokens]
