"""A model folder is data from anywhere: no file in it is executed, trusted or believed (faults.md,
21 to 23).
"""

import json
import pickle
import re
import shutil
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import groundup
from commands import groundup as command
from conftest import error_line
from groundup import GPT2, Bigram, GPTConfig, Modern, ModernConfig
from groundup.checkpoints.model_folder import load, save
from groundup.errors import CheckpointError, GroundupError
from groundup.tokenizers.characters import CharacterTokenizer
from model_files import INDEX, shard

CONFIG = GPTConfig(block_size=8, vocab_size=5, n_layer=1, n_head=2, n_embd=4)


class Trap:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple:
        return Path.touch, (self.sprung,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, whole."""
    torch.manual_seed(0)
    save(tmp_path / "model", GPT2(CONFIG), CharacterTokenizer("abcde"))
    return tmp_path / "model"


def test_the_trap_works(tmp_path: Path) -> None:
    """What the next tests say isn't opened would show if it was."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "name", ["model.pt", "model.bin", "model.pth", "model.pkl", "model.ckpt", "model.safetensors"]
)
def test_a_pickle_is_refused_unopened(tmp_path: Path, name: str) -> None:
    """faults.md, 21: by itself, whatever it is called."""
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    line = error_line(command("generate", name, folder=tmp_path))
    assert name in line
    assert not (tmp_path / "sprung").exists()
    if not name.endswith(".safetensors"):
        assert "is a pickle, which can run any code" in line


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.safetensors", "config.json", "tokenizer.json"]
)
def test_a_pickle_in_a_model_folder_is_refused_unopened(folder: Path, name: str) -> None:
    """faults.md, 21: as the only weights, and in place of each file."""
    sprung = folder / "sprung"
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(sprung)))
    line = error_line(command("generate", folder, folder=folder))
    assert name in line
    assert not sprung.exists()


COMMANDS = {
    "evaluate": ["--task", "loss", "--corpus", "text.txt"],
    "export": ["--to", "onnx"],
    "verify": [],
    "generate": [],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_opens_a_pickle(folder: Path, tmp_path: Path, name: str) -> None:
    """faults.md, 21: given by itself, as the only weights of a folder, and as its weights under a
    trusted name.
    """
    sprung, file = tmp_path / "sprung", tmp_path / "model.pth"
    (tmp_path / "text.txt").write_text("abcde" * 9)
    pickled = pickle.dumps(Trap(sprung))
    file.write_bytes(pickled)
    shutil.copytree(folder, tmp_path / "only")
    (tmp_path / "only" / "model.safetensors").rename(tmp_path / "only" / "pytorch_model.bin")
    (tmp_path / "only" / "pytorch_model.bin").write_bytes(pickled)
    (folder / "model.safetensors").write_bytes(pickled)
    before = sorted(tmp_path.rglob("[!.]*"))
    for model, named in (
        (file, "model.pth is a pickle"),
        (tmp_path / "only", "pytorch_model.bin is a pickle"),
    ):
        assert named in error_line(command(name, model, *COMMANDS[name], folder=tmp_path))
    line = error_line(command(name, folder, *COMMANDS[name], folder=tmp_path))
    assert "model.safetensors isn't a valid safetensors file" in line
    assert not sprung.exists()
    assert sorted(tmp_path.rglob("[!.]*")) == before


@pytest.mark.parametrize("option", ["--init", "--resume"])
def test_a_pickle_is_refused_for_training(tmp_path: Path, option: str) -> None:
    """faults.md, 21."""
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "model.pt" in error_line(command("train", option, "model.pt", folder=tmp_path))
    assert not (tmp_path / "sprung").exists()


def test_the_package_never_reads_a_pickle() -> None:
    """faults.md, 21: the words don't appear in the source."""
    forbidden = re.compile(
        r"torch\.load\b|\bimport (pickle|dill|joblib|shelve|marshal)\b|allow_pickle|weights_only"
    )
    sources = list(Path(groundup.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    for source in sources:
        assert not forbidden.search(source.read_text("utf-8")), source


def header(tensors: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file from what its header says, which may lie."""
    text = json.dumps(tensors).encode() if not isinstance(tensors, bytes) else tensors
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


WTE = "transformer.wte.weight"
HOSTILE = {
    "nothing": b"",
    "seven bytes": b"\1" * 7,
    "a header longer than the file": header({}, length=1000),
    "a header of 2^64 bytes": header({}, length=2**64 - 1),
    "a header of 2^40 bytes": header({}, length=2**40),
    "no JSON": header(b"not json at all "),
    "no UTF-8": header(b'{"\xff\xfe": 1}'),
    "a list": header([1, 2]),
    "deep nesting": header(b"[" * 100_000),
    "overlapping tensors": header(
        {WTE: entry([5, 4], 0, 80), "b": entry([5, 4], 40, 120)}, bytes(120)
    ),
    "a hole": header({WTE: entry([5, 4], 0, 80), "b": entry([1], 100, 104)}, bytes(104)),
    "offsets past the end": header({WTE: entry([5, 4], 0, 80)}, bytes(40)),
    "offsets backwards": header({WTE: entry([5, 4], 80, 0)}, bytes(80)),
    "an overflowing shape": header({WTE: entry([2**62, 4, 4], 0, 80)}, bytes(80)),
    "a negative shape": header({WTE: entry([-5, -4], 0, 80)}, bytes(80)),
    "a huge shape without data": header({WTE: entry([2**40, 2**20], 0, 0)}),
    "an unknown dtype": header({WTE: entry([5, 4], 0, 80, "F33")}, bytes(80)),
    "data left over": header({WTE: entry([5, 4], 0, 80)}, bytes(200)),
    "no tensors": header({}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_refused(folder: Path, kind: str) -> None:
    """faults.md, 22."""
    (folder / "model.safetensors").write_bytes(HOSTILE[kind])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(folder)


def test_a_hostile_header_is_refused_in_little_memory(folder: Path) -> None:
    """faults.md, 22: with 50 MB of address space to spare, on the command line."""
    (folder / "model.safetensors").write_bytes(HOSTILE["a huge shape without data"])
    line = error_line(command("generate", folder, folder=folder, memory=50 << 20))
    assert "model.safetensors" in line


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_change_to_a_model_file_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """faults.md, 22: any file of a folder without a manifest, any splice: a model, or an error that
    users read.
    """
    folder = tmp_path_factory.getbasetemp() / "spliced"
    save(folder, GPT2(CONFIG), CharacterTokenizer("abcde"))
    file = folder / data.draw(
        st.sampled_from(["model.safetensors", "config.json", "tokenizer.json"])
    )
    content = file.read_bytes()
    border = len(content) if file.suffix == ".json" else 1200  # the header
    begin, length = data.draw(st.integers(0, border)), data.draw(st.integers(0, 20))
    spliced = content[:begin] + data.draw(st.binary(max_size=20)) + content[begin + length :]
    # a huge model takes its time
    assume(file.name != "config.json" or not re.search(rb"\d[\deE]{4}", spliced))
    file.write_bytes(spliced)
    try:
        load(folder)
    except GroundupError as error:
        assert str(folder) in str(error) or "tokens" in str(error)  # noqa: PT017


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_change_to_shards_or_their_index_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """faults.md, 22, over several files: any splice of the index or a header, and any JSON as the
    index.
    """
    folder = tmp_path_factory.getbasetemp() / "spliced-shards"
    save(folder, GPT2(CONFIG), None)
    shard(folder)
    file = data.draw(st.sampled_from([folder / INDEX, *sorted(folder.glob("model-*.safetensors"))]))
    if file.name == INDEX and data.draw(st.booleans()):
        text = st.text(max_size=9) | st.sampled_from(
            ["weight_map", WTE, "model-00001-of-00002.safetensors", "../x"]
        )
        leaves = st.none() | st.booleans() | st.integers() | st.floats() | text
        trees = st.recursive(
            leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=9
        )
        index = data.draw(
            trees | st.fixed_dictionaries({"weight_map": trees | st.dictionaries(text, text)})
        )
        file.write_text(json.dumps(index), "utf-8")
    else:
        content = file.read_bytes()
        begin, length = (
            data.draw(st.integers(0, min(len(content), 1200))),
            data.draw(st.integers(0, 20)),
        )
        file.write_bytes(
            content[:begin] + data.draw(st.binary(max_size=20)) + content[begin + length :]
        )
    try:
        load(folder)
    except CheckpointError as error:
        assert str(folder) in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_of_a_shard_is_refused(folder: Path, kind: str) -> None:
    """faults.md, 22."""
    file = shard(folder)[WTE]
    (folder / file).write_bytes(HOSTILE[kind])
    with pytest.raises(CheckpointError, match=file):
        load(folder)


def test_more_positions_than_rotations_are_computed_for_are_refused(tmp_path: Path) -> None:
    """They are in no file that would have to be as large."""
    save(tmp_path, Modern(ModernConfig(8, 5, 1, 2, 1, 4, 2, 4)), None)
    rewrite(tmp_path, max_position_embeddings=10**12)
    with pytest.raises(
        CheckpointError, match=r"max_position_embeddings x head_dim = 2,000,000,000,000"
    ):
        load(tmp_path)


def rewrite(folder: Path, **changes: object) -> None:
    """Change fields of `config.json`."""
    config = json.loads((folder / "config.json").read_text("utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"vocab_size": 6}, ["transformer.wte.weight", "[5, 4]", "[6, 4]"]),
        ({"n_positions": 16}, ["transformer.wpe.weight", "[8, 4]", "[16, 4]"]),
        ({"n_embd": 8}, ["transformer.wte.weight", "[5, 4]", "[5, 8]"]),
        ({"n_layer": 2}, ["lacks the tensor transformer.h.1.", "[4]"]),
        ({"n_layer": 0}, ["n_layer must be a whole number from 1, not 0"]),
        ({"n_head": 3}, ["n_embd = 4", "n_head = 3"]),
    ],
)
def test_weights_that_do_not_fit_the_config(
    folder: Path, changes: dict[str, object], named: list[str]
) -> None:
    """faults.md, 23: the tensor and both shapes."""
    rewrite(folder, **changes)
    line = error_line(command("generate", folder, folder=folder))
    for part in named:
        assert part in line


def test_a_surplus_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    """faults.md, 23."""
    bigger = GPT2(GPTConfig(block_size=8, vocab_size=5, n_layer=2, n_head=2, n_embd=4))
    save(tmp_path / "bigger", bigger, None)
    (tmp_path / "bigger" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"has a tensor that the model doesn't: transformer\.h\.1\."
    ):
        load(folder)


def test_a_tokenizer_that_does_not_fit_the_config(folder: Path) -> None:
    """faults.md, 23: both numbers."""
    CharacterTokenizer("abcdefg").save(folder)
    line = error_line(command("generate", folder, folder=folder))
    assert "tokenizer.json has 7 tokens, but config.json says vocab_size = 5" in line


def test_a_bigram_whose_embedding_was_changed_is_refused(tmp_path: Path) -> None:
    """faults.md, 23: its folder holds more than its table, and the rest must be what it was."""
    save(tmp_path / "bigram", Bigram(CONFIG), CharacterTokenizer("abcde"))
    load(tmp_path / "bigram")
    tensors = {
        "transformer.wte.weight": torch.eye(5).flip(0),
        "transformer.wpe.weight": torch.zeros(8, 5),
        "transformer.ln_f.weight": torch.ones(5),
        "transformer.ln_f.bias": torch.zeros(5),
        "lm_head.weight": torch.zeros(5, 5),
    }
    save_file(tensors, tmp_path / "bigram" / "model.safetensors")
    with pytest.raises(CheckpointError, match="is no longer a bigram"):
        load(tmp_path / "bigram")


@pytest.mark.parametrize("field", ["n_embd", "n_layer", "vocab_size", "n_positions"])
def test_a_config_that_describes_more_than_the_file_holds_is_refused_before_it_is_built(
    tmp_path: Path, field: str
) -> None:
    """faults.md, 23: a billion layers would never be built, a billion dimensions never fit."""
    save(tmp_path, GPT2(CONFIG), None)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {field: 10**12}), "utf-8")
    with pytest.raises(
        CheckpointError, match=r"describes [\d,]+ parameters, more than model.safetensors has bytes"
    ):
        load(tmp_path)
