"""Weights that others published: what transformers writes is loaded as it computes, and goes back
bit for bit.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import perturb
from groundup import GPT2, GPTConfig, Modern, ModernConfig, ReadableGPT, load
from groundup.checkpoints import model_folder
from groundup.errors import CheckpointError
from model_files import INDEX, WHOLE, published, shard, write_index

# read when transformers is imported: nothing here may ask the network
os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")

SHAPES = {"gpt2": (12, 12), "gpt2-medium": (24, 16), "gpt2-large": (36, 20), "gpt2-xl": (48, 25)}
SMALL = GPTConfig(block_size=8, vocab_size=11, n_layer=2, n_head=2, n_embd=8)


def gpt2_of_theirs(n_layer: int, n_head: int, width: int = 2) -> Any:
    """A random GPT-2 of transformers, every tensor moved."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=n_layer,
        n_head=n_head,
        n_embd=width * n_head,
        n_positions=24,
        vocab_size=37,
        bos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    perturb(model, scale=0.1)
    return model


def qwen3_of_theirs(n_kv_head: int, tied: bool) -> Any:
    """A random Qwen3 of transformers, every tensor moved."""
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        **{
            "vocab_size": 37,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "head_dim": 6,
        },
        **{
            "num_attention_heads": 4,
            "num_key_value_heads": n_kv_head,
            "max_position_embeddings": 24,
        },
        **{
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": tied,
        },
    )
    model = transformers.Qwen3ForCausalLM(config).eval()
    perturb(model, scale=0.1)
    return model


def assert_same_logits(ours: GPT2 | Modern, theirs: Any) -> None:
    """To 1e-5 of the largest, in float32."""
    tokens = torch.randint(37, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs(tokens).logits, ours(tokens)[0]
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1.0)


def assert_same_weights(folder: Path, theirs: Any) -> None:
    """transformers reads what we wrote as the model that it was, bit for bit."""
    again = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert again.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.parametrize("form", ["as saved", "as published", "in shards"])
@pytest.mark.parametrize("name", SHAPES)
def test_gpt2_of_every_published_depth(name: str, form: str, tmp_path: Path) -> None:
    theirs = gpt2_of_theirs(*SHAPES[name])
    theirs.save_pretrained(
        tmp_path / "theirs", max_shard_size="40KB" if form == "in shards" else "5GB"
    )
    if form == "as published":
        published(tmp_path / "theirs")
        assert "wte.weight" in load_file(tmp_path / "theirs" / WHOLE)
    assert (tmp_path / "theirs" / INDEX).exists() is (form == "in shards")
    ours = GPT2.from_pretrained(tmp_path / "theirs")
    assert not ours.training
    assert_same_logits(ours, theirs)
    model_folder.save(tmp_path / "ours", ours, None)
    assert_same_weights(tmp_path / "ours", theirs)


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
def test_qwen3_of_every_kind(n_kv_head: int, tied: bool, shards: bool, tmp_path: Path) -> None:
    theirs = qwen3_of_theirs(n_kv_head, tied)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="10KB" if shards else "5GB")
    assert (tmp_path / "theirs" / INDEX).exists() is shards
    ours = Modern.from_pretrained(tmp_path / "theirs")
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) is tied
    assert_same_logits(ours, theirs)
    model_folder.save(tmp_path / "ours", ours, None)
    assert_same_weights(tmp_path / "ours", theirs)


def test_a_tied_head_that_is_stored_all_the_same_must_be_the_embedding(tmp_path: Path) -> None:
    """Qwen3-0.6B's own file has it twice."""
    theirs = qwen3_of_theirs(2, tied=True)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WHOLE)
    embedding = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": embedding.clone()}, tmp_path / WHOLE)
    assert_same_logits(Modern.from_pretrained(tmp_path), theirs)
    changed = embedding.clone()
    changed[-1, -1] += 1
    save_file(tensors | {"lm_head.weight": changed}, tmp_path / WHOLE)
    with pytest.raises(
        CheckpointError, match=r"lm_head.weight differs from model.embed_tokens.weight"
    ):
        Modern.from_pretrained(tmp_path)


def test_mixed_precisions_become_the_one_that_holds_them_all(tmp_path: Path) -> None:
    model = GPT2(SMALL)
    model_folder.save(tmp_path, model, None)
    tensors = {
        name: tensor.half() if "mlp" in name else tensor
        for name, tensor in load_file(tmp_path / WHOLE).items()
    }
    save_file(tensors, tmp_path / WHOLE)
    loaded = load(tmp_path)[0].state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float() if "mlp" in name else tensor), name


def test_the_class_must_be_that_of_the_model(tmp_path: Path) -> None:
    model_folder.save(tmp_path, ReadableGPT(SMALL), None)
    with pytest.raises(
        CheckpointError, match=r"holds a readable model, not a GPT2: groundup.load reads it"
    ):
        GPT2.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="not a Modern"):
        Modern.from_pretrained(tmp_path)


@pytest.mark.parametrize("model", [GPT2(SMALL), ReadableGPT(SMALL)], ids=["gpt2", "readable"])
def test_a_context_cropped_while_loading_computes_the_same(
    model: GPT2 | ReadableGPT, tmp_path: Path
) -> None:
    perturb(model, scale=0.3)
    model_folder.save(tmp_path, model.eval(), None)
    cropped = model_folder.load_model(tmp_path, block_size=5).model
    assert cropped.config.block_size == cropped.block_size == 5
    tokens = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(1))
    assert (cropped(tokens)[0] - model(tokens)[0]).abs().max() <= 1e-6
    with pytest.raises(
        CheckpointError, match=r"block_size = 9 is more than the context of 8 .* Choose at most 8"
    ):
        model_folder.load_model(tmp_path, block_size=9)


def test_rotations_of_a_cropped_context_are_those_of_the_whole(tmp_path: Path) -> None:
    model = Modern(ModernConfig(16, 11, 2, 2, 1, 8, 4, 16)).eval()
    perturb(model, scale=0.3)
    model_folder.save(tmp_path, model, None)
    tokens = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(1))
    assert (
        model_folder.load_model(tmp_path, block_size=5).model(tokens)[0] - model(tokens)[0]
    ).abs().max() <= 1e-6


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A model folder in two shards, and where each tensor is."""
    model_folder.save(tmp_path, GPT2(SMALL), None)
    places = shard(tmp_path)
    load(tmp_path)
    return tmp_path, places


def test_what_is_wrong_with_shards_is_named(shards: tuple[Path, dict[str, str]]) -> None:
    """faults.md, 23, over several files."""
    folder, places = shards
    name, file = next(iter(places.items()))
    other = next(other for other in places.values() if other != file)
    write_index(folder, {key: value for key, value in places.items() if key != name})
    with pytest.raises(
        CheckpointError, match=f"{file} has a tensor {name}, but {INDEX} doesn't name it"
    ):
        load(folder)
    write_index(folder, places | {name: other})
    with pytest.raises(
        CheckpointError, match=f"{file} has a tensor {name}, but {INDEX} puts it into {other}"
    ):
        load(folder)
    write_index(folder, places | {"transformer.h.0.extra": file})
    with pytest.raises(CheckpointError, match=f"{file} lacks the tensor transformer.h.0.extra"):
        load(folder)
    tensors = load_file(folder / file)
    write_index(folder, places)
    save_file(tensors | {name: torch.zeros(2, 3)}, folder / file)
    with pytest.raises(
        CheckpointError, match=rf"{file}: tensor {name} is \[2, 3\], but config.json makes it"
    ):
        load(folder)
    save_file(tensors | {"transformer.h.0.extra": torch.zeros(2)}, folder / file)
    write_index(folder, places | {"transformer.h.0.extra": file})
    with pytest.raises(
        CheckpointError, match=r"has a tensor that the model doesn't: transformer.h.0.extra"
    ):
        load(folder)
    save_file({key: value for key, value in tensors.items() if key != name}, folder / file)
    write_index(folder, {key: value for key, value in places.items() if key != name})
    with pytest.raises(CheckpointError, match=f"{INDEX} lacks the tensor {name}"):
        load(folder)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=f"{INDEX} names {file}, which isn't there"):
        load(folder)


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "weights.bin", 3, None, ""]
)
def test_an_index_names_only_safetensors_beside_it(
    shards: tuple[Path, dict[str, str]], file: object
) -> None:
    folder, places = shards
    write_index(folder, places | {"transformer.wte.weight": file})
    with pytest.raises(CheckpointError, match=r"it must be a safetensors file beside it"):
        load(folder)


MEASURE = """
import sys
from pathlib import Path
from groundup.checkpoints.model_folder import load_model

def megabytes(field):
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

load_model(Path(sys.argv[2]))  # what loading needs once: libraries, not memory for weights
Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak begins anew
before = megabytes("VmRSS")
model = load_model(Path(sys.argv[1])).model
weights = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**20
sys.stdout.write(f"{megabytes('VmHWM') - before} {weights}")
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="the peak of memory is read from Linux's /proc",
)
@pytest.mark.parametrize("sharded", [False, True])
def test_loading_needs_little_more_than_the_weights(sharded: bool, tmp_path: Path) -> None:
    """The peak of resident memory grows by at most 1.3 times the weights, though one tensor is over
    half of them.
    """
    with torch.device("meta"):
        model = GPT2(GPTConfig(block_size=256, vocab_size=50_257, n_layer=6, n_head=8, n_embd=448))
    model = model.to_empty(device="cpu")
    for weight in model.parameters():
        torch.nn.init.constant_(weight, 0.5)
    model.lm_head.weight = model.transformer.wte.weight
    model_folder.save(tmp_path / "large", model, None)
    model_folder.save(tmp_path / "small", GPT2(SMALL), None)
    if sharded:
        shard(tmp_path / "large", 3)
    arguments = [sys.executable, "-c", MEASURE, str(tmp_path / "large"), str(tmp_path / "small")]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=True)
    growth, weights = map(float, finished.stdout.split())
    assert weights > 140
    assert weights * 0.9 < growth < weights * 1.3
