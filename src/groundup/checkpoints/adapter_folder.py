"""Writes adapters for `peft`, reads LoRA that `peft` wrote, and finds the base model of adapters.

A checkpoint of a LoRA run has no `config.json`, because with one transformers would take the folder
for a whole model. The config of the merged model is in `merged_config.json`, and the hashes of the
base model's weights are in `base.json`.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from groundup.checkpoints.conventions import Conventions
from groundup.checkpoints.find import find_model, on_hub
from groundup.checkpoints.layouts import peft, weight_files
from groundup.checkpoints.layouts.config_json import CONFIG_FILE, layout_of, write_config
from groundup.checkpoints.layouts.peft import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    ADAPTER_PICKLE,
    AdapterSettings,
)
from groundup.checkpoints.layouts.weight_files import Tensors
from groundup.errors import CheckpointError
from groundup.files import HERE, file_digest, read_json, write_json
from groundup.hub.api import COMMIT
from groundup.models.gpt2 import GPT2
from groundup.models.lora import Adapter, adaptable_layers, adapter_of
from groundup.models.modern import Modern
from groundup.models.registry import Model, architecture_of
from groundup.runs.folder import run_of, run_or_path
from groundup.tokenizers.base import Tokenizer

BASE_FILE = "base.json"
MERGED_CONFIG_FILE = "merged_config.json"


@dataclass(frozen=True)
class Base:
    """The model that adapters are for.

    Args:
        name: Its name, as `train.init` has it.
        place: Where it was: an absolute path, or a repository of the hub.
        revision: The repository's commit or revision, or None for a path.
        weights: The SHA-256 of each file of its weights.
    """

    name: str
    place: str
    revision: str | None
    weights: dict[str, str]


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds adapters for a model in another folder.

    Raises:
        CheckpointError: The folder holds both adapters and a whole model.
    """
    if not (folder / ADAPTER_CONFIG_FILE).is_file():
        return False
    for whole in (weight_files.WEIGHTS_FILE, weight_files.INDEX_FILE):
        if (folder / whole).is_file():
            raise CheckpointError(
                f"{folder} holds a whole model, {whole}, and an adapter, {ADAPTER_CONFIG_FILE}: "
                "which is meant? Move the adapter to a folder of its own"
            )
    return True


def base_of(name: str, folder: Path, folders: Sequence[Path] = HERE) -> Base:
    """Record the base model `name`, found in `folder`, for the adapters that train on it.

    Args:
        name: The base, as `train.init` has it.
        folder: The folder of the model.
        folders: The folders that a path may have been relative to.

    Raises:
        CheckpointError: The base's weights can't be read.
    """
    repository = None if run_or_path(name, folders).is_dir() else on_hub(name)
    if repository is None:
        return Base(name, str(folder.resolve()), None, _digests(folder))
    # in the cache: the weights that these are, whatever the name means by then
    commit = folder.resolve().name
    revision = commit if COMMIT.fullmatch(commit) else repository.revision
    return Base(name, repository.name, revision, _digests(folder))


def save_adapter(
    folder: Path, model: Model, tokenizer: Tokenizer, base: Base, conventions: Conventions
) -> None:
    """Write the adapters of a model and its tokenizer, for `load` and `peft` to read.

    Args:
        folder: Where to write; it is made if it isn't there.
        model: The model with its adapters.
        tokenizer: The model's tokenizer.
        base: The model that the adapters are for.
        conventions: What is to be said of using the model with its adapters.
    """
    settings = peft.adapter_settings(base.place, base.revision, model)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ADAPTER_CONFIG_FILE, settings)
    write_json(folder / BASE_FILE, asdict(base))
    write_config(folder / MERGED_CONFIG_FILE, model, conventions.ids)
    # our names, which are Hugging Face's, within peft's
    tensors = {f"{peft.PREFIX}{name}": tensor for name, tensor in adapter_of(model).items()}
    weight_files.write(folder / ADAPTER_FILE, tensors, folder / BASE_FILE)
    conventions.write(folder, tokenizer, model.block_size)


def config_file(folder: Path) -> Path:
    """Return the path of a folder's config, which for adapters may be the config of their base.

    Raises:
        CheckpointError: The base of adapters is needed and can't be found.
    """
    if not is_adapter(folder):
        return folder / CONFIG_FILE
    own = folder / MERGED_CONFIG_FILE
    return own if own.is_file() else find_base(folder) / CONFIG_FILE


def find_base(folder: Path) -> Path:
    """Return the folder of the model that adapters are for.

    The model is looked for where it was, and then under the name that `train.init` had for it, as
    a path relative to the folder above `runs/` or to the current folder.

    Raises:
        CheckpointError: The model is gone, has other weights now, or consists of adapters itself.
        CorpusError: The model can't be had from the hub.
    """
    settings = peft.read_adapter_settings(folder / ADAPTER_CONFIG_FILE)
    record = recorded_base(folder)
    names = [settings.base, *({record.name} - {settings.base} if record else ())]
    folders = (run.project, *HERE) if (run := run_of(folder)) else HERE
    found = (_found(name, settings.revision, folders) for name in names)
    there = next(filter(None, found), None)
    if there is None:
        other = f"where {names[1]} finds it" if len(names) > 1 else f"correct {ADAPTER_CONFIG_FILE}"
        raise CheckpointError(
            f"{folder} is an adapter for the model {settings.base}, which isn't there: put it "
            f"back, or {other}"
        )
    base = find_model(there)
    if is_adapter(base):
        raise CheckpointError(
            f"{folder} is an adapter for {base}, which is one itself. Merge that first: groundup "
            f"export {shlex.quote(str(base))} --to folder"
        )
    if record:
        _check_unchanged(base, record.weights, folder)
    return base


def _found(name: str, revision: str | None, folders: Sequence[Path]) -> str | None:
    """What `find_model` takes for a base of that name; None where it can't be anywhere."""
    try:
        if (path := run_or_path(name, folders)).is_dir():
            return str(path)
        return (f"{name}@{revision}" if revision else name) if on_hub(name) else None
    except OSError:  # no system has such a name
        return None


def recorded_base(folder: Path) -> Base | None:
    """Return the base that `base.json` records for adapters, or None where there is no such file.

    Raises:
        CheckpointError: The record is damaged.
    """
    path = folder / BASE_FILE
    if not path.is_file():
        return None
    try:
        record = read_json(path)
        base = Base(record["name"], record["place"], record["revision"], dict(record["weights"]))
        texts = [base.name, base.place, base.revision or "", *base.weights, *base.weights.values()]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("names and digests are texts")
        return base
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} isn't what groundup wrote: {error!r}") from error


def read_adapter(folder: Path, model: Model) -> tuple[Adapter, Callable[[str], float]]:
    """Read a folder's adapters for a model that has no adapters yet.

    Returns:
        The adapters by name, and what gives their scale by the name of a layer.

    Raises:
        CheckpointError: The adapters don't fit the model, or aren't LoRA of linear layers in its
            blocks.
    """
    settings = peft.read_adapter_settings(folder / ADAPTER_CONFIG_FILE)
    path = folder / ADAPTER_FILE
    if not path.is_file():
        if (folder / ADAPTER_PICKLE).is_file():
            raise weight_files.refuse_pickle(folder / ADAPTER_PICKLE)
        raise CheckpointError(f"{folder} has no {ADAPTER_FILE}: it has no adapter's weights")
    if not isinstance(model, GPT2 | Modern):
        raise CheckpointError(
            f"{folder} is an adapter for a {architecture_of(model)} model; groundup's are for "
            "gpt2 and modern"
        )
    stored = _match(weight_files.tensors_in(path), model, settings, path)
    adapter = {name: torch.empty(each.shape, dtype=each.dtype) for name, each in stored.items()}
    weight_files.read_into(adapter, stored)
    return adapter, settings.scale_of


def _match(stored: Tensors, model: GPT2 | Modern, settings: AdapterSettings, path: Path) -> Tensors:
    """The tensors of a file under our names, each with its partner. Raises CheckpointError."""
    layers, layout = adaptable_layers(model), layout_of(architecture_of(model))
    found: Tensors = {}
    for name, tensor in stored.items():
        module = (peft.matrix_of(name, layout) or "").removesuffix(".weight")
        if module not in layers:
            raise CheckpointError(
                f"{path} has a tensor {name}, which isn't for a linear layer of the model's "
                "blocks: groundup computes no other LoRA"
            )
        (outputs, inputs), rank = layers[module].weight.shape, settings.rank_of(module)
        first = name.endswith(peft.FACTORS[0])
        ours = module + peft.FACTORS[0 if first else 1]
        if ours in found:
            raise CheckpointError(f"{path} has {ours} twice, also as {name}")
        shape = torch.Size([rank, inputs] if first else [outputs, rank])
        states = f"{ADAPTER_CONFIG_FILE} with the model that it is for"
        weight_files.check(tensor, name, shape, states)
        found[ours] = tensor
    for module in dict.fromkeys(name.rpartition(".lora_")[0] for name in found):
        for factor in peft.FACTORS:
            if module + factor not in found:
                raise CheckpointError(f"{path} lacks the tensor {module}{factor}")
    if not found:
        raise CheckpointError(f"{path} has no tensors: it is no adapter")
    return found


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a model's weights. Raises CheckpointError."""
    paths = {tensor.path for tensor in weight_files.stored_tensors(folder).values()}
    return {path.name: file_digest(path) for path in sorted(paths)}


def _check_unchanged(base: Path, recorded: dict[str, str], folder: Path) -> None:
    """Raise CheckpointError for a base of other weights: it would give another model."""
    found = _digests(base)
    for name in sorted(recorded.keys() | found.keys()):
        now, then = (files.get(name, "nothing") for files in (found, recorded))
        if now != then:
            raise CheckpointError(
                f"{base / name} isn't what the adapter in {folder} was trained on: its SHA-256 is "
                f"{now[:12]}... instead of {then[:12]}.... Restore it"
            )
