"""The objective: a model and its loss as one module, compiled in place, then distributed."""

import logging

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from groundup.data.sampler import IGNORED
from groundup.machine.memory import is_out_of_memory
from groundup.models.registry import Model

logger = logging.getLogger(__name__)

# 32 MB: what is larger goes back to the system when freed, and is slow to get again
LOGITS_AT_ONCE = 2**23
LOGITS_ON_A_GPU = 2**26  # 256 MB


class NextTokenLoss(nn.Module):
    """The mean cross entropy of the next token, in nats, computed without large logits whole."""

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
            A scalar, NaN where no target counts.
        """
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            hidden = self.model.hidden(tokens)
            return linear_cross_entropy(
                hidden.flatten(0, 1), self.model.head.weight, targets.flatten()
            )


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross entropy of the logits `hidden @ weight.T`.

    With a vocabulary larger than the width the logits are never held whole. On a GPU torch's
    chunked kernel (2.13) computes the loss, on a CPU `chunked_cross_entropy`, which takes an eighth
    of the kernel's time there (50,257 tokens, width 128, bfloat16).

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
    return fused_cross_entropy(hidden, weight, targets)


def fused_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Compute the loss of `linear_cross_entropy` by torch's chunked kernel, which a GPU takes.

    Autocast has no rule for the kernel, whose products would be those of float32 weights, so the
    inputs are cast here. Of its policies only `compact` multiplies bfloat16 in all of its products
    on a GPU; it rounds the weight's gradient after each chunk, so the chunks are few. It would add
    up the mean loss in bfloat16, too: each token's loss is taken, and their mean in float32.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    options = torch.nn.LinearCrossEntropyOptions(
        # Without it, torch.compile would break the graph at the kernel's own check.
        allow_retain_graph=torch.compiler.is_compiling(),
        acc_policy="compact",
        chunking_method=None,
        batch_chunk_size=max(1, LOGITS_ON_A_GPU // len(weight)),
        acc_dtype=torch.promote_types(hidden.dtype, torch.float32),
    )
    with torch.autocast(kind, enabled=False):
        losses = F.linear_cross_entropy(hidden, weight, targets, reduction="none", options=options)
    return losses.to(options.acc_dtype).sum() / (targets != IGNORED).sum()


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Compute the loss of `linear_cross_entropy` from the logits of some tokens at a time.

    The backward pass computes these logits again.
    """
    rows = max(1, LOGITS_AT_ONCE // len(weight))

    def loss_of(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")

    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    losses = [checkpoint(loss_of, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(losses).sum() / (targets != IGNORED).sum()


def compile_in_place(objective: NextTokenLoss, tokens: Tensor) -> bool:
    """Compile the blocks of the model, and try the objective once, forward and backward.

    No parameter changes its name. The blocks share one program, so the compiler takes as long for
    12 layers as for one. Weights, the order of the data and dropout are left alone.

    Args:
        objective: The objective, before it is distributed.
        tokens: Sequences of the shape that training has, [rows, block_size + 1] int64.

    Returns:
        Whether compiling works. If not, nothing is compiled, and a message says why.
    """
    parts = compiled_parts(objective.model) or [objective]
    logger.info("compiling, which takes some seconds; --train.compile off goes without")
    for part in parts:
        part.compile(dynamic=False)
    try:
        objective(tokens[:, :-1], tokens[:, 1:]).backward()
    except Exception as error:  # the compiler's failures have no common class
        if is_out_of_memory(error):
            raise
        torch._dynamo.reset()
        for part in parts:
            part._compiled_call_impl = None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        logger.info(
            f"torch.compile doesn't work here ({reason[:150]}): going on without it, more slowly"
        )
        return False
    finally:
        objective.zero_grad(set_to_none=True)
    return True


def compiled_parts(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks, whatever the model calls them, and an RMSNorm after them.

    For a bigram, which has no blocks, the list is empty.
    """
    name, blocks = next(
        ((name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)),
        ("", nn.ModuleList()),
    )
    norms = [
        part
        for at, part in model.named_modules()
        if isinstance(part, nn.RMSNorm) and not at.startswith(f"{name}.")
    ]
    return [*blocks, *norms]
