"""torch.compile in place, tried before it is trusted."""

import torch

from groundup.training.memory import is_out_of_memory
from groundup.training.trainer import Trainer


def compile_in_place(trainer: Trainer) -> bool:
    """Compile the objective and try it once, forward and backward; whether it works. If not, one line says why.

    In place, so that no parameter changes its name. The weights, the order of the data and dropout are left alone.
    """
    tokens = trainer.sampler.batch(0, slice(trainer.rows_per_pass)).to(trainer.machine.device)
    trainer.journal.say("compiling, which takes some seconds; --train.compile off goes without")
    trainer.objective.compile(dynamic=False)
    try:
        trainer.objective(tokens[:, :-1], tokens[:, 1:]).backward()
    except Exception as error:  # the compiler's failures have no common class
        if is_out_of_memory(error):
            raise
        torch._dynamo.reset()
        trainer.objective._compiled_call_impl = None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        trainer.journal.say(f"torch.compile doesn't work here ({reason[:150]}): going on without it, more slowly")
        return False
    finally:
        trainer.objective.zero_grad(set_to_none=True)
    return True
