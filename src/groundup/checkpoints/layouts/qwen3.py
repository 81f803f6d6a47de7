"""Qwen3's layout, `Qwen3ForCausalLM`: `modern.py` has Qwen3's names, so only configs differ."""

from pathlib import Path

from groundup.checkpoints import layouts
from groundup.checkpoints.layouts import Fixed, Layout, Settings, Weights, number
from groundup.errors import CheckpointError
from groundup.models.config import ModernConfig
from groundup.models.modern import Modern
from groundup.models.registry import Model, architecture_of

# positions x head_dim of the rotations: a million positions of Qwen3's heads
LARGEST_TABLE = 1 << 27
NAMES = {
    "block_size": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
    "head_dim": "head_dim",
    "n_inner": "intermediate_size",
}
# of the residual stream in training; theirs has only one of attention's weights
DROPOUT = "groundup_dropout"
FIXED: Fixed = {
    "hidden_act": ("silu",),
    "rms_norm_eps": (1e-6,),
    "attention_bias": (False,),
    "attention_dropout": (0.0, 0),
    "use_sliding_window": (False,),
}


class Qwen3Layout(Layout):
    """The layout of `modern.py`, whose weights have Qwen3's names already."""

    architectures = ("modern",)
    embedding = "model.embed_tokens.weight"

    def to_hugging_face(self, model: Model) -> Weights:
        """Return the weights as they are, without a tied head."""
        assert isinstance(model, Modern)
        weights = model.state_dict()
        if model.config.tied:
            del weights["lm_head.weight"]
        return weights

    def from_hugging_face(self, model: Model, tensors: Weights, path: Path) -> Weights:
        """Return the weights as they are, with a tied head put back."""
        return {"lm_head.weight": tensors[self.embedding], **tensors}

    def settings_of(self, model: Model) -> Settings:
        """Return the `config.json` of a model, with the base of the rotations written twice.

        transformers 5 reads `rope_parameters`, vLLM and transformers 4 read `rope_theta`. Without
        `sliding_window`, transformers 4.51 would compute with a window of 4,096 tokens.
        """
        assert isinstance(model, Modern)
        config = model.config
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "groundup_model": architecture_of(model),
            **{key: getattr(config, field) for field, key in NAMES.items()},
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
            "tie_word_embeddings": config.tied,
            "sliding_window": None,
            "max_window_layers": config.n_layer,
            DROPOUT: config.dropout,
            **layouts.IN_TRAINING,
            **{key: values[0] for key, values in FIXED.items()},
        }

    def config_of(self, settings: Settings, architecture: str, path: Path) -> ModernConfig:
        """Return the shape of a Qwen3, and refuse settings that `modern.py` doesn't compute."""
        layouts.check_fixed(settings, FIXED, "modern model", path)
        kinds = settings.get("layer_types") or []
        if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
            raise CheckpointError(
                f"{path}: layer_types has others than full_attention, which groundup doesn't "
                "compute"
            )
        tied = settings.get("tie_word_embeddings", False)
        if type(tied) is not bool:
            raise CheckpointError(
                f"{path}: tie_word_embeddings must be true or false, not {tied!r}"
            )
        dropout = number(settings.get(DROPOUT, 0.0), DROPOUT, path)
        shape = layouts.whole_numbers(settings | _defaults(settings), NAMES, path)
        theta = _rope_theta(settings, path)
        config = ModernConfig(rope_theta=theta, tied=tied, dropout=dropout, **shape)
        # computed, not read: no file vouches for it
        if (size := config.block_size * config.head_dim) > LARGEST_TABLE:
            raise CheckpointError(
                f"{path}: max_position_embeddings x head_dim = {size:,}, but rotations are "
                f"computed for {LARGEST_TABLE:,}"
            )
        return config


def _defaults(settings: Settings) -> Settings:
    """The values of Qwen3Config for keys that a folder may leave out or leave empty."""
    heads = settings.get("num_attention_heads") if "num_key_value_heads" in settings else 32
    defaults = {"head_dim": 128, "num_key_value_heads": heads}
    return {key: value for key, value in defaults.items() if settings.get(key) is None}


def _rope_theta(settings: Settings, path: Path) -> float:
    """The base of the rotations, wherever it stands.

    Raises CheckpointError for rotations of another kind, under either name of their parameters.
    """
    stated = [settings]
    for name in ("rope_parameters", "rope_scaling"):
        parameters = settings.get(name) or {}
        is_dict, keys = isinstance(parameters, dict), ("rope_type", "type")
        if not is_dict or any(parameters.get(key, "default") != "default" for key in keys):
            raise CheckpointError(
                f"{path}: {name} = {parameters!r}, but groundup computes the default rotations"
            )
        stated.append(parameters)
    values = [part["rope_theta"] for part in stated if part.get("rope_theta") is not None]
    found = {number(value, "rope_theta", path) for value in values or [10_000.0]}
    if len(found) != 1:
        raise CheckpointError(
            f"{path}: rope_theta must be one number, and is {' and '.join(map(str, sorted(found)))}"
        )
    return found.pop()
