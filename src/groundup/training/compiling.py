"""torch.compile in place, tried before it is trusted."""

import torch
from torch import nn

from groundup.training.memory import is_out_of_memory
from groundup.training.trainer import Trainer


def compile_in_place(trainer: Trainer) -> bool:
    """Compile the model's blocks and try them once, forward and backward; whether it works. If not, one line says why.

    In place, so that no parameter changes its name; block by block, because they share one program: the compiler then
    takes as long for 12 layers as for one. The weights, the order of the data and dropout are left alone.
    """
    blocks = blocks_of(trainer.model) or [trainer.objective]
    tokens = trainer.batches.take(0, 0).tokens
    trainer.journal.say("compiling, which takes some seconds; --train.compile off goes without")
    for block in blocks:
        block.compile(dynamic=False)
    try:
        trainer.objective(tokens[:, :-1], tokens[:, 1:]).backward()
    except Exception as error:  # the compiler's failures have no common class
        if is_out_of_memory(error):
            raise
        torch._dynamo.reset()
        for block in blocks:
            block._compiled_call_impl = None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        trainer.journal.say(f"torch.compile doesn't work here ({reason[:150]}): going on without it, more slowly")
        return False
    finally:
        trainer.objective.zero_grad(set_to_none=True)
    return True


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The model's transformer blocks, whatever it calls them; a bigram has none."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return list(next(lists, []))
