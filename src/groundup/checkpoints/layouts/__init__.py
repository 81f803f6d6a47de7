"""How models are written in Hugging Face's folders: what a layout is, and a file a family."""

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


class Layout(ABC):
    """How a family of Hugging Face's models names and turns its weights, and writes its config."""

    # our names of the models that are written in it; the first reads folders that name none
    architectures: ClassVar[tuple[str, ...]]
    embedding: ClassVar[str]  # the family's name of the table of tokens, which a tied head shares

    def spelled(self, name: str) -> str | None:
        """Return what `to_hugging_face` calls a tensor of a file; None if it computes nothing."""
        return name

    @abstractmethod
    def to_hugging_face(self, model: Model) -> Weights:
        """Return the weights in the family's names and orientation, without a tied head.

        Where a tensor is one of the model's own, turned or not, it is a view: what is written there
        is in the model.
        """

    @abstractmethod
    def from_hugging_face(self, model: Model, tensors: Weights, path: Path) -> Weights:
        """Return what `to_hugging_face` gave as the model's own state dict.

        Raises:
            CheckpointError: The tensors, which come from `path`, are no longer such a model's.
        """

    @abstractmethod
    def settings_of(self, model: Model) -> Settings:
        """Return the `config.json` of a model, which transformers reads without a warning."""

    @abstractmethod
    def config_of(self, settings: Settings, architecture: str, path: Path) -> ModelConfig:
        """Return the shape that the `config.json` at `path` states.

        Raises:
            CheckpointError: It states something that our model doesn't compute.
            ConfigError: Its values contradict each other.
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
    """Return the values of whole numbers by our names of them.

    Args:
        settings: What a `config.json` states.
        names: Our name of each field, and its key there.
        path: The file, for messages.

    Raises:
        CheckpointError: A key is missing, or its value isn't a whole number.
    """
    found = {}
    for field, key in names.items():
        if type(value := settings.get(key)) is not int:
            raise CheckpointError(f"{path}: {key} must be a whole number, not {value!r}")
        found[field] = value
    return found


def number(value: object, key: str, path: Path) -> float:
    """Return the value of a key of the file at `path`, which must be a number.

    Raises:
        CheckpointError: It isn't one, or is too large for one.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    raise CheckpointError(f"{path}: {key} must be a number, not {value!r}")


def check_fixed(settings: Settings, fixed: Fixed, family: str, path: Path) -> None:
    """Refuse settings that a family could vary and our model doesn't.

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
