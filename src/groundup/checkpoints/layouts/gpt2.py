"""GPT-2's layout, `GPT2LMHeadModel`: for `gpt2.py`, the readable model and the bigram."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from groundup.checkpoints import layouts
from groundup.checkpoints.layouts import Layout, Settings, Weights, number
from groundup.errors import CheckpointError
from groundup.models.bigram import Bigram
from groundup.models.config import GPTConfig
from groundup.models.correspondence import gpt2_from_readable, readable_from_gpt2
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model, architecture_of

# kept by early releases
CAUSAL_MASKS = re.compile(r"(?:transformer\.)?h\.\d+\.attn\.(?:bias|masked_bias)")
LARGEST_BIGRAM = 4096  # its one-hot embedding is as large as its table
# Hugging Face's Conv1D keeps [in, out]
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
FIXED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
OTHER_NAMES = {  # under which transformers takes them too
    **{"n_embd": "hidden_size", "n_positions": "max_position_embeddings"},
    **{"n_head": "num_attention_heads", "n_layer": "num_hidden_layers"},
}
DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop")


class GPT2Layout(Layout):
    """The layout of `gpt2.py`, the readable model and the bigram, all written as a GPT-2."""

    architectures = ("gpt2", "readable", "bigram")
    embedding = "transformer.wte.weight"

    def spelled(self, name: str) -> str | None:
        """Return a tensor's name in `to_hugging_face`; None for a causal mask, which is no weight.

        The published GPT-2s leave out `transformer.`, and keep their masks among the weights.
        """
        if CAUSAL_MASKS.fullmatch(name):
            return None
        return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"

    def to_hugging_face(self, model: Model) -> Weights:
        """Return the weights in GPT-2's names and orientation."""
        weights = model.state_dict()
        if isinstance(model, Bigram):
            return self._zero_layer_gpt2(model.config, weights["head.weight"])
        if isinstance(model, ReadableGPT):
            weights = gpt2_from_readable(weights, model.config.n_layer, model.config.n_head)
        del weights["lm_head.weight"]
        return _turned(weights)

    def from_hugging_face(self, model: Model, tensors: Weights, path: Path) -> Weights:
        """Turn what `to_hugging_face` returned into the model's own state dict again.

        Raises:
            CheckpointError: A bigram's embedding or norm was changed, so it is no bigram any more.
        """
        if isinstance(model, Bigram):
            table = tensors["lm_head.weight"]
            expected = self._zero_layer_gpt2(model.config, table)
            if not all(torch.equal(tensor, tensors[name]) for name, tensor in expected.items()):
                raise CheckpointError(
                    f"{path} is no longer a bigram: its embedding or norm was changed. Load it as "
                    "gpt2."
                )
            return {"head.weight": table}
        weights = _turned(tensors)
        weights["lm_head.weight"] = weights[self.embedding]
        if isinstance(model, ReadableGPT):
            return readable_from_gpt2(weights, model.config.n_layer, model.config.n_head)
        return weights

    def settings_of(self, model: Model) -> Settings:
        """Return the `config.json` of a model.

        All three dropouts are stated, for transformers would apply 0.1. llama.cpp's converter reads
        the context as `n_ctx`.
        """
        config, is_bigram = model.config, isinstance(model, Bigram)
        assert isinstance(config, GPTConfig)
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "groundup_model": architecture_of(model),
            "vocab_size": config.vocab_size,
            "n_positions": config.block_size,
            "n_ctx": config.block_size,
            "n_embd": config.vocab_size if is_bigram else config.n_embd,
            "n_layer": 0 if is_bigram else config.n_layer,
            "n_head": 1 if is_bigram else config.n_head,
            "n_inner": None,
            **dict.fromkeys(DROPOUTS, config.dropout),
            "tie_word_embeddings": not is_bigram,
            "reorder_and_upcast_attn": False,
            **layouts.IN_TRAINING,
            **{key: values[0] for key, values in FIXED.items()},
        }

    def config_of(self, settings: Settings, architecture: str, path: Path) -> GPTConfig:
        """Return the shape of a GPT-2, and refuse settings that our GPT-2 doesn't compute."""
        layouts.check_fixed(settings, FIXED, "GPT-2", path)
        for name, other in OTHER_NAMES.items():
            if other in settings and settings[other] != (one := settings.get(name)):
                raise CheckpointError(
                    f"{path}: {name} = {one!r}, but {other} = {settings[other]!r}, which means the "
                    f"same: leave {other} out"
                )
        is_bigram = architecture == "bigram"
        if settings.get("tie_word_embeddings", True) is is_bigram:
            raise CheckpointError(
                f"{path}: tie_word_embeddings must be {not is_bigram} for a {architecture} model"
            )
        names = {"block_size": "n_positions", "vocab_size": "vocab_size"}
        if not is_bigram:
            names |= {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd"}
        shape = layouts.whole_numbers(settings, names, path)
        # ours is one; of three that differ, the one on what blocks add to the residual stream
        *_, dropout = (number(settings.get(key, 0.1), key, path) for key in DROPOUTS)
        if not is_bigram and settings.get("n_inner") not in (None, 4 * shape["n_embd"]):
            raise CheckpointError(
                f"{path}: n_inner = {settings['n_inner']!r}, but groundup's MLP is 4 * n_embd wide"
            )
        return GPTConfig(dropout=dropout, **shape)

    def _zero_layer_gpt2(self, config: GPTConfig, table: Tensor) -> Weights:
        """The bigram as a GPT-2 without layers, whose last norm leaves a one-hot vector as it is.

        table: [vocab, vocab]
        """
        vocab_size = config.vocab_size
        if vocab_size > LARGEST_BIGRAM:
            raise CheckpointError(
                f"a bigram of vocab_size = {vocab_size:,} can't be saved: its one-hot embedding "
                f"grows with the square. Choose a tokenizer of at most {LARGEST_BIGRAM:,} tokens."
            )
        mean = 1.0 / vocab_size
        deviation = math.sqrt(mean * (1.0 - mean) + 1e-5)
        return {
            self.embedding: torch.eye(vocab_size, dtype=table.dtype, device=table.device),
            "transformer.wpe.weight": table.new_zeros(config.block_size, vocab_size),
            "transformer.ln_f.weight": table.new_full((vocab_size,), deviation),
            "transformer.ln_f.bias": table.new_full((vocab_size,), mean),
            "lm_head.weight": table,
        }


def _turned(weights: Weights) -> Weights:
    """The weights with the matrices that Conv1D keeps turned: views, of either orientation."""
    return {name: each.T if name.endswith(TRANSPOSED) else each for name, each in weights.items()}
