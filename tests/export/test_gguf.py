"""A GGUF holds what the model holds: read back by the reader of the `gguf` package, name by name
and value by value.
"""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from exported import TRICKY, model_for, saved, tokenizer_of

from commands import groundup
from conftest import error_line
from groundup.checkpoints import model_folder
from groundup.checkpoints.conventions import Conventions
from groundup.export.gguf import KINDS, export_gguf
from groundup.export.gguf_vocabulary import vocabulary_of
from groundup.models.bigram import Bigram
from groundup.models.correspondence import gpt2_from_readable
from groundup.models.modern import Modern
from groundup.tokenizers.bytepair import BytePairTokenizer

# The roundings that each form allows, as a share of the largest of the values that share a scale
# (q8_0's is an f16).
BOUNDS = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.5 / 127 + 2**-10}
SMALLEST = {"f16": 2**-25}  # half of the least f16


def exported(folder: Path, *args: object) -> gguf.GGUFReader:
    """What `groundup export model --to gguf ARGS...` writes to `out.gguf`."""
    finished = groundup(
        "export", "model", "--to", "gguf", "--out", "out.gguf", *args, folder=folder
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("out.gguf: ")
    return gguf.GGUFReader(folder / "out.gguf")


def field(reader: gguf.GGUFReader, name: str) -> object:
    """The value of a key."""
    found = reader.get_field(name)
    assert found is not None, f"{name} is missing"
    return found.contents()


def values_of(tensor: gguf.ReaderTensor) -> np.ndarray:
    """A tensor as float32, in our order of dimensions: GGUF counts them from the last."""
    shape = [int(size) for size in reversed(tensor.shape)]
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)


def expected_tensors(model: object) -> dict[str, torch.Tensor]:
    """The same by llama.cpp's names, written out by hand for one layer of each family."""
    if isinstance(model, Modern):
        top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
        block = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
        block |= {f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"}
        block |= {f"attn_{part}_norm": f"self_attn.{part}_norm" for part in "qk"}
        block |= {"attn_output": "self_attn.o_proj"} | {
            f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")
        }
        weights, prefix = model.state_dict(), "model.layers"
    else:
        top = {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
        }
        top["output"] = "transformer.wte"
        block = {
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "attn_norm": "ln_1",
            "ffn_norm": "ln_2",
        }
        block |= {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
        weights, prefix = model.state_dict(), "transformer.h"  # type: ignore[attr-defined]
        if "token_embedding.weight" in weights:
            weights = gpt2_from_readable(weights, 2, 4)
    modules = top | {
        f"blk.{layer}.{theirs}": f"{prefix}.{layer}.{ours}"
        for layer in range(2)
        for theirs, ours in block.items()
    }
    return {
        f"{theirs}.{part}": weights[f"{ours}.{part}"]
        for theirs, ours in modules.items()
        for part in ("weight", "bias")
        if f"{ours}.{part}" in weights
    }


@pytest.mark.parametrize("architecture", ["gpt2", "readable", "modern"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_there_and_no_other(architecture: str, kind: str, tmp_path: Path):
    model, _ = saved(tmp_path / "model", architecture, "characters")
    reader = exported(tmp_path, "--type", kind)
    assert field(reader, "general.architecture") == (
        "qwen3" if architecture == "modern" else "gpt2"
    )
    expected = expected_tensors(model)
    assert {tensor.name for tensor in reader.tensors} == set(expected)
    for tensor in reader.tensors:
        ours = expected[tensor.name].numpy()
        whole = ours.ndim == 1 or tensor.name == "position_embd.weight"
        assert tensor.tensor_type.name.lower() == ("f32" if whole else kind), tensor.name
        blocks = ours.reshape(-1, 32 if kind == "q8_0" and not whole else 1)
        bound = (0.0 if whole else BOUNDS[kind]) * np.abs(blocks).max(axis=-1, keepdims=True)
        errors = np.abs(values_of(tensor).reshape(blocks.shape) - blocks)
        assert (errors <= bound + (0.0 if whole else SMALLEST.get(kind, 0.0))).all(), tensor.name
    assert values_of(reader.tensors[0]).shape == (model.config.vocab_size, 64)


def test_the_shape_is_stated(tmp_path: Path):
    model, _ = saved(tmp_path / "model", "modern", "characters")
    assert isinstance(model, Modern)
    reader = exported(tmp_path)
    stated = {
        "context_length": 64,
        "embedding_length": 64,
        "block_count": 2,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": model.config.head_dim,
        "attention.value_length": model.config.head_dim,
        "feed_forward_length": model.config.n_inner,
        "rope.freq_base": 10_000.0,
        "vocab_size": model.config.vocab_size,
    }
    assert {name: field(reader, f"qwen3.{name}") for name in stated} == stated
    assert field(reader, "qwen3.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    assert field(reader, "general.name") == "model"


def test_what_does_not_come_in_blocks_of_32_is_f16_and_that_is_said(tmp_path: Path):
    saved(tmp_path / "model", "gpt2", "characters", n_embd=24)
    finished = groundup("export", "model", "--to", "gguf", "--type", "q8_0", folder=tmp_path)
    # of width 24 only ffn_down is read in rows of 96, which are three blocks
    assert finished.stdout.endswith(" 19 tensors in f32, 8 tensors in f16, 2 tensors in q8_0\n"), (
        finished.stdout
    )
    types = {
        tensor.name: tensor.tensor_type.name
        for tensor in gguf.GGUFReader(tmp_path / "model-q8_0.gguf").tensors
    }
    assert types["blk.1.ffn_down.weight"] == "Q8_0"
    assert types["blk.1.ffn_up.weight"] == types["token_embd.weight"] == "F16"


def test_byte_pairs_keep_letters_ids_merges_and_the_special_token(tmp_path: Path):
    _, tokenizer = saved(tmp_path / "model", "gpt2", "pairs", padding=3)
    assert isinstance(tokenizer, BytePairTokenizer)
    reader = exported(tmp_path)
    letters, merges = tokenizer.contents["model"]["vocab"], tokenizer.contents["model"]["merges"]
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    end = tokenizer.special_tokens["<|endoftext|>"]
    assert {token: letters[token] for token in letters} == {
        token: number for number, token in enumerate(tokens) if token in letters
    }
    assert tokens[end:] == ["<|endoftext|>", *(f"[PAD{end + more}]" for more in (1, 2, 3))]
    assert field(reader, "tokenizer.ggml.token_type") == [1] * end + [3, 5, 5, 5]
    assert field(reader, "tokenizer.ggml.merges") == [" ".join(pair) for pair in merges]
    assert (
        field(reader, "tokenizer.ggml.eos_token_id")
        == field(reader, "tokenizer.ggml.bos_token_id")
        == end
    )
    assert (field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre")) == (
        "gpt2",
        "gpt-2",
    )
    assert field(reader, "tokenizer.ggml.add_bos_token") is False


def test_characters_are_written_as_bytes_and_none_of_them_ends_a_text(tmp_path: Path):
    _, tokenizer = saved(tmp_path / "model", "gpt2", "characters")
    reader = exported(tmp_path)
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    read = [
        token.encode("ascii").decode("unicode_escape").encode("latin-1").decode("utf-8")
        for token in tokens
    ]
    assert read == [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    assert set(TRICKY) <= set(read)
    assert reader.get_field("tokenizer.ggml.eos_token_id") is None


def changed(**changes: object) -> BytePairTokenizer:
    """A tokenizer with parts of its `tokenizer.json` replaced."""
    tokenizer = tokenizer_of("pairs")
    assert isinstance(tokenizer, BytePairTokenizer)
    tokenizer.contents = tokenizer.contents | changes
    return tokenizer


def split(pattern: str) -> dict[str, object]:
    """A pre-tokenizer that cuts by a pattern of its own."""
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    letters = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {"type": "Sequence", "pretokenizers": [step, letters]}


QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_words_are_called_as_llama_cpp_calls_them():
    found = vocabulary_of(
        changed(pre_tokenizer=split(QWEN2), normalizer={"type": "NFC"}), 320, Conventions()
    )
    assert (found.pre, "NFC" in found.note) == ("qwen2", True)
    three = changed(pre_tokenizer=split(QWEN2.replace(r"\p{N}| ", r"\p{N}{1,3}| ")))
    assert vocabulary_of(three, 320, Conventions()).pre == "llama-bpe"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pre_tokenizer": split(r"\p{L}+|\s+|.")}, r"\p{L}+|\s+|."),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "ByteLevel"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}, "words"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer"),
    ],
)
def test_what_llama_cpp_would_cut_otherwise_is_refused(changes: dict[str, object], named: str):
    with pytest.raises(ValueError, match=r"llama\.cpp") as refused:
        vocabulary_of(changed(**changes), 320, Conventions())
    assert named in str(refused.value)


def files_below(folder: Path) -> list[Path]:
    """All that is in a folder, without the output of the commands that ran there."""
    return sorted(path for path in folder.rglob("*") if path.suffix not in {".stdout", ".stderr"})


def test_what_gguf_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path):
    tokenizer = tokenizer_of("characters")
    model_folder.save(tmp_path / "bigram", model_for("bigram", tokenizer), tokenizer)
    model_folder.save(tmp_path / "mute", model_for("gpt2", tokenizer), None)
    large = model_for("gpt2", tokenizer)
    assert not isinstance(large, Bigram)
    with torch.no_grad():
        large.head.weight[3, 5] = 70_000.0
    model_folder.save(tmp_path / "large", large, tokenizer)
    before = files_below(tmp_path)
    for name, reason in (
        ("bigram", "no layers"),
        ("mute", "without a tokenizer"),
        ("large", "--type bf16"),
    ):
        args = ["export", name, "--to", "gguf", "--type", "f16"]
        assert reason in error_line(groundup(*args, folder=tmp_path))
    assert files_below(tmp_path) == before


def test_a_tokenizer_without_end_of_text_is_refused():
    tokenizer = changed()
    tokenizer.special_tokens = {}
    with pytest.raises(ValueError, match="token 11"):
        vocabulary_of(tokenizer, 320, Conventions())


def test_half_a_pair_is_refused():
    from groundup.tokenizers.characters import CharacterTokenizer

    with pytest.raises(ValueError, match="surrogate"):
        vocabulary_of(CharacterTokenizer("ab\ud800"), 3, Conventions())


def test_a_failure_leaves_the_old_file(tmp_path: Path):
    tokenizer = tokenizer_of("characters")
    out = tmp_path / "out.gguf"
    out.write_text("old")
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model", "gpt2", "characters")
    finished = groundup(
        "export",
        "model",
        "--to",
        "gguf",
        "--out",
        out,
        "--force",
        folder=tmp_path,
        file_size=10_000,
    )
    assert "can't write" in error_line(finished)
    assert out.read_text() == "old"
    assert [path.name for path in files_below(tmp_path) if path.parent == tmp_path] == [
        "model",
        "out.gguf",
    ]
    assert (
        export_gguf(model_for("gpt2", tokenizer), tokenizer, out, "f32", "x") == "29 tensors in f32"
    )
