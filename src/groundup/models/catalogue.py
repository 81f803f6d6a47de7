"""The models there are, by the names under which recipes and folders know them."""

from groundup.config import ModelConfig
from groundup.models.bigram import Bigram
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT

Model = Bigram | GPT2 | Modern | ReadableGPT
MODELS: dict[str, type[Model]] = {"bigram": Bigram, "readable": ReadableGPT, "gpt2": GPT2, "modern": Modern}


def build(architecture: str, config: ModelConfig) -> Model:
    """A new model of that name, from a config of its class."""
    return MODELS[architecture](config)  # pyright: ignore[reportArgumentType]


def architecture_of(model: Model) -> str:
    """The name under which the model's class is saved."""
    return next(name for name, model_class in MODELS.items() if type(model) is model_class)
