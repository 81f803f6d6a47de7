"""Loads a model by its name, and writes models as folders that transformers reads as well."""

import logging
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from groundup.checkpoints import adapter_folder
from groundup.checkpoints.adapter_folder import Base, config_file, find_base, is_adapter
from groundup.checkpoints.conventions import Conventions, read_conventions
from groundup.checkpoints.find import find_model
from groundup.checkpoints.layouts import Weights, config_json, weight_files
from groundup.checkpoints.layouts.config_json import CONFIG_FILE, layout_of, read_config
from groundup.checkpoints.layouts.peft import ADAPTER_FILE
from groundup.checkpoints.layouts.weight_files import WEIGHTS_FILE
from groundup.errors import CheckpointError, ForeignTokenizerError
from groundup.hub.cache import repository_of
from groundup.machine.choice import choose_device
from groundup.models import registry
from groundup.models.config import ModelConfig, parameter_count
from groundup.models.lora import Adapter, merge
from groundup.models.modern import Modern
from groundup.models.registry import MODELS, Model, architecture_of
from groundup.runs.folder import RunFolder, run_of
from groundup.tokenizers.base import TOKENIZER_FILE, Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import OLDER_FILES, load_tokenizer

ModelClass = TypeVar("ModelClass", bound=Model)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model that was loaded from a folder, with its tokenizer and all that the folder states.

    Args:
        model: The model in eval mode, in the precision of its files.
        tokenizer: Its tokenizer, or None where there is none that groundup reads.
        folder: The model folder that was loaded.
        conventions: What the files say of using the model.
        base: For a folder of adapters, the recorded model that they are for.
        adapter: The adapters that `load_model` was asked not to merge into the model, by name.
    """

    model: Model
    tokenizer: Tokenizer | None
    folder: Path
    conventions: Conventions = field(default_factory=Conventions)
    base: Base | None = None
    adapter: Adapter = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return architecture_of(self.model)

    @property
    def parameters(self) -> int:
        return registry.count_parameters(self.model)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def document_start(self) -> int | None:
        """The token before each document that the model has learned from, or None."""
        if self.tokenizer is None:
            return None
        token = self.tokenizer.end_of_text
        begins = token is not None and self.conventions.ids.get("bos_token_id") == token
        return token if begins else None

    @property
    def text_ends(self) -> frozenset[int]:
        """The tokens after which a text of the model is over: one, several or none."""
        return frozenset(self.conventions.ends)

    @property
    def run(self) -> RunFolder | None:
        """The run that the folder is a checkpoint of, or None for any other folder."""
        return run_of(self.folder)

    @property
    def repository(self) -> str | None:
        """The hub's repository, OWNER/NAME, that the folder came from; None for other folders."""
        return repository_of(self.folder)

    @property
    def title(self) -> str:
        """What people call the model: the name of its run, its repository or its folder."""
        if run := self.run:
            return run.name
        return self.repository.partition("/")[2] if self.repository else self.folder.name

    @property
    def description(self) -> str:
        """One line for the user about what was loaded."""
        kind = str(self.dtype).removeprefix("torch.")
        precision = "" if kind == "float32" else f", in {kind}"
        return f"{self.architecture}, {self.parameters:,} parameters{precision}, from {self.folder}"

    def require_tokenizer(self) -> Tokenizer:
        """Return the tokenizer, for work that reads or writes text.

        Raises:
            CheckpointError: The model has no tokenizer that groundup reads.
        """
        if self.tokenizer is None:
            raise CheckpointError(
                f"{self.folder} has no tokenizer that groundup knows: text can't become its tokens"
            )
        return self.tokenizer

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device."""
        self.model.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write the whole model, merged adapters included, into a new folder for transformers.

        What the folder that was loaded says of using the model stays: in chat models, other tokens
        than end-of-text end a text.
        """
        save(folder, self.model, self.tokenizer, conventions=self.conventions)


def save(
    folder: Path,
    model: Model,
    tokenizer: Tokenizer | None,
    document_start: int | None = None,
    conventions: Conventions | None = None,
) -> None:
    """Write a model and its tokenizer to a folder that `load` and transformers can read.

    Args:
        folder: The folder to write to, which is made if it isn't there.
        model: The model to write.
        tokenizer: Its tokenizer, or None to write none.
        document_start: The token before each document that the model has learned from, if any.
        conventions: What the model that this one came from said of using it, if there was one.

    Raises:
        CheckpointError: The model is a bigram of more than 4,096 tokens.
    """
    conventions = (conventions or Conventions()).after_documents(document_start)
    weights = to_hugging_face(model)
    folder.mkdir(parents=True, exist_ok=True)
    config_json.write_config(folder / CONFIG_FILE, model, conventions.ids)
    weight_files.write(folder / WEIGHTS_FILE, weights, folder / CONFIG_FILE)
    conventions.write(folder, tokenizer, model.block_size)


def to_hugging_face(model: Model) -> Weights:
    """Return the weights by transformers' names and in its orientation, without a tied head."""
    return layout_of(architecture_of(model)).to_hugging_face(model)


def load(
    name: str | Path, *, block_size: int | None = None, dropout: float | None = None
) -> tuple[Model, Tokenizer | None]:
    """Load a model and its tokenizer by name.

    Args:
        name: A run in `runs/` (its best intact checkpoint), the path of a run or of a model
            folder, or a model of the hub: `gpt2`, OWNER/NAME, each with @REVISION if wanted.
        block_size: A shorter context than the model's, in tokens.
        dropout: Another probability of dropout in training than the folder's.

    Returns:
        The model in eval mode on the CPU; and its tokenizer, None where there is none that
        groundup reads.

    Raises:
        CheckpointError: There is no such model, or it is damaged or isn't one that groundup loads.
        CorpusError: The hub can't be reached, or doesn't have what was asked for.
    """
    loaded = load_model(name, block_size=block_size, dropout=dropout)
    return loaded.model, loaded.tokenizer


def load_model(
    name: str | Path,
    *,
    block_size: int | None = None,
    dropout: float | None = None,
    device: str = "cpu",
    merge_adapters: bool = True,
) -> LoadedModel:
    """Load a model by name, with all that is known of it.

    A damaged best checkpoint is passed over with a warning, for the newest intact one.

    Args:
        name: A run, a model folder or a model of the hub, as `find_model` reads it.
        block_size: A shorter context than the model's, in tokens.
        dropout: Another probability of dropout in training than the folder's.
        device: Where the model goes: `cpu`, `cuda`, `mps` or `auto`.
        merge_adapters: Whether a folder of adapters becomes one model with them merged. Otherwise
            the model is the base, and the adapters stay apart in `adapter`.

    Raises:
        CheckpointError: There is no such model, or it is damaged or isn't one that groundup loads.
        CorpusError: The hub can't be reached, or doesn't have what was asked for.
        MachineError: The device isn't there.
    """
    loaded = load_folder(find_model(name), merge_adapters, block_size=block_size, dropout=dropout)
    return loaded.to(choose_device(device))


def load_folder(folder: Path, merge_adapters: bool = True, **asked: Any) -> LoadedModel:
    """Load the model of a folder that `find_model` has found, as `load_model` does.

    Args:
        folder: The folder.
        merge_adapters: Whether adapters are merged into their base.
        asked: Another `block_size` or `dropout` than the folder's; None is the folder's.

    Raises:
        CheckpointError: The model is damaged or isn't one that groundup loads.
        CorpusError: The base of adapters can't be had from the hub.
    """
    loaded = _load_weights(folder, merge_adapters, asked)
    return replace(loaded, tokenizer=_load_tokenizer(folder, loaded.model))


def load_shape(name: str | Path) -> Model:
    """Return the model of a name as it would be loaded, on the meta device: without its weights.

    Args:
        name: A run, a model folder or a model of the hub, as `find_model` reads it.

    Raises:
        CheckpointError: There is no such model, or it isn't one that groundup loads.
        CorpusError: The hub can't be reached, or doesn't have what was asked for.
    """
    folder = find_model(name)
    architecture, config = read_config(config_file(folder))
    if is_adapter(folder):
        stored = weight_files.stored_tensors(find_base(folder))
        stored |= weight_files.tensors_in(folder / ADAPTER_FILE)
    else:
        stored = weight_files.stored_tensors(folder)
    precision = reduce(torch.promote_types, (tensor.dtype for tensor in stored.values()))
    return registry.build_on_meta(architecture, config).to(precision)


def load_as(kind: type[ModelClass], name: str | Path) -> ModelClass:
    """Load a model of the class `kind` by name, without its tokenizer.

    Raises:
        CheckpointError: The model is of another class.
        GroundupError: The model can't be loaded, for the reasons that `load_model` gives.
    """
    folder = find_model(name)
    architecture, _ = read_config(config_file(folder))
    if MODELS[architecture] is not kind:
        raise CheckpointError(
            f"{folder} holds a {architecture} model, not a {kind.__name__}: groundup.load reads it"
        )
    model = _load_weights(folder, merge_adapters=True, asked={}).model
    assert isinstance(model, kind)
    return model


def fits(tokenizer: Tokenizer, vocab_size: int) -> bool:
    """Return whether a tokenizer can belong to a model with a vocabulary of `vocab_size` tokens.

    A model's BPE vocabulary is often padded to a round size, a vocabulary of characters never.
    """
    padded = not isinstance(tokenizer, CharacterTokenizer) and tokenizer.vocab_size < vocab_size
    return padded or tokenizer.vocab_size == vocab_size


def _load_tokenizer(folder: Path, model: Model) -> Tokenizer | None:
    """The tokenizer of a model's folder, or of its base's. Raises CheckpointError."""
    # without a tokenizer.json, only GPT-2's words are known
    known = (TOKENIZER_FILE,) if isinstance(model, Modern) else (TOKENIZER_FILE, OLDER_FILES[0])
    if not any((folder / name).is_file() for name in known) and is_adapter(folder):
        folder = find_base(folder)
    file = next((name for name in known if (folder / name).is_file()), None)
    if file is None:
        return None
    vocab_size = model.config.vocab_size
    try:
        tokenizer = load_tokenizer(folder)
    except ForeignTokenizerError as error:
        logger.warning(f"{error}. The model is loaded without it.")
        return None
    if not fits(tokenizer, vocab_size):
        raise CheckpointError(
            f"{folder / file} has {tokenizer.vocab_size} tokens, but {CONFIG_FILE} says "
            f"vocab_size = {vocab_size}: they belong to different models"
        )
    return tokenizer


def _load_weights(folder: Path, merge_adapters: bool, asked: dict[str, Any]) -> LoadedModel:
    """The model of a folder, still without its tokenizer. Raises CheckpointError.

    Nothing is allocated before all files agree, and little besides the weights then.
    """
    path = config_file(folder)
    settings = config_json.read_settings(path)
    architecture, stated = config_json.parse_config(settings, path)
    config = _changed(stated, folder, asked)
    if not is_adapter(folder):
        model = _read_whole(folder, architecture, stated, config)
        return LoadedModel(model, None, folder, read_conventions(settings, folder))
    base = find_base(folder)
    its_architecture, its_config = read_config(base / CONFIG_FILE)
    kept = {"block_size": config.block_size, "dropout": config.dropout}
    if (architecture, config) != (its_architecture, _changed(its_config, base, kept)):
        raise CheckpointError(
            f"{base / CONFIG_FILE} isn't what the adapter in {folder} was trained on: "
            f"{adapter_folder.MERGED_CONFIG_FILE} there describes another model. Restore it"
        )
    model = _read_whole(base, architecture, its_config, config)
    adapter, scale_of = adapter_folder.read_adapter(folder, model)
    if merge_adapters:
        kinds = {model.head.weight.dtype, *(tensor.dtype for tensor in adapter.values())}
        # what holds both exactly, as while they were trained
        model.to(reduce(torch.promote_types, kinds))
        merge(model, adapter, scale_of)
        adapter = {}
    conventions = read_conventions(settings, folder, base)
    recorded = adapter_folder.recorded_base(folder)
    return LoadedModel(model, None, folder, conventions, recorded, adapter)


def _read_whole(folder: Path, kind: str, stated: ModelConfig, config: ModelConfig) -> Model:
    """The model whose weights are in a folder, built by `config`: with a shorter context, say."""
    stored, layout = weight_files.stored_tensors(folder), layout_of(kind)
    files = {tensor.path for tensor in stored.values()}
    if (parameters := parameter_count(kind, stated)) > sum(file.stat().st_size for file in files):
        several = f"its {len(files)} files of weights have"
        what = several if len(files) > 1 else f"{WEIGHTS_FILE} has"
        raise CheckpointError(
            f"{folder / CONFIG_FILE} describes {parameters:,} parameters, more than {what} bytes"
        )
    model = registry.build_on_meta(kind, stated)
    stored = weight_files.match(stored, layout.to_hugging_face(model), layout, folder)
    if config != stated:
        model = registry.build_on_meta(kind, config)
    # what holds all of the tensors exactly, nearly always the precision of each
    precision = reduce(torch.promote_types, (tensor.dtype for tensor in stored.values()))
    model = registry.allocated(model, precision)
    # mostly the model's own memory: what is read there needs no second place
    tensors = layout.to_hugging_face(model)
    weight_files.fill(tensors, stored, layout)
    model.load_state_dict(layout.from_hugging_face(model, tensors, folder / WEIGHTS_FILE))
    return model.eval()


def _changed(config: ModelConfig, folder: Path, asked: dict[str, Any]) -> ModelConfig:
    """The config with another context and dropout where they are given. Raises CheckpointError."""
    asked = {name: value for name, value in asked.items() if value is not None}
    if (block_size := asked.get("block_size", 0)) > config.block_size:
        raise CheckpointError(
            f"model.block_size = {block_size} is more than the context of {config.block_size} "
            f"that the model in {folder} has. Choose at most {config.block_size}."
        )
    return replace(config, **asked)
