"""The whole way of one token through a model, whatever its architecture."""

import torch

from groundup.generation.settings import SamplingSettings
from groundup.inspection import gpt2_stages, modern_stages
from groundup.inspection.shared_stages import first_stage, last_stages
from groundup.inspection.stages import Place, Stage, code
from groundup.models import bigram
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern

TABLE = code(bigram.Bigram.forward, "logits = F.embedding")


@torch.inference_mode()
def stages_of(
    place: Place, token_bytes: bytes, settings: SamplingSettings, written: int = 0
) -> list[Stage]:
    """Return the stages of one token's way through a model, in the order of computation.

    Args:
        place: The token, and the layer and head that are looked at.
        token_bytes: The bytes that the token stands for.
        settings: How the next token is drawn.
        written: The number of tokens that were written before it.
    """
    model = place.inspection.model
    way, head_code = list[Stage](), TABLE
    if isinstance(model, GPT2):
        way, head_code = gpt2_stages.gpt2_stages(place), gpt2_stages.LOGITS
    elif isinstance(model, Modern):
        way, head_code = modern_stages.modern_stages(place), modern_stages.LOGITS
    last = last_stages(place, head_code, settings, written)
    return [first_stage(place, token_bytes), *way, *last]
