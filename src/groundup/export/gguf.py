"""Writes a model as one GGUF file for llama.cpp, in GPT-2's architecture or in Qwen3's."""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from groundup.checkpoints.conventions import Conventions
from groundup.checkpoints.layouts import Weights, gpt2, qwen3
from groundup.errors import ExportError
from groundup.export.destination import appearing_whole, require
from groundup.export.gguf_vocabulary import vocabulary_of
from groundup.models.bigram import Bigram
from groundup.models.correspondence import gpt2_from_readable
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

Kind = Literal["f32", "f16", "bf16", "q8_0"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LARGEST_F16 = 65504.0
Q8_0_BLOCK = 32  # weights that share a scale

# llama.cpp's name of each of our modules; a block's stand below blk.N.
NAMES = {
    **{"transformer.wte": "token_embd", "transformer.wpe": "position_embd"},
    **{"transformer.ln_f": "output_norm", "model.embed_tokens": "token_embd"},
    **{"model.norm": "output_norm", "lm_head": "output"},
    **{"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output"},
    **{"ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
    **{"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    **{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"},
    **{"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"},
    **{"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate"},
    **{"mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"},
}
IN_BLOCK = re.compile(r"(?:transformer\.h|model\.layers)\.(\d+)\.(.+)")


def export_gguf(
    model: Model,
    tokenizer: Tokenizer | None,
    out: Path,
    kind: Kind,
    title: str,
    *,
    conventions: Conventions | None = None,
) -> str:
    """Write a model as GGUF.

    Args:
        model: The model, on the CPU.
        tokenizer: Its tokenizer, which the file holds too.
        out: Where to write.
        kind: How the matrices are written. Norms, biases and GPT-2's positions are always f32, and
            matrices whose rows q8_0 can't cut into blocks are f16.
        title: The model's name for people.
        conventions: What the model says of how texts begin and end and how a chat is laid out.

    Returns:
        A line that says what is in the file.

    Raises:
        ExportError: llama.cpp can't express the model or its tokenizer. Nothing is written then.
        MachineError: The package gguf isn't installed.
    """
    require("gguf", "gguf")
    if isinstance(model, Bigram):
        raise ExportError(
            "a bigram can't become GGUF: it has no layers, and llama.cpp no architecture without "
            "them"
        )
    if tokenizer is None:
        raise ExportError(
            "a model without a tokenizer that groundup reads can't become GGUF, which holds both"
        )
    said = conventions or Conventions()
    vocabulary = vocabulary_of(tokenizer, model.config.vocab_size, said)
    tensors = {gguf_name(name): tensor for name, tensor in _weights(model).items()}
    kinds: dict[str, Kind] = {name: kind_of(name, tensor, kind) for name, tensor in tensors.items()}
    _check_range(tensors, kinds)
    with appearing_whole(out) as path:
        writer = _begin(path, model, title, kind)
        vocabulary.add_to(writer)
        _write_tensors(writer, tensors, kinds)
    found = Counter(kinds.values())
    counts = [f"{found[known]} tensors in {known}" for known in KINDS if known in found]
    return ", ".join(counts) + (f"; {vocabulary.note}" if vocabulary.note else "")


def _check_range(tensors: Weights, kinds: dict[str, Kind]) -> None:
    """Raise ExportError for a tensor with values that its type can't hold."""
    for name, tensor in tensors.items():
        if kinds[name] == "f16" and not tensor.abs().max().item() <= LARGEST_F16:
            raise ExportError(
                f"tensor {name} has values above {LARGEST_F16:,.0f}, which f16 can't hold: --type "
                "bf16"
            )


def _write_tensors(writer: "GGUFWriter", tensors: Weights, kinds: dict[str, Kind]) -> None:
    """Write all that the writer was given, then the tensors, rounded to the nearest value."""
    import gguf

    for name, tensor in tensors.items():
        form = gguf.GGMLQuantizationType[kinds[name].upper()]
        values = tensor.detach().float().contiguous().numpy()
        writer.add_tensor(name, gguf.quants.quantize(values, form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a tensor of `GPT2` or `Modern`."""
    module, _, part = name.rpartition(".")
    block = IN_BLOCK.fullmatch(module)
    return f"blk.{block[1]}.{NAMES[block[2]]}.{part}" if block else f"{NAMES[module]}.{part}"


def kind_of(name: str, tensor: Tensor, kind: Kind) -> Kind:
    """Return the type that llama.cpp's own converter gives a tensor if matrices are `kind`."""
    if tensor.ndim == 1 or name == "position_embd.weight":
        return "f32"
    if kind == "q8_0" and tensor.size(-1) % Q8_0_BLOCK:
        return "f16"
    return kind


def _weights(model: Model) -> Weights:
    """The tensors as [out, in], which is how llama.cpp wants them.

    GPT-2's head is written though it is tied, because old versions of llama.cpp need it; that of a
    tied Qwen3 is left out, as their converter does.
    """
    weights = model.state_dict()
    if isinstance(model, ReadableGPT):
        return gpt2_from_readable(weights, model.config.n_layer, model.config.n_head)
    if isinstance(model, Modern) and model.config.tied:
        del weights["lm_head.weight"]
    return weights


def _begin(path: Path, model: Model, title: str, kind: Kind) -> "GGUFWriter":
    """A writer with what a GGUF says of a model besides its vocabulary and its tensors."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "qwen3" if isinstance(model, Modern) else "gpt2")
    writer.add_name(title)
    of_file = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[of_file[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_vocab_size(config.vocab_size)
    if not isinstance(model, Modern):
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_layer_norm_eps(gpt2.FIXED["layer_norm_epsilon"][0])
        return writer
    writer.add_feed_forward_length(model.config.n_inner)
    writer.add_head_count_kv(model.config.n_kv_head)
    writer.add_key_length(model.config.head_dim)
    writer.add_value_length(model.config.head_dim)
    writer.add_rope_freq_base(model.config.rope_theta)
    writer.add_layer_norm_rms_eps(qwen3.FIXED["rms_norm_eps"][0])
    return writer
