"""The objective: a model and its loss as one module, to be compiled and distributed together."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from groundup.data.sampler import IGNORED
from groundup.models.registry import Model

# 32 MB: what is larger goes back to the system when freed, and is slow to get again
LOGITS_AT_ONCE = 2**23


class NextTokenLoss(nn.Module):
    """The mean cross entropy of the next token, in nats, without all logits held at once."""

    def __init__(self, model: Model, precision: str) -> None:
        super().__init__()
        self.model = model
        self.in_bfloat16 = precision == "bfloat16"

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss over all targets that count.

        Args:
            tokens: [batch, time] int64.
            targets: [batch, time] int64; a target of -100 doesn't count.

        Returns:
            A scalar; not a number where no target counts.
        """
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            hidden = self.model.hidden(tokens)
            return linear_cross_entropy(
                hidden.flatten(0, 1), self.model.head.weight, targets.flatten()
            )


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross entropy of the logits `hidden @ weight.T`.

    With a vocabulary larger than the width the logits aren't held whole. On a GPU torch's chunked
    kernel (2.13) does it, on a CPU chunks of our own, which take an eighth of the kernel's time
    (50,257 tokens, width 128, bfloat16).

    Args:
        hidden: [n, width].
        weight: [vocab_size, width].
        targets: [n] int64.
    """
    vocab_size, width = weight.shape
    if vocab_size <= width:
        return F.cross_entropy(F.linear(hidden, weight), targets)
    if hidden.device.type == "cpu" or not hasattr(F, "linear_cross_entropy"):
        return chunked_cross_entropy(hidden, weight, targets)
    # Without it, torch.compile would break the graph at the kernel's own check.
    options = torch.nn.LinearCrossEntropyOptions(allow_retain_graph=torch.compiler.is_compiling())
    return F.linear_cross_entropy(hidden, weight, targets, reduction="mean", options=options)


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Compute the same from the logits of some tokens at a time, and once more going backward."""
    rows = max(1, LOGITS_AT_ONCE // len(weight))

    def loss_of(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")

    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    losses = [checkpoint(loss_of, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(losses).sum() / (targets != IGNORED).sum()
