"""The modern GPT, with rotary positions, RMSNorm, SwiGLU, grouped queries and Qwen3's names."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models import sampling
from groundup.models.cache import NO_CACHE, Attend, Cache
from groundup.models.config import ModernConfig

Rotation = tuple[Tensor, Tensor]  # cosine and sine, each [batch, 1, time, head_dim]


class RMSNorm(nn.RMSNorm):
    """Scales vectors to root mean square 1, then by learned factors.

        norm(x) = gamma x / sqrt(mean(x^2) + eps),  eps = 1e-6

    The source is Zhang & Sennrich (2019, equation 4).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        # a bfloat16 product is normalised in float32
        return super().forward(x.to(self.weight.dtype))


class Rotary(nn.Module):
    """Rotations by angles that grow with the position (Su et al. 2021, section 3.2.2).

        theta_i = base^(-2i/d),  i = 0, ..., d/2 - 1

    The angle at position t is t theta_i. The module maps positions [batch, time] int64 to a
    `Rotation`. Dimension i is paired with i + head_dim / 2, as in Qwen3.
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
        """Compute the cosines and sines of all positions, each [block_size, head_dim].

        They are computed in float64 and then rounded to the module's dtype.
        """
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

    def forward(self, positions: Tensor) -> Rotation:
        return self.cosine[positions][:, None], self.sine[positions][:, None]


def rotate(vectors: Tensor, rotation: Rotation) -> Tensor:
    """Rotate queries or keys, [batch, heads, time, head_dim], by the angles of their positions.

        q_i <- q_i cos(t theta_i) - q_(i+d/2) sin(t theta_i)
        q_(i+d/2) <- q_(i+d/2) cos(t theta_i) + q_i sin(t theta_i)

    The source is Su et al. (2021, section 3.4.2), and k is rotated like q.
    """
    cosine, sine = rotation
    first, second = vectors.chunk(2, dim=-1)
    quarter_turn = torch.cat([-second, first], dim=-1)
    return vectors * cosine.to(vectors) + quarter_turn * sine.to(vectors)


class Attention(nn.Module):
    """Causal self-attention whose queries share keys and values in groups (Ainslie et al. 2023).

        q = rotate(norm(W_q x)),  k = rotate(norm(W_k x)),  v = W_v x;  y = W_o [y_1, ..., y_h]
        y_t = sum_s p_ts v_s,  p_ts = softmax_s(q_t . k_s / sqrt(d)),  s <= t

    Queries and keys are normalised by head before they are rotated (Dehghani et al. 2023). The
    layer maps [batch, time, n_embd] to the same shape. `forward` takes the function that computes
    attention: `causal_attention`, or that of a cache.
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

    def forward(self, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_dim))  # [batch, time, heads, head_dim]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query = rotate(self.q_norm(query).transpose(1, 2), rotation)
        key, value = rotate(self.k_norm(key).transpose(1, 2), rotation), value.transpose(1, 2)
        found = attend(query, key, value, 0.0)
        return self.o_proj(found.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU: a projection that is gated by another one (Shazeer 2020, equation 6).

        y = W_2 (silu(W_1 x) * W_3 x),  silu(x) = x / (1 + exp(-x))

    It maps [..., n_embd] to the same shape.
    """

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.n_embd, config.n_inner, bias=False)
        self.up_proj = nn.Linear(config.n_embd, config.n_inner, bias=False)
        self.down_proj = nn.Linear(config.n_inner, config.n_embd, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class SequenceDropout(nn.Module):
    """Dropout with one mask for all positions of a sequence (Gal & Ghahramani 2016, 4.2).

    In training each unit of a sequence is either zero at all positions or scaled up at all of them.
    One mask for all positions needs very few random numbers. With a mask for each position, drawing
    them would take a quarter of a training step on a CPU. The module maps [batch, time, width] to
    the same shape.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return hidden
        units = hidden.new_ones(hidden.size(0), 1, hidden.size(2))
        return hidden * F.dropout(units, self.probability)


class Block(nn.Module):
    """Attention and MLP, which each read a normalised residual stream and add to the stream.

        x <- x + attention(norm(x));  x <- x + mlp(norm(x))

    The source is Yang et al. (2025, section 2).
    """

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.n_embd)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.n_embd)
        self.mlp = MLP(config)
        self.dropout = SequenceDropout(config.dropout)

    def forward(self, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        found = self.self_attn(self.input_layernorm(hidden), rotation, attend)
        hidden = hidden + self.dropout(found)
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))


class Transformer(nn.Module):
    """The embedding, the blocks and the last norm: [batch, time] -> [batch, time, n_embd]."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.block_size = config.block_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.rotary = Rotary(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd)

    def forward(self, tokens: Tensor, cache: Cache) -> Tensor:
        rotation = self.rotary(cache.positions(tokens, self.block_size))
        hidden = self.embed_tokens(tokens)
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, rotation, cache.attention(number))
        return self.norm(hidden)


class Modern(nn.Module):
    """A Qwen3 dense model (Yang et al. 2025), with Qwen3's formulas and names of weights.

        x = W_e[token];  L blocks change x;  z = W_z norm(x);  p = softmax(z)

    W_z is W_e where the head is tied.
    """

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
        """Load a published Qwen3 dense model, in eval mode.

        Args:
            name: Qwen/Qwen3-0.6B, any OWNER/NAME[@REVISION] of Hugging Face's hub, a run's name, or
                the path of a run or a model folder.

        Raises:
            CheckpointError: There is no intact Qwen3 of that name.
            CorpusError: The model can't be downloaded from the hub.
        """
        # a door upwards: models know no files otherwise
        from groundup.checkpoints.model_folder import load_as

        return load_as(cls, name)

    @property
    def head(self) -> nn.Linear:
        """The projection to logits, under the name that all models share."""
        return self.lm_head

    def initialise(self) -> None:
        """Draw the matrices, and set those that write to the residual stream to zero.

        The drawn matrices are normal with standard deviation 0.02. Because of the zeros each block
        adds nothing to the residual stream at first.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def hidden(self, tokens: Tensor, cache: Cache = NO_CACHE) -> Tensor:
        """Return the hidden states that the head reads: [batch, time] -> [batch, time, n_embd].

        Args:
            tokens: [batch, time] int64; a row has at most block_size tokens with those in `cache`.
            cache: The cache of what the model has read before, to which `tokens` are added.
        """
        return self.model(tokens, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the next tokens: [..., n_embd] -> [..., vocab]."""
        return self.lm_head(hidden)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits [batch, time, vocab], and the mean loss in nats if there are targets.

        Args:
            tokens: [batch, time] int64, time <= block_size.
            targets: [batch, time] int64, the token that follows each of `tokens`.
        """
        logits = self.logits(self.hidden(tokens))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    generate = sampling.generate  # tokens: [batch, time] -> [batch, time + max_new_tokens]
