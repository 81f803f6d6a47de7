"""torch.compile in place, tried before it is trusted."""

import torch
from torch import nn

from groundup.training.failures import is_out_of_memory
from groundup.training.trainer import Trainer


def compile_in_place(trainer: Trainer) -> bool:
    """Compile the model's parts and try them once, forward and backward; whether it works. If not,
    one line says why.

    In place, so that no parameter changes its name; block by block, because they share one program:
    the compiler then takes as long for 12 layers as for one. The weights, the order of the data and
    dropout are left alone.
    """
    parts = parts_of(trainer.model) or [trainer.objective]
    tokens, _ = trainer.batches.take(0, 0)
    trainer.journal.say("compiling, which takes some seconds; --train.compile off goes without")
    for part in parts:
        part.compile(dynamic=False)
    try:
        trainer.objective(tokens[:, :-1], tokens[:, 1:]).backward()
    except Exception as error:  # the compiler's failures have no common class
        if is_out_of_memory(error):
            raise
        torch._dynamo.reset()
        for part in parts:
            part._compiled_call_impl = None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        trainer.journal.say(
            f"torch.compile doesn't work here ({reason[:150]}): going on without it, more slowly"
        )
        return False
    finally:
        trainer.objective.zero_grad(set_to_none=True)
    return True


def parts_of(model: nn.Module) -> list[nn.Module]:
    """The model's transformer blocks, whatever it calls them, and an RMSNorm after them; a bigram
    has none.
    """
    name, blocks = next(
        ((name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)),
        ("", []),
    )
    norms = [
        part
        for at, part in model.named_modules()
        if isinstance(part, nn.RMSNorm) and not at.startswith(f"{name}.")
    ]
    return [*blocks, *norms]
