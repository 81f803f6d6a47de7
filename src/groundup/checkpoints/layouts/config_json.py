"""Reads and writes the `config.json` of a model folder: layout, architecture and shape."""

from pathlib import Path

from groundup.checkpoints.layouts import Layout, Settings, read_stated
from groundup.checkpoints.layouts.gpt2 import GPT2Layout
from groundup.checkpoints.layouts.qwen3 import Qwen3Layout
from groundup.errors import CheckpointError, ConfigError
from groundup.files import write_json
from groundup.models.config import ModelConfig
from groundup.models.registry import Model, architecture_of

CONFIG_FILE = "config.json"
# by the model_type of config.json
LAYOUTS: dict[str, Layout] = {"gpt2": GPT2Layout(), "qwen3": Qwen3Layout()}


def layout_of(architecture: str) -> Layout:
    """Return the layout that writes models of an architecture."""
    return next(layout for layout in LAYOUTS.values() if architecture in layout.architectures)


def write_config(path: Path, model: Model, ids: Settings) -> None:
    """Write a `config.json` that transformers reads without a warning.

    Args:
        path: Where to write.
        model: The model that it describes.
        ids: The ids of the tokens that begin, end and pad a text, by the names that they have in a
            `config.json`.
    """
    settings = layout_of(architecture_of(model)).settings_of(model)
    settings |= {"dtype": str(model.head.weight.dtype).removeprefix("torch.")}
    write_json(path, settings | {"bos_token_id": None, "eos_token_id": None} | ids)


def read_config(path: Path) -> tuple[str, ModelConfig]:
    """Return the architecture and the shape that a `config.json` states.

    Raises:
        CheckpointError: There is no such file, or our models can't compute what it states.
    """
    return parse_config(read_settings(path), path)


def parse_config(settings: Settings, path: Path) -> tuple[str, ModelConfig]:
    """Return the architecture and the shape that settings state.

    Args:
        settings: What `read_settings` read.
        path: The file that they come from, for messages.

    Raises:
        CheckpointError: Our models can't compute what the settings state.
    """
    layout = LAYOUTS[settings["model_type"]]
    architecture = settings.get("groundup_model", layout.architectures[0])
    if architecture not in layout.architectures:
        family, known = settings["model_type"], ", ".join(layout.architectures)
        raise CheckpointError(
            f"{path}: groundup_model is {architecture!r}; for {family} this version knows {known}"
        )
    try:
        return architecture, layout.config_of(settings, architecture, path)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_settings(path: Path) -> Settings:
    """Read a `config.json`, whose model_type must be one that groundup loads.

    Raises:
        CheckpointError: There is no such file, it is damaged, or its model_type is another one.
    """
    settings = read_stated(path)
    found = settings.get("model_type") if isinstance(settings, dict) else type(settings).__name__
    if not isinstance(found, str) or found not in LAYOUTS or not isinstance(settings, dict):
        raise CheckpointError(
            f"{path}: model_type is {found!r}; groundup loads {', '.join(map(repr, LAYOUTS))}"
        )
    return settings
