"""`peft`'s folders of LoRA adapters: its names of tensors, and its `adapter_config.json`."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from groundup.checkpoints.layouts import Layout, Settings, read_stated
from groundup.errors import CheckpointError
from groundup.models.gpt2 import GPT2
from groundup.models.lora import LoRALinear
from groundup.models.registry import Model

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."  # peft's model, and LoRA's within it
FACTORS = (".lora_A.weight", ".lora_B.weight")

# Keys that the adapted model's numbers don't depend on: where and how it was trained. The tensors
# say which matrices they are for, and by their shapes whether they lie as a Linear's or a Conv1D's.
# Tying concerns adapters of embeddings, which are refused by their tensors.
ASIDE = {
    *("auto_mapping", "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out"),
    *("inference_mode", "layers_pattern"),
    *("layers_to_transform", "loftq_config", "lora_dropout", "megatron_config", "megatron_core"),
    *("peft_version", "qalora_group_size", "runtime_config", "target_modules", "task_type"),
}
READ = {
    *("base_model_name_or_path", "revision", "peft_type", "r", "lora_alpha", "use_rslora"),
    *("init_lora_weights", "rank_pattern", "alpha_pattern"),
}
# any other key must say that what it is about isn't there
NOTHING = (None, False, {}, [], "none", "")
# other ways to begin change the base's own weights
KEEP_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class AdapterSettings:
    """What groundup needs of an `adapter_config.json`.

    Args:
        base: The folder, or the model of the hub, that the adapters are for.
        revision: The model's revision on the hub, if it is stated.
        rank, alpha: Those of all layers that have none of their own.
        ranks, alphas: Those of layers by the ends of their names, as EVA gives them.
        by_root: Whether alpha is divided by the root of the rank (Kalajdzievski 2023).
    """

    base: str
    revision: str | None
    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]
    by_root: bool

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer's adapters."""
        return next((self.ranks[key] for key in self.ranks if _is_end(key, layer)), self.rank)

    def scale_of(self, layer: str) -> float:
        """Return the number by which the product of a layer's two factors is multiplied."""
        alpha = next((self.alphas[key] for key in self.alphas if _is_end(key, layer)), self.alpha)
        rank = self.rank_of(layer)
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def adapter_settings(base: str, revision: str | None, model: Model) -> Settings:
    """Return the `adapter_config.json` of a model with adapters.

    Args:
        base: The folder, or the model of the hub, that the adapters are for.
        revision: That model's revision on the hub, or None.
        model: The model with its adapters.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}
    one = next(iter(layers.values()))
    return {
        **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "auto_mapping": None},
        **{"base_model_name_or_path": base, "revision": revision, "inference_mode": True},
        "r": one.lora_A.out_features,
        "lora_alpha": int(one.alpha) if one.alpha == int(one.alpha) else one.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "fan_in_fan_out": isinstance(model, GPT2),  # whose modules are Conv1Ds in transformers
        **{"bias": "none", "use_rslora": False, "use_dora": False, "modules_to_save": None},
        **{"rank_pattern": {}, "alpha_pattern": {}, "init_lora_weights": True},
    }


def read_adapter_settings(path: Path) -> AdapterSettings:
    """Read what an `adapter_config.json` states.

    Raises:
        CheckpointError: The file is damaged, or describes other adapters than plain LoRA.
    """
    settings = read_stated(path)
    found = settings.get("peft_type") if isinstance(settings, dict) else type(settings).__name__
    if found != "LORA":
        raise CheckpointError(f"{path}: peft_type is {found!r}; groundup loads adapters of 'LORA'")
    for key, value in settings.items():
        if key not in ASIDE | READ and value not in NOTHING:
            raise CheckpointError(
                f"{path}: {key} = {value!r}, but groundup computes plain LoRA, without it"
            )
    if (begun := settings.get("init_lora_weights", True)) not in KEEP_THE_BASE:
        raise CheckpointError(
            f"{path}: init_lora_weights = {begun!r} changes the base's own weights: save the "
            "adapter with path_initial_model_for_weight_conversion, which makes it plain LoRA"
        )
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise CheckpointError(
            f"{path}: base_model_name_or_path = {base!r} and revision = {revision!r} must name "
            "the model that the adapter is for"
        )
    # LoraConfig's own, for keys that are left out
    ranks = {"r": settings.get("r", 8), **_by_layer(settings, "rank_pattern", path)}
    alphas = {"lora_alpha": settings.get("lora_alpha", 8)}
    alphas |= _by_layer(settings, "alpha_pattern", path)
    for key, rank in ranks.items():
        if type(rank) is not int or not 1 <= rank < 2**31:
            raise CheckpointError(f"{path}: {key} must be a whole number from 1, not {rank!r}")
    for key, alpha in alphas.items():
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= 1e30:
            raise CheckpointError(f"{path}: {key} must be a number, not {alpha!r}")
    common = ranks.pop("r"), alphas.pop("lora_alpha")
    return AdapterSettings(
        base, revision or None, *common, ranks, alphas, bool(settings.get("use_rslora"))
    )


def _by_layer(settings: Settings, key: str, path: Path) -> Settings:
    """What a setting says of layers by the ends of their names. Raises CheckpointError."""
    stated = settings.get(key) or {}
    if not isinstance(stated, dict) or not all(re.fullmatch(r"[\w.]+", name) for name in stated):
        raise CheckpointError(
            f"{path}: {key} = {stated!r}, but groundup knows layers by their names, not by patterns"
        )
    return {name.removeprefix(PREFIX): value for name, value in stated.items()}


def _is_end(key: str, layer: str) -> bool:
    return layer == key or layer.endswith(f".{key}")


def matrix_of(name: str, layout: Layout) -> str | None:
    """Return the layout's name of the matrix that a tensor of an adapter's file is for.

    For a tensor that isn't LoRA's the result is None.
    """
    factor = next((factor for factor in FACTORS if name.endswith(factor)), None)
    if factor is None or not name.startswith(PREFIX):
        return None
    return layout.spelled(name.removeprefix(PREFIX).removesuffix(factor) + ".weight")
