"""What a layout is, and how the numbers of a `config.json` are read."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from groundup.errors import CheckpointError
from groundup.models.config import ModelConfig
from groundup.models.registry import Model

Weights = dict[str, Tensor]
Settings = dict[str, Any]  # of config.json


class Layout(Protocol):
    """A family of Hugging Face models, as a module of this room."""

    @property
    def ARCHITECTURES(self) -> tuple[str, ...]:  # noqa: N802
        """Our names of the models that are written in it; the first reads folders that don't name
        one.
        """
        ...

    @property
    def EMBEDDING(self) -> str:  # noqa: N802
        """The family's name of the table of tokens, which a tied head shares."""
        ...

    def spelled(self, name: str) -> str | None:
        """The name in `to_hugging_face` of a tensor in a file; None for one that computes
        nothing.
        """
        ...

    def to_hugging_face(self, model: Model) -> Weights:
        """The model's weights under the family's names and in its orientation; a tied head is left
        out.

        Where a tensor is one of the model's own, turned or not, it is a view: what is written there
        is in the model.
        """
        ...

    def from_hugging_face(self, model: Model, tensors: Weights, path: Path) -> Weights:
        """What `to_hugging_face` gave, as the model's own state dict. Raises CheckpointError."""
        ...

    def settings_of(self, model: Model) -> Settings:
        """`config.json` as transformers reads it without a warning."""
        ...

    def config_of(self, settings: Settings, architecture: str, path: Path) -> ModelConfig:
        """The config that `config.json`, at `path`, describes. Raises CheckpointError or
        ConfigError.
        """
        ...


def whole_numbers(settings: Settings, names: dict[str, str], path: Path) -> dict[str, int]:
    """Our field -> its value, from our field -> their key. Raises CheckpointError."""
    found = {}
    for field, key in names.items():
        if type(value := settings.get(key)) is not int:
            raise CheckpointError(f"{path}: {key} must be a whole number, not {value!r}")
        found[field] = value
    return found


def number(value: object, key: str, path: Path) -> float:
    """The value of a key that must be a number. Raises CheckpointError."""
    try:
        if type(value) in (int, float):
            return float(value)  # pyright: ignore[reportArgumentType]
    except OverflowError:
        pass
    raise CheckpointError(f"{path}: {key} must be a number, not {value!r}")


def check_fixed(
    settings: Settings, fixed: dict[str, tuple[Any, ...]], family: str, path: Path
) -> None:
    """What a family could vary and ours doesn't: a value other than those given is another model.
    CheckpointError.
    """
    for key, accepted in fixed.items():
        if (value := settings.get(key, accepted[0])) not in accepted:
            raise CheckpointError(
                f"{path}: {key} = {value!r}, but groundup's {family} computes with {accepted[0]!r}"
            )
