"""A model as a Hugging Face folder and back: names, transposes, config, tokenizer. Owns `load`."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from groundup import checkpoint
from groundup.config import ModelConfig, parameter_count
from groundup.errors import CheckpointError, ConfigError, ForeignTokenizerError
from groundup.layouts import LAYOUTS, layout_of
from groundup.layouts.base import Settings, Weights
from groundup.models.catalogue import Model, architecture_of, build
from groundup.tokenizers.base import END_OF_TEXT, TOKENIZER_FILE, Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.loading import load_tokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}


def save(folder: Path, model: Model, tokenizer: Tokenizer | None, document_start: int | None = None) -> None:
    """Write a folder that `load` and transformers read. Raises CheckpointError for a bigram above 4,096 tokens.

    document_start: the token before each document that the model has learned from, if there was one.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in to_hugging_face(model).items()}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    settings = layout_of(architecture_of(model)).settings_of(model) | {"dtype": dtype}
    settings |= {"bos_token_id": document_start, "eos_token_id": document_start}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod((folder / CONFIG_FILE).stat().st_mode)  # safetensors lets nobody else read it
    if tokenizer is not None:
        tokenizer.save(folder)


def to_hugging_face(model: Model) -> Weights:
    """The model's weights as transformers names and turns them; a tied head is left out."""
    return layout_of(architecture_of(model)).to_hugging_face(model)


def load(path: str | Path, report: Callable[[str], None] = warnings.warn) -> tuple[Model, Tokenizer | None]:
    """A run's best checkpoint, or any model folder: (model in eval mode on the CPU, tokenizer or None).

    A damaged best checkpoint is reported and the newest intact one loaded instead. Raises CheckpointError.
    """
    folder = find_model(Path(path), report)
    model = load_model(folder)
    tokenizer = None
    if (folder / TOKENIZER_FILE).is_file():
        try:
            tokenizer = load_tokenizer(folder, report)
        except ForeignTokenizerError as error:
            report(f"{error}. The model is loaded without it.")
    if tokenizer is not None and not fits(tokenizer, model.config.vocab_size):
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE} has {tokenizer.vocab_size} tokens, but {CONFIG_FILE} says vocab_size = "
            f"{model.config.vocab_size}: they belong to different models"
        )
    return model, tokenizer


def document_start(folder: Path, tokenizer: Tokenizer) -> int | None:
    """The token that the model's documents began with, by its `config.json`: end-of-text, or None."""
    token = tokenizer.special_tokens.get(END_OF_TEXT)
    return token if token is not None and _read_settings(folder / CONFIG_FILE).get("bos_token_id") == token else None


def fits(tokenizer: Tokenizer, vocab_size: int) -> bool:
    """Whether a model of that many tokens can be this tokenizer's: BPE vocabularies are often padded to round sizes."""
    padded = not isinstance(tokenizer, CharacterTokenizer) and tokenizer.vocab_size < vocab_size
    return padded or tokenizer.vocab_size == vocab_size


def find_model(path: Path, report: Callable[[str], None]) -> Path:
    """The model folder that `path` means: itself, or a run's best intact checkpoint. Raises CheckpointError."""
    if path.suffix in PICKLES and path.is_file():
        raise _refuse_pickle(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is neither a run nor a model folder. List the runs with: groundup runs")
    checkpoints = path / "checkpoints"
    if not checkpoints.is_dir():
        if (path / checkpoint.MANIFEST).is_file():
            checkpoint.verify(path)
        return path
    best = [(checkpoints / "best").resolve()] if (checkpoints / "best").is_symlink() else []
    folder = checkpoint.newest_valid([*best, *checkpoint.steps(checkpoints)], report)
    if folder is None:
        raise CheckpointError(f"{path} has no intact checkpoint to load. Train on with: groundup train --resume {path}")
    return folder


def load_model(folder: Path) -> Model:
    """The model of a folder in one of Hugging Face's layouts, in eval mode. Raises CheckpointError."""
    architecture, config = _read_config(folder)
    model = build(architecture, config)
    layout = layout_of(architecture)
    weights = _read_weights(folder, {name: tensor.shape for name, tensor in layout.to_hugging_face(model).items()})
    model.to(next(iter(weights.values())).dtype)
    model.load_state_dict(layout.from_hugging_face(model, weights, folder / WEIGHTS_FILE))
    return model.eval()


def _read_config(folder: Path) -> tuple[str, ModelConfig]:
    """The architecture and the shape that `config.json` states. Raises CheckpointError."""
    path = folder / CONFIG_FILE
    settings = _read_settings(path)
    layout = LAYOUTS[settings["model_type"]]
    architecture = settings.get("groundup_model", layout.ARCHITECTURES[0])
    if architecture not in layout.ARCHITECTURES:
        known = ", ".join(layout.ARCHITECTURES)
        raise CheckpointError(
            f"{path}: groundup_model is {architecture!r}; for {settings['model_type']} this version knows {known}"
        )
    try:
        config = layout.config_of(settings, architecture, path)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    parameters, weights = parameter_count(architecture, config), folder / WEIGHTS_FILE
    if weights.is_file() and parameters > weights.stat().st_size:  # a byte each is the least
        raise CheckpointError(f"{path} describes {parameters:,} parameters, more than {WEIGHTS_FILE} has bytes")
    return architecture, config


def _read_settings(path: Path) -> Settings:
    """`config.json` as a dictionary whose model_type we know. Raises CheckpointError."""
    try:
        settings = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {CONFIG_FILE}: it isn't a model folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} isn't valid JSON: {error}") from error
    found = settings.get("model_type") if isinstance(settings, dict) else type(settings).__name__
    if not isinstance(found, str) or found not in LAYOUTS or not isinstance(settings, dict):
        raise CheckpointError(f"{path}: model_type is {found!r}; groundup loads {', '.join(map(repr, LAYOUTS))}")
    return settings


def _read_weights(folder: Path, expected: dict[str, torch.Size]) -> Weights:
    """The tensors of `model.safetensors`, each of its expected name and shape. Raises CheckpointError."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickles = [file for file in folder.iterdir() if file.suffix in PICKLES]
        if pickles:
            raise _refuse_pickle(pickles[0])
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}: it isn't a model folder")
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            for name, shape in expected.items():
                if name not in found:
                    raise CheckpointError(f"{path} lacks the tensor {name} {list(shape)}")
                if found[name] != shape:
                    raise CheckpointError(
                        f"{path}: tensor {name} is {list(found[name])}, but {CONFIG_FILE} makes it {list(shape)}"
                    )
            if surplus := sorted(set(found) - set(expected)):
                raise CheckpointError(f"{path} has a tensor that the model doesn't: {surplus[0]}")
            return {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise CheckpointError(f"{path} isn't a valid safetensors file: {error}") from error


def _refuse_pickle(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is a pickle, which can run any code when it is opened, so groundup never opens one. Convert it where "
        "you trust it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW) writes safetensors"
    )
