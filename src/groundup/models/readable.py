"""The readable GPT: a module for every head, and a line for every step of attention.

It computes exactly what the fast model in `gpt2.py` computes; `correspondence.py` maps the weights
of each to those of the other. The tests take this model as the reference of the fast one, so this
file imports nothing but torch and the config.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models.config import GPTConfig


def future_of(scores: Tensor) -> Tensor:
    """Return [time, time] bool: where the key (column) comes after the query (row).

    Args:
        scores: The scores of attention, [..., time, time].
    """
    time = scores.size(-1)
    positions = torch.arange(time, device=scores.device)
    return positions[None, :] > positions[:, None]


class Head(nn.Module):
    """One head of causal self-attention (Vaswani et al. 2017, section 3.2.1).

        q = W_q x + b_q,  k = W_k x + b_k,  v = W_v x + b_v
        y_t = sum_s p_ts v_s,  p_ts = softmax_s(q_t . k_s / sqrt(d)),  s <= t

    It maps [batch, time, n_embd] to [batch, time, head_dim].
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        head_dim = config.n_embd // config.n_head
        self.query = nn.Linear(config.n_embd, head_dim)
        self.key = nn.Linear(config.n_embd, head_dim)
        self.value = nn.Linear(config.n_embd, head_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = self.query(hidden), self.key(hidden), self.value(hidden)
        scores = query @ key.mT / math.sqrt(key.size(-1))  # [batch, time (query), time (key)]
        scores = scores.masked_fill(future_of(scores), -math.inf)  # a token sees no future
        return self.dropout(scores.softmax(dim=-1)) @ value


class MultiHeadAttention(nn.Module):
    """Several heads side by side, then a projection that mixes what they found.

        y = W_o [y_1, ..., y_h] + b_o

    It is section 3.2.2 of Vaswani et al. 2017, and maps [batch, time, n_embd] to the same shape.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(config) for _ in range(config.n_head))
        self.projection = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        found = torch.cat([head(hidden) for head in self.heads], dim=-1)  # [batch, time, n_embd]
        return self.dropout(self.projection(found))


class GELU(nn.Module):
    """x times the probability that a normal variable is below x (Hendrycks & Gimpel 2016).

        gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))

    The probability is computed by the tanh formula of section 2 of that paper.
    """

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


class MLP(nn.Module):
    """A network that reads each token alone: widen four times, apply GELU, narrow again.

        y = W_2 gelu(W_1 x + b_1) + b_2

    It is section 3.3 of Vaswani et al. 2017 with GELU for ReLU, and maps [batch, time, n_embd] to
    the same shape.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.gelu = GELU()
        self.contract = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.contract(self.gelu(self.expand(hidden))))


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 for every token, then a learned scale and shift.

        norm(x) = gamma (x - mean(x)) / sqrt(var(x) + eps) + b,  eps = 1e-5

    The source is Ba et al. (2016, section 3.1).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(config.n_embd))
        self.shift = nn.Parameter(torch.zeros(config.n_embd))

    def forward(self, hidden: Tensor) -> Tensor:
        mean = hidden.mean(dim=-1, keepdim=True)
        variance = ((hidden - mean) ** 2).mean(dim=-1, keepdim=True)
        return self.scale * (hidden - mean) / torch.sqrt(variance + 1e-5) + self.shift


class Block(nn.Module):
    """Attention between tokens, then the MLP for each token alone.

        x <- x + attention(norm(x));  x <- x + mlp(norm(x))

    Both read a normalised copy of the residual stream, and add to it (Radford et al. 2019, 2.3).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(config)
        self.attention = MultiHeadAttention(config)
        self.mlp_norm = LayerNorm(config)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden))
        return hidden + self.mlp(self.mlp_norm(hidden))


def most_probable(
    logits: Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor]:
    """Return what a token is drawn from: probabilities, the greatest first, and their tokens.

    Args:
        logits: [batch, vocab].
        temperature: Divides the logits, above 0.
        top_k: The number of most probable tokens to draw from; 0 keeps all.
        top_p: Draw from the most probable tokens that reach this probability together.

    Returns:
        [batch, vocab] twice; the probabilities of tokens that aren't drawn from are 0.
    """
    probabilities = (logits / temperature).softmax(dim=-1)
    probabilities, order = probabilities.sort(dim=-1, descending=True)
    if top_k:
        probabilities[:, top_k:] = 0.0
        probabilities /= probabilities.sum(dim=-1, keepdim=True)
    before = probabilities.cumsum(dim=-1) - probabilities  # of all more probable tokens
    probabilities[before >= top_p] = 0.0
    return probabilities, order


def token_at(uniform: Tensor, probabilities: Tensor, order: Tensor) -> Tensor:
    """Return the token at which the probability of all tokens up to it passes a number.

    "Up to" is in the vocabulary's order.

    Args:
        uniform: [batch] in [0, 1).
        probabilities: [batch, vocab], in any order.
        order: [batch, vocab] int64, the token of each.

    Returns:
        [batch, 1] int64.
    """
    up_to = torch.zeros_like(probabilities).scatter(-1, order, probabilities).cumsum(dim=-1)
    return (up_to <= uniform[:, None] * up_to[:, -1:]).sum(dim=-1, keepdim=True)


class ReadableGPT(nn.Module):
    """GPT-2, written to be read.

        x = W_e[token] + W_p[t];  L blocks change x;  z = W_e norm(x);  p = softmax(z)

    The source is Radford et al. (2019, section 2.3).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = LayerNorm(config)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.head.weight = (
            self.token_embedding.weight
        )  # tied: one table reads tokens and writes them
        self.initialise()

    def initialise(self) -> None:
        """Draw the matrices from normal distributions, and set the biases to zero.

        The standard deviation is 0.02/sqrt(2 n_layer) for projections that write to the residual
        stream, and 0.02 for the other matrices.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("projection.weight", "contract.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * len(self.blocks)))
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the hidden states that the head reads: [batch, time] -> [batch, time, n_embd].

        Args:
            tokens: [batch, time] int64, time <= block_size.
        """
        time, longest = tokens.size(1), self.block_size
        assert time <= longest, f"{time} tokens are more than block_size = {longest}"
        positions = torch.arange(time, device=tokens.device)
        hidden = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the next tokens: [..., n_embd] -> [..., vocab]."""
        return self.head(hidden)

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

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        uniforms: Tensor | None = None,
        sliding: bool = False,
    ) -> Tensor:
        """Append drawn tokens to each row, each predicted from at most `block_size` ones.

        When these are reached, the newest half of them is kept.

        Args:
            tokens: [batch, time] int64, time >= 1.
            max_new_tokens: The number of tokens that are appended to each row.
            temperature: Divides the logits; 0 takes the most probable token.
            top_k: The number of most probable tokens to draw from; 0 keeps all.
            top_p: Draw from the most probable tokens that reach this probability together; 1
                keeps all.
            generator: Where random numbers come from; torch's default generator if left out.
            uniforms: [batch, max_new_tokens] float64 in [0, 1), on the CPU: the numbers to draw by,
                to the last of their 53 bits. No generator is asked then.
            sliding: Whether each token is drawn after the newest block_size ones instead.

        Returns:
            [batch, time + max_new_tokens] int64.
        """
        start = max(0, tokens.size(1) - self.block_size)
        for number in range(max_new_tokens):
            if tokens.size(1) - start > self.block_size:
                start += 1 if sliding else self.block_size - self.block_size // 2
            logits, _ = self(tokens[:, start:])
            logits = logits[:, -1]  # [batch, vocab]: what follows the last token
            if temperature == 0.0:
                newest = logits.argmax(dim=-1, keepdim=True)
            elif uniforms is None:
                probabilities, order = most_probable(logits, temperature, top_k, top_p)
                newest = order.gather(-1, probabilities.multinomial(1, generator=generator))
            else:
                kept = most_probable(logits.cpu().double(), temperature, top_k, top_p)
                newest = token_at(uniforms[:, number], *kept)
            tokens = torch.cat([tokens, newest.to(tokens.device)], dim=1)
        return tokens
