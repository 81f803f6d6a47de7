"""The objective: a model and its loss as one module, so that both are compiled and distributed together."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from groundup.data.sampler import IGNORED
from groundup.models.catalogue import Model

CHUNK = 1024  # tokens whose logits are held at once


class NextTokenLoss(nn.Module):
    """The mean cross entropy of the next token, in nats, without holding all logits where the vocabulary is large."""

    def __init__(self, model: Model, precision: str) -> None:
        super().__init__()
        self.model = model
        self.in_bfloat16 = precision == "bfloat16"

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """tokens, targets: [batch, time] int64; a target of -100 doesn't count -> scalar"""
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            hidden = self.model.hidden(tokens)
            return linear_cross_entropy(hidden.flatten(0, 1), self.model.head.weight, targets.flatten())


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of `hidden @ weight.T`. hidden: [n, width], weight: [vocab, width], targets: [n] -> scalar

    With a vocabulary larger than the width, torch's chunked kernel (2.13) keeps the logits from being held whole.
    """
    vocab_size, width = weight.shape
    if vocab_size <= width:
        return F.cross_entropy(F.linear(hidden, weight), targets)
    if not hasattr(F, "linear_cross_entropy"):
        return chunked_cross_entropy(hidden, weight, targets)
    # Without it, torch.compile would break the graph at the kernel's own check.
    options = torch.nn.LinearCrossEntropyOptions(allow_retain_graph=torch.compiler.is_compiling())
    return F.linear_cross_entropy(hidden, weight, targets, reduction="mean", options=options)


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The same where torch has no kernel for it: logits of 1,024 tokens at a time, computed again going backward."""

    def loss_of(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")

    chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    losses = [checkpoint(loss_of, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(losses).sum() / (targets != IGNORED).sum()
