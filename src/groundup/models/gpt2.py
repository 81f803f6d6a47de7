"""GPT-2, fused: one QKV projection, one attention kernel, Hugging Face's name for every weight."""

import math
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models import sampling
from groundup.models.cache import NO_CACHE, Attend, Cache
from groundup.models.config import GPTConfig


class Attention(nn.Module):
    """This layer computes all heads of causal self-attention at once (Vaswani et al. 2017, 3.2).

        [q, k, v] = W x + b;  y = W_o [y_1, ..., y_h] + b_o
        y_t = sum_s p_ts v_s,  p_ts = softmax_s(q_t . k_s / sqrt(d)),  s <= t

    It maps [batch, time, n_embd] to the same shape. `forward` takes the function that computes
    attention: `causal_attention`, or that of a cache.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        # queries, keys and values, each head after head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, attend: Attend) -> Tensor:
        batch, time, n_embd = hidden.shape
        qkv = self.c_attn(hidden).view(batch, time, 3, self.n_head, n_embd // self.n_head)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [batch, n_head, time, head_dim]
        found = attend(query, key, value, self.dropout if self.training else 0.0)
        return self.resid_dropout(self.c_proj(found.transpose(1, 2).reshape(batch, time, n_embd)))


class MLP(nn.Module):
    """A network that widens vectors four times, applies GELU, and narrows them again.

        y = W_2 gelu(W_1 x + b_1) + b_2,  gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))

    GELU is computed by its tanh formula (Hendrycks & Gimpel 2016, section 2). The network maps
    [..., n_embd] to the same shape.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.c_proj(F.gelu(self.c_fc(hidden), approximate="tanh")))


class Block(nn.Module):
    """Attention and MLP, which each read a normalised residual stream and add to it (pre-norm).

        x <- x + attention(norm(x));  x <- x + mlp(norm(x))

    The source is Radford et al. (2019, section 2.3).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor, attend: Attend) -> Tensor:
        hidden = hidden + self.attn(self.ln_1(hidden), attend)
        return hidden + self.mlp(self.ln_2(hidden))


class Transformer(nn.Module):
    """The embeddings, the blocks and the last norm: [batch, time] -> [batch, time, n_embd]."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)

    def forward(self, tokens: Tensor, cache: Cache) -> Tensor:
        positions = cache.positions(tokens, self.wpe.num_embeddings)
        hidden = self.drop(self.wte(tokens) + self.wpe(positions))
        for layer, block in enumerate(self.h):
            hidden = block(hidden, cache.attention(layer))
        return self.ln_f(hidden)


class GPT2(nn.Module):
    """GPT-2: what `readable.py` computes, as fast as the machine allows.

        x = W_e[token] + W_p[t];  L blocks change x;  z = W_e norm(x);  p = softmax(z)

    The source is Radford et al. (2019, section 2.3).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        # tied: one table reads tokens and writes them
        self.lm_head.weight = self.transformer.wte.weight
        self.initialise()

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "GPT2":
        """Load a published GPT-2, in eval mode.

        Args:
            name: gpt2, gpt2-medium, gpt2-large, gpt2-xl, any OWNER/NAME[@REVISION] of Hugging
                Face's hub, a run's name, or the path of a run or a model folder.

        Raises:
            CheckpointError: There is no intact GPT-2 of that name.
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
        """Draw the matrices from normal distributions, and set the biases to zero.

        The standard deviation is 0.02/sqrt(2 n_layer) for projections that write to the residual
        stream, and 0.02 for the other matrices.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * len(self.transformer.h)))
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, tokens: Tensor, cache: Cache = NO_CACHE) -> Tensor:
        """Return the hidden states that the head reads: [batch, time] -> [batch, time, n_embd].

        Args:
            tokens: [batch, time] int64; a row has at most block_size tokens with those in `cache`.
            cache: The cache of what the model has read before, to which `tokens` are added.
        """
        return self.transformer(tokens, cache)

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
