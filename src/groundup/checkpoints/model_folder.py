"""A model as a Hugging Face folder and back: names, transposes, config, tokenizer. Owns `load`."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file

from groundup.checkpoints.adapter_folder import (
    MERGED_CONFIG_FILE,
    config_file,
    find_base,
    is_adapter,
    read_adapter,
)
from groundup.checkpoints.find import find_model
from groundup.checkpoints.layouts import layout_of
from groundup.checkpoints.layouts.config_json import (
    CONFIG_FILE,
    read_config,
    read_settings,
    write_config,
)
from groundup.checkpoints.layouts.layout import Weights
from groundup.checkpoints.layouts.weight_files import (
    WEIGHTS_FILE,
    Stored,
    fill,
    match,
    number_kind,
    stored_tensors,
)
from groundup.errors import CheckpointError, ForeignTokenizerError
from groundup.machine.device import choose_device
from groundup.models.config import ModelConfig, parameter_count
from groundup.models.lora import merge
from groundup.models.registry import (
    MODELS,
    Model,
    allocated,
    architecture_of,
    build_on_meta,
    count_parameters,
)
from groundup.tokenizers.base import END_OF_TEXT, TOKENIZER_FILE, Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer

ModelClass = TypeVar("ModelClass", bound=Model)


def save(
    folder: Path, model: Model, tokenizer: Tokenizer | None, document_start: int | None = None
) -> None:
    """Write a folder that `load` and transformers read. Raises CheckpointError for a bigram above
    4,096 tokens.

    document_start: the token before each document that the model has learned from, if there was
    one.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in to_hugging_face(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder / CONFIG_FILE, model, document_start)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    # safetensors lets nobody else read it
    (folder / WEIGHTS_FILE).chmod((folder / CONFIG_FILE).stat().st_mode)
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
    """A run's best checkpoint, any model folder or a model of the hub: (model in eval mode on the
    CPU, its tokenizer).

    name: as `find_model` reads it. The tokenizer is None where there is none that groundup reads.
    block_size: a shorter context than the model's. dropout: another probability in training than
    the folder's. A damaged best checkpoint is reported and the newest intact one loaded instead.
    Raises CheckpointError, and CorpusError for what can't be had from the hub.
    """
    return load_found(find_model(name, report), report, block_size=block_size, dropout=dropout)


def load_found(
    folder: Path,
    report: Callable[[str], None],
    *,
    block_size: int | None = None,
    dropout: float | None = None,
) -> tuple[Model, Tokenizer | None]:
    """What `load` gives, of a folder that `find_model` has found: a checkpoint isn't verified
    again.
    """
    model = load_model(folder, report, block_size=block_size, dropout=dropout)
    return model, tokenizer_of(folder, model, report)


def tokenizer_of(folder: Path, model: Model, report: Callable[[str], None]) -> Tokenizer | None:
    """The tokenizer of a model's folder, or of its base's; None where there is none that groundup
    reads.

    Raises CheckpointError for one that belongs to another model.
    """
    if not (folder / TOKENIZER_FILE).is_file() and is_adapter(folder):
        folder = find_base(folder, report)
    tokenizer = None
    if (folder / TOKENIZER_FILE).is_file():
        try:
            tokenizer = load_tokenizer(folder, report)
        except ForeignTokenizerError as error:
            report(f"{error}. The model is loaded without it.")
    if tokenizer is not None and not fits(tokenizer, model.config.vocab_size):
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE} has {tokenizer.vocab_size} tokens, but {CONFIG_FILE} says "
            f"vocab_size = {model.config.vocab_size}: they belong to different models"
        )
    return tokenizer


def load_to_work(
    name: str, report: Callable[[str], None], device: str
) -> tuple[Path, Model, Tokenizer]:
    """What writes or scores texts needs: the folder that a name means, its model on a device, and
    its tokenizer.

    Raises as `load` does, and where there is no tokenizer.
    """
    folder = find_model(name, report)
    model, tokenizer = load_found(folder, report)
    if tokenizer is None:
        raise CheckpointError(
            f"{folder} has no tokenizer that groundup knows: text can't become its tokens"
        )
    model.to(choose_device(device))
    return folder, model, tokenizer


def described(model: Model, folder: Path) -> str:
    """What was loaded, in a line."""
    parameters = count_parameters(model)
    dtype = next(model.parameters()).dtype
    precision = "" if dtype == torch.float32 else f", in {str(dtype).removeprefix('torch.')}"
    return f"{architecture_of(model)}, {parameters:,} parameters{precision}, from {folder}"


def load_as(
    kind: type[ModelClass], name: str | Path, report: Callable[[str], None] = warnings.warn
) -> ModelClass:
    """The model of that name, which must be of that class; without its tokenizer. Raises as `load`
    does.
    """
    folder = find_model(name, report)
    architecture, _ = read_config(config_file(folder, report))
    if MODELS[architecture] is not kind:
        raise CheckpointError(
            f"{folder} holds a {architecture} model, not a {kind.__name__}: groundup.load reads it"
        )
    model = load_model(folder, report)
    assert isinstance(model, kind)
    return model


def document_start(folder: Path, tokenizer: Tokenizer) -> int | None:
    """The token that the model's documents began with, by its `config.json`: end-of-text,
    or None.
    """
    token = tokenizer.special_tokens.get(END_OF_TEXT)
    config = config_file(folder, warnings.warn)
    return (
        token if token is not None and read_settings(config).get("bos_token_id") == token else None
    )


def text_ends(folder: Path) -> frozenset[int]:
    """The tokens after which a text is over, by the model's `config.json`: one, several or none."""
    stated = read_settings(config_file(folder, warnings.warn)).get("eos_token_id")
    return frozenset(
        end for end in (stated if isinstance(stated, list) else [stated]) if isinstance(end, int)
    )


def fits(tokenizer: Tokenizer, vocab_size: int) -> bool:
    """Whether a model of that many tokens can be this tokenizer's: BPE vocabularies are often
    padded to round sizes.
    """
    padded = not isinstance(tokenizer, CharacterTokenizer) and tokenizer.vocab_size < vocab_size
    return padded or tokenizer.vocab_size == vocab_size


def load_model(
    folder: Path,
    report: Callable[[str], None] = warnings.warn,
    *,
    block_size: int | None = None,
    dropout: float | None = None,
) -> Model:
    """The model of a folder in one of Hugging Face's layouts, in eval mode, its context cropped if
    asked for.

    A folder of adapters gives the model that they are for, with the adapters merged. Nothing is
    allocated before all files agree, and little besides the weights then. Raises CheckpointError.
    """
    if not is_adapter(folder):
        return _load_whole(folder, block_size, dropout)
    model = load_base(folder, report, block_size=block_size, dropout=dropout)
    adapter, scale = read_adapter(folder, model)
    kinds = {model.head.weight.dtype, *(tensor.dtype for tensor in adapter.values())}
    model.to(reduce(torch.promote_types, kinds))  # that holds both exactly, as while it was trained
    merge(model, adapter, scale)
    return model


def load_base(
    folder: Path,
    report: Callable[[str], None],
    *,
    block_size: int | None = None,
    dropout: float | None = None,
) -> Model:
    """The model that a folder's adapters are for, without them, with the context and dropout that
    the folder states.

    Raises as `load_model` does.
    """
    base = find_base(folder, report)
    if (folder / MERGED_CONFIG_FILE).is_file():
        architecture, config = read_config(folder / MERGED_CONFIG_FILE)
        config = _changed(config, folder, block_size, dropout)
        block_size, dropout = config.block_size, config.dropout
        its_architecture, its_config = read_config(base / CONFIG_FILE)
        if (architecture, config) != (
            its_architecture,
            replace(its_config, block_size=block_size, dropout=dropout),
        ):
            raise CheckpointError(
                f"{base / CONFIG_FILE} isn't what the adapter in {folder} was trained on: "
                f"{MERGED_CONFIG_FILE} there describes another model. Restore it"
            )
    return _load_whole(base, block_size, dropout)


def _load_whole(folder: Path, block_size: int | None, dropout: float | None) -> Model:
    """The model whose weights are in the folder."""
    architecture, config = read_config(folder / CONFIG_FILE)
    stored, layout = stored_tensors(folder), layout_of(architecture)
    _check_size(folder, architecture, config, stored)
    model = build_on_meta(architecture, config)
    stored = match(stored, layout.to_hugging_face(model), layout, folder)
    if (changed := _changed(config, folder, block_size, dropout)) != config:
        model = build_on_meta(architecture, changed)
    model = allocated(model, number_kind(stored))
    # mostly the model's own: what is read there needs no second place
    tensors = layout.to_hugging_face(model)
    fill(tensors, stored, layout)
    model.load_state_dict(layout.from_hugging_face(model, tensors, folder / WEIGHTS_FILE))
    return model.eval()


def _changed(
    config: ModelConfig, folder: Path, block_size: int | None, dropout: float | None
) -> ModelConfig:
    """The config with a shorter context and another dropout, where they are given. Raises
    CheckpointError.
    """
    if block_size is not None and block_size > config.block_size:
        raise CheckpointError(
            f"model.block_size = {block_size} is more than the context of {config.block_size} "
            f"that the model in {folder} has. Choose at most {config.block_size}."
        )
    asked = {"block_size": block_size, "dropout": dropout}
    return replace(config, **{name: value for name, value in asked.items() if value is not None})


def _check_size(
    folder: Path, architecture: str, config: ModelConfig, stored: dict[str, Stored]
) -> None:
    """The files must have a byte for each parameter at least, before any is built. Raises
    CheckpointError.
    """
    files = {tensor.path for tensor in stored.values()}
    parameters = parameter_count(architecture, config)
    if parameters > sum(file.stat().st_size for file in files):
        what = (
            f"its {len(files)} files of weights have" if len(files) > 1 else f"{WEIGHTS_FILE} has"
        )
        raise CheckpointError(
            f"{folder / CONFIG_FILE} describes {parameters:,} parameters, more than {what} bytes"
        )
