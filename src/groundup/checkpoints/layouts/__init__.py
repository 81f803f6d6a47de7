"""The layouts of Hugging Face's model folders: their base class, and a module for each layout."""

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from groundup.errors import CheckpointError
from groundup.files import read_json
from groundup.models.config import ModelConfig
from groundup.models.registry import Model

Weights = dict[str, Tensor]
Settings = dict[str, Any]  # of config.json
Fixed = dict[str, tuple[Any, ...]]  # the accepted values of each key, first the one it has left out

# no logits depend on these, but some readers ask for them
IN_TRAINING: Settings = {"initializer_range": 0.02, "use_cache": True}


class Layout(ABC):
    """How an architecture of transformers names and orients weights, and writes its config."""

    # our names of the models that are written in it; the first reads folders that name none
    architectures: ClassVar[tuple[str, ...]]
    embedding: ClassVar[str]  # the family's name of the table of tokens, which a tied head shares

    def spelled(self, name: str) -> str | None:
        """Return `to_hugging_face`'s name of a tensor in a file, or None for an unused tensor."""
        return name

    @abstractmethod
    def to_hugging_face(self, model: Model) -> Weights:
        """Return the weights by the architecture's names and orientation, without a tied head.

        A tensor of the model, transposed or not, is returned as a view, so that writing to the view
        changes the model.
        """

    @abstractmethod
    def from_hugging_face(self, model: Model, tensors: Weights, path: Path) -> Weights:
        """Turn what `to_hugging_face` returned into the model's own state dict again.

        Raises:
            CheckpointError: The tensors, read from `path`, can't be those of such a model.
        """

    @abstractmethod
    def settings_of(self, model: Model) -> Settings:
        """Return the `config.json` of a model, which transformers reads without a warning."""

    @abstractmethod
    def config_of(self, settings: Settings, architecture: str, path: Path) -> ModelConfig:
        """Return the shape that the `config.json` at `path` states.

        Raises:
            CheckpointError: The config states something that our model doesn't compute.
            ConfigError: The config's values contradict each other.
        """


def read_stated(path: Path) -> Any:
    """Return what a JSON file of a model folder states.

    Raises:
        CheckpointError: There is no such file, or it isn't JSON.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}: it isn't a model folder"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} isn't valid JSON: {error}") from error


def whole_numbers(settings: Settings, names: dict[str, str], path: Path) -> dict[str, int]:
    """Return whole numbers of a `config.json` by our names of the fields.

    Args:
        settings: What a `config.json` states.
        names: Our name of each field, and its key in the settings.
        path: The file, for messages.

    Raises:
        CheckpointError: A key is missing, or its value isn't a whole number from 1.
    """
    found = {}
    for field, key in names.items():
        if type(value := settings.get(key)) is not int or value < 1:
            raise CheckpointError(f"{path}: {key} must be a whole number from 1, not {value!r}")
        found[field] = value
    return found


def number(value: object, key: str, path: Path) -> float:
    """Return the value of a key of the file at `path`, which must be a number.

    Raises:
        CheckpointError: The value isn't a number, or is too large for a float.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    raise CheckpointError(f"{path}: {key} must be a number, not {value!r}")


def check_fixed(settings: Settings, fixed: Fixed, family: str, path: Path) -> None:
    """Check that settings which our model can't vary have the values that it computes with.

    Args:
        settings: What a `config.json` states.
        fixed: The accepted values of each key; the first holds where the key is left out.
        family: The name of our model, for the message.
        path: The file, for the message.

    Raises:
        CheckpointError: A value isn't among the accepted ones.
    """
    for key, accepted in fixed.items():
        if (value := settings.get(key, accepted[0])) not in accepted:
            raise CheckpointError(
                f"{path}: {key} = {value!r}, but groundup's {family} computes with {accepted[0]!r}"
            )
