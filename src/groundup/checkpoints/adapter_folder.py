"""Adapters as a folder that `peft` reads, and any folder of LoRA that `peft` wrote; which model
they are for.

A checkpoint of a LoRA run has no `config.json`: transformers would take it for a whole model. What
the merged model is stands in `merged_config.json`, and `base.json` says of what weights the base
consisted, byte for byte.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from groundup.checkpoints.find import find_model, on_hub
from groundup.checkpoints.layouts.config_json import CONFIG_FILE, layout_of, write_config
from groundup.checkpoints.layouts.peft import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    ADAPTER_PICKLE,
    FACTORS,
    AdapterSettings,
    adapter_settings,
    matrix_of,
    read_adapter_settings,
    to_peft,
)
from groundup.checkpoints.layouts.weight_files import (
    INDEX_FILE,
    WEIGHTS_FILE,
    Stored,
    check,
    read_into,
    refuse_pickle,
    stored_tensors,
    tensors_in,
)
from groundup.errors import CheckpointError
from groundup.files import file_digest, parse_json, write_json
from groundup.models.gpt2 import GPT2
from groundup.models.lora import Adapter, LoRALinear, adaptable_layers, adapter_of
from groundup.models.modern import Modern
from groundup.models.registry import Model, architecture_of
from groundup.runs.folder import run_or_path

BASE_FILE = "base.json"
MERGED_CONFIG_FILE = "merged_config.json"


@dataclass(frozen=True)
class Base:
    """The model that adapters are for. name: as `train.init` has it; weights: the SHA-256 of each
    file.
    """

    name: str
    place: str  # an absolute path, or a repository of the hub
    revision: str | None
    weights: dict[str, str]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters for a model elsewhere. Raises CheckpointError for one that
    holds both.
    """
    if not (folder / ADAPTER_CONFIG_FILE).is_file():
        return False
    for whole in (WEIGHTS_FILE, INDEX_FILE):
        if (folder / whole).is_file():
            raise CheckpointError(
                f"{folder} holds a whole model, {whole}, and an adapter, {ADAPTER_CONFIG_FILE}: "
                "which is meant? Move the adapter to a folder of its own"
            )
    return True


def base_of(name: str, folder: Path) -> Base:
    """What there is to remember of a base that was found in a folder. Raises CheckpointError."""
    repository = None if run_or_path(name).is_dir() else on_hub(name)
    if repository is None:
        return Base(name, str(folder.resolve()), None, _digests(folder))
    # in the cache: the weights that these are, whatever the name means by then
    commit = folder.resolve().name
    revision = commit if re.fullmatch(r"[0-9a-f]{40}", commit) else repository.revision
    return Base(name, repository.name, revision, _digests(folder))


def save_adapter(folder: Path, model: Model, base: Base, document_start: int | None = None) -> None:
    """Write the adapters of a model, for `load` and `peft` to read; document_start as in
    `model_folder.save`.
    """
    names, layers = zip(
        *((n, m) for n, m in model.named_modules() if isinstance(m, LoRALinear)), strict=True
    )
    rank, alpha = layers[0].lora_A.out_features, layers[0].alpha
    targets = {name.rpartition(".")[2] for name in names}
    settings = adapter_settings(
        base.place,
        base.revision,
        rank=rank,
        alpha=alpha,
        targets=targets,
        conv=isinstance(model, GPT2),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ADAPTER_CONFIG_FILE, settings)
    write_json(folder / BASE_FILE, asdict(base))
    write_config(folder / MERGED_CONFIG_FILE, model, document_start, document_start)
    tensors = {
        name: tensor.cpu().contiguous() for name, tensor in to_peft(adapter_of(model)).items()
    }
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    # safetensors lets nobody else read it
    (folder / ADAPTER_FILE).chmod((folder / BASE_FILE).stat().st_mode)


def config_file(folder: Path) -> Path:
    """The `config.json` that holds for a model folder; for adapters of `peft` that is their
    base's.
    """
    if not is_adapter(folder):
        return folder / CONFIG_FILE
    own = folder / MERGED_CONFIG_FILE
    return own if own.is_file() else find_base(folder) / CONFIG_FILE


def find_base(folder: Path) -> Path:
    """The folder of the model that adapters are for: where it was, or what `train.init` named.

    Raises CheckpointError where it is gone or isn't the model that it was, and CorpusError for what
    can't be had from the hub.
    """
    settings, record = read_adapter_settings(folder / ADAPTER_CONFIG_FILE), recorded_base(folder)
    names = [settings.base, *({record.name} - {settings.base} if record else ())]
    there = next((found for name in names if (found := _found(name, settings.revision))), None)
    if there is None:
        raise CheckpointError(
            f"{folder} is an adapter for the model {settings.base}, which isn't there: put it back"
            + (
                f", or where {names[1]} finds it"
                if len(names) > 1
                else f", or correct {ADAPTER_CONFIG_FILE}"
            )
        )
    base = find_model(there)
    if is_adapter(base):
        raise CheckpointError(
            f"{folder} is an adapter for {base}, which is one itself. Merge that first: groundup "
            f"export {base} --to folder"
        )
    if record:
        _check_unchanged(base, record.weights, folder)
    return base


def _found(name: str, revision: str | None) -> str | None:
    """What `find_model` takes for a base of that name; None where it can't be anywhere."""
    try:
        if run_or_path(name).is_dir():
            return name
        return (f"{name}@{revision}" if revision else name) if on_hub(name) else None
    except OSError:  # no system has such a name
        return None


def recorded_base(folder: Path) -> Base | None:
    """What the base was; None for adapters of which nobody recorded it. Raises CheckpointError."""
    path = folder / BASE_FILE
    if not path.is_file():
        return None
    try:
        record = parse_json(path.read_text("utf-8"))
        base = Base(record["name"], record["place"], record["revision"], dict(record["weights"]))
        texts = [base.name, base.place, base.revision or "", *base.weights, *base.weights.values()]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("names and digests are texts")
        return base
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} isn't what groundup wrote: {error!r}") from error


def read_adapter(folder: Path, model: Model) -> tuple[Adapter, float]:
    """The adapters in a folder for the matrices of a model, which has none yet, and their scale.

    Raises CheckpointError for what doesn't fit the model or isn't LoRA of its blocks' linear
    layers.
    """
    settings, path = read_adapter_settings(folder / ADAPTER_CONFIG_FILE), folder / ADAPTER_FILE
    if not path.is_file():
        if (folder / ADAPTER_PICKLE).is_file():
            raise refuse_pickle(folder / ADAPTER_PICKLE)
        raise CheckpointError(f"{folder} has no {ADAPTER_FILE}: it has no adapter's weights")
    if not isinstance(model, GPT2 | Modern):
        raise CheckpointError(
            f"{folder} is an adapter for a {architecture_of(model)} model; groundup's are for "
            "gpt2 and modern"
        )
    stored = _match(tensors_in(path), model, settings, path)
    adapter = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in stored.items()
    }
    read_into(adapter, stored)
    return adapter, settings.scale


def _match(
    stored: dict[str, Stored], model: GPT2 | Modern, settings: AdapterSettings, path: Path
) -> dict[str, Stored]:
    """The tensors of an adapter's file under our names, each with its partner. Raises
    CheckpointError.
    """
    layers, layout = adaptable_layers(model), layout_of(architecture_of(model))
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        module = (matrix_of(name, layout) or "").removesuffix(".weight")
        if module not in layers:
            raise CheckpointError(
                f"{path} has a tensor {name}, which isn't for a linear layer of the model's "
                "blocks: groundup computes no other LoRA"
            )
        outputs, inputs = layers[module].weight.shape
        first = name.endswith(FACTORS[0])
        ours = module + FACTORS[0 if first else 1]
        if ours in found:
            raise CheckpointError(f"{path} has {ours} twice, also as {name}")
        shape = torch.Size([settings.rank, inputs] if first else [outputs, settings.rank])
        check(tensor, name, shape, f"{ADAPTER_CONFIG_FILE} with the model that it is for")
        found[ours] = tensor
    for module in dict.fromkeys(name.rpartition(".lora_")[0] for name in found):
        if lacking := next((factor for factor in FACTORS if module + factor not in found), None):
            raise CheckpointError(f"{path} lacks the tensor {module}{lacking}")
    if not found:
        raise CheckpointError(f"{path} has no tensors: it is no adapter")
    return found


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a model's weights. Raises CheckpointError."""
    found = {}
    for path in sorted({tensor.path for tensor in stored_tensors(folder).values()}):
        found[path.name] = file_digest(path)
    return found


def _check_unchanged(base: Path, recorded: dict[str, str], folder: Path) -> None:
    """A base of other weights gives another model. Raises CheckpointError."""
    found = _digests(base)
    for name in sorted(recorded.keys() | found.keys()):
        now, then = (files.get(name, "nothing") for files in (found, recorded))
        if now != then:
            raise CheckpointError(
                f"{base / name} isn't what the adapter in {folder} was trained on: its SHA-256 is "
                f"{now[:12]}... instead of {then[:12]}.... Restore it"
            )
