"""torch.compile in place, tried once before it is trusted."""

import logging

import torch
from torch import Tensor, nn

from groundup.machine.memory import is_out_of_memory
from groundup.training.objective import NextTokenLoss

logger = logging.getLogger(__name__)


def compile_in_place(objective: NextTokenLoss, tokens: Tensor) -> bool:
    """Compile the blocks of the model, and try the objective once, forward and backward.

    No parameter changes its name. The blocks share one program, so the compiler takes as long for
    12 layers as for one. Weights, the order of the data and dropout are left alone.

    Args:
        objective: The objective, before it is distributed.
        tokens: Sequences of the shape that training has, [rows, block_size + 1] int64.

    Returns:
        Whether it works. If it doesn't, nothing is compiled, and a message says why.
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
    """The transformer blocks, whatever the model calls them, and an RMSNorm after them.

    A bigram has none.
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
