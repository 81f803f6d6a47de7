"""A model as a Hugging Face folder and back: names, transposes, config, tokenizer. Owns `load`."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file

from groundup.config import ModelConfig, parameter_count
from groundup.errors import CheckpointError, ForeignTokenizerError
from groundup.layouts import layout_of
from groundup.layouts.base import Weights
from groundup.layouts.config_file import CONFIG_FILE, read_config, read_settings
from groundup.layouts.weight_files import WEIGHTS_FILE, Stored, fill, match, number_kind, stored_tensors
from groundup.models.catalogue import MODELS, Model, allocated, architecture_of, build_on_paper
from groundup.parallel.machine import choose_device
from groundup.pretrained import find_model
from groundup.tokenizers.base import END_OF_TEXT, TOKENIZER_FILE, Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.loading import load_tokenizer

ModelClass = TypeVar("ModelClass", bound=Model)


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


def load(
    name: str | Path,
    report: Callable[[str], None] = warnings.warn,
    *,
    block_size: int | None = None,
    dropout: float | None = None,
) -> tuple[Model, Tokenizer | None]:
    """A run's best checkpoint, any model folder or a model of the hub: (model in eval mode on the CPU, its tokenizer).

    name: as `groundup.pretrained.find_model` reads it. The tokenizer is None where there is none that groundup reads.
    block_size: a shorter context than the model's. dropout: another probability in training than the folder's.
    A damaged best checkpoint is reported and the newest intact one loaded instead. Raises CheckpointError, and
    CorpusError for what can't be had from the hub.
    """
    folder = find_model(name, report)
    model = load_model(folder, block_size=block_size, dropout=dropout)
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


def load_to_work(name: str, report: Callable[[str], None], device: str) -> tuple[Path, Model, Tokenizer]:
    """What writes or scores texts needs: the folder that a name means, its model on a device, and its tokenizer.

    Raises as `load` does, and where there is no tokenizer.
    """
    folder = find_model(name, report)
    model, tokenizer = load(folder, report)
    if tokenizer is None:
        raise CheckpointError(f"{folder} has no tokenizer that groundup knows: text can't become its tokens")
    model.to(choose_device(device))
    return folder, model, tokenizer


def described(model: Model, folder: Path) -> str:
    """What was loaded, in a line."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    dtype = next(model.parameters()).dtype
    precision = "" if dtype == torch.float32 else f", in {str(dtype).removeprefix('torch.')}"
    return f"{architecture_of(model)}, {parameters:,} parameters{precision}, from {folder}"


def load_as(kind: type[ModelClass], name: str | Path, report: Callable[[str], None] = warnings.warn) -> ModelClass:
    """The model of that name, which must be of that class; without its tokenizer. Raises as `load` does."""
    folder = find_model(name, report)
    architecture, _ = read_config(folder / CONFIG_FILE)
    if MODELS[architecture] is not kind:
        raise CheckpointError(f"{folder} holds a {architecture} model, not a {kind.__name__}: groundup.load reads it")
    model = load_model(folder)
    assert isinstance(model, kind)
    return model


def document_start(folder: Path, tokenizer: Tokenizer) -> int | None:
    """The token that the model's documents began with, by its `config.json`: end-of-text, or None."""
    token = tokenizer.special_tokens.get(END_OF_TEXT)
    return token if token is not None and read_settings(folder / CONFIG_FILE).get("bos_token_id") == token else None


def text_ends(folder: Path) -> frozenset[int]:
    """The tokens after which a text is over, by the model's `config.json`: one, several or none."""
    stated = read_settings(folder / CONFIG_FILE).get("eos_token_id")
    return frozenset(end for end in (stated if isinstance(stated, list) else [stated]) if isinstance(end, int))


def fits(tokenizer: Tokenizer, vocab_size: int) -> bool:
    """Whether a model of that many tokens can be this tokenizer's: BPE vocabularies are often padded to round sizes."""
    padded = not isinstance(tokenizer, CharacterTokenizer) and tokenizer.vocab_size < vocab_size
    return padded or tokenizer.vocab_size == vocab_size


def load_model(folder: Path, *, block_size: int | None = None, dropout: float | None = None) -> Model:
    """The model of a folder in one of Hugging Face's layouts, in eval mode, its context cropped if asked for.

    Nothing is allocated before all files agree, and little besides the weights then. Raises CheckpointError.
    """
    architecture, config = read_config(folder / CONFIG_FILE)
    stored, layout = stored_tensors(folder), layout_of(architecture)
    _check_size(folder, architecture, config, stored)
    model = build_on_paper(architecture, config)
    stored = match(stored, layout.to_hugging_face(model), layout, folder)
    if block_size is not None and block_size > config.block_size:
        raise CheckpointError(
            f"model.block_size = {block_size} is more than the context of {config.block_size} that the model in "
            f"{folder} has. Choose at most {config.block_size}."
        )
    asked = {"block_size": block_size, "dropout": dropout}
    changed = replace(config, **{name: value for name, value in asked.items() if value is not None})
    if changed != config:
        model = build_on_paper(architecture, changed)
    model = allocated(model, number_kind(stored))
    tensors = layout.to_hugging_face(model)  # mostly the model's own: what is read there needs no second place
    fill(tensors, stored, layout)
    model.load_state_dict(layout.from_hugging_face(model, tensors, folder / WEIGHTS_FILE))
    return model.eval()


def _check_size(folder: Path, architecture: str, config: ModelConfig, stored: dict[str, Stored]) -> None:
    """The files must have a byte for each parameter at least, before any is built. Raises CheckpointError."""
    files = {tensor.path for tensor in stored.values()}
    parameters = parameter_count(architecture, config)
    if parameters > sum(file.stat().st_size for file in files):
        what = f"its {len(files)} files of weights have" if len(files) > 1 else f"{WEIGHTS_FILE} has"
        raise CheckpointError(f"{folder / CONFIG_FILE} describes {parameters:,} parameters, more than {what} bytes")
