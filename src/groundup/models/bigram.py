"""The bigram: a table of what follows each token. A GPT must predict better than this model."""

from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models import sampling
from groundup.models.config import GPTConfig


class Bigram(nn.Module):
    """Next-token logits that depend on the current token alone (Shannon 1948, section 3).

        z_t = W onehot(token_t),  p_t = softmax(z_t)

    The model is one table, the weight of a linear layer whose input is the one-hot token: column t
    holds the logits after token t. Of the config the model uses `vocab_size`, and `block_size` as
    the length of a training window.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        self.head = nn.Linear(config.vocab_size, config.vocab_size, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the one-hot vectors of tokens: [batch, time] -> [batch, time, vocab]."""
        return F.one_hot(tokens, self.head.in_features).to(self.head.weight.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of one-hot vectors: [..., vocab] -> [..., vocab]."""
        return self.head(hidden)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits [batch, time, vocab], and the mean loss in nats if there are targets.

        Args:
            tokens: [batch, time] int64.
            targets: [batch, time] int64, the token that follows each of `tokens`.
        """
        # a column a token, without building the one-hot vectors
        logits = F.embedding(tokens, self.head.weight.T)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    generate = sampling.generate  # tokens: [batch, time] -> [batch, time + max_new_tokens]
