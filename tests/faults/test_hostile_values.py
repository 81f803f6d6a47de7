"""What fuzzing found in config.json, tokenizer.json and safetensors headers, a case each: refused
in one line.
"""

import json
import struct
from pathlib import Path

import pytest

from commands import groundup
from conftest import error_line
from groundup import GPT2, Bigram, GPTConfig, Modern, ModernConfig
from groundup.checkpoints.model_folder import load, save
from groundup.errors import CheckpointError, ForeignTokenizerError, TokenizerError
from groundup.tokenizers import CharacterTokenizer, load_tokenizer
from shard_files import learned

GPT, QWEN = GPTConfig(8, 5, 1, 2, 4), ModernConfig(8, 5, 1, 2, 1, 4, 2, 4)
DIGITS = int("7" * 4001)
DEEP = "[" * 300 + "]" * 300


def saved(folder: Path, kind: str) -> Path:
    """A valid folder of a kind: its config.json."""
    model = {
        "gpt2": lambda: GPT2(GPT),
        "bigram": lambda: Bigram(GPT),
        "modern": lambda: Modern(QWEN),
    }[kind]()
    save(folder, model, CharacterTokenizer("abcde"))
    return folder / "config.json"


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("gpt2", {"embd_pdrop": [0.1]}, r"embd_pdrop must be a number, not \[0.1\]"),
        ("gpt2", {"attn_pdrop": {}}, "attn_pdrop must be a number"),
        ("gpt2", {"resid_pdrop": 10**400}, "resid_pdrop must be a number"),
        ("gpt2", {"embd_pdrop": "x"}, "embd_pdrop must be a number"),
        ("gpt2", {"n_embd": None, "n_inner": 3}, "n_embd must be a whole number from 1, not None"),
        ("gpt2", {"n_embd": 2**63 - 1}, r"n_embd = 9223372036854775807 is above 1,099,511,627,776"),
        ("gpt2", {"n_embd": 2**40 - 1}, r"n_embd = 1099511627775 is not divisible by n_head = 2"),
        ("gpt2", {"n_embd": DIGITS, "n_head": 1}, "n_embd = 777"),
        ("bigram", {"n_positions": 2**63 - 1}, r"block_size = 9223372036854775807 is above"),
        ("modern", {"layer_types": 5}, "layer_types has others"),
        ("modern", {"layer_types": [["full_attention"]]}, "layer_types has others"),
        (
            "modern",
            {"rope_parameters": {"rope_type": []}},
            "groundup computes the default rotations",
        ),
        (
            "modern",
            {"rope_parameters": {"rope_theta": [1]}},
            r"rope_theta must be a number, not \[1\]",
        ),
        (
            "modern",
            {"rope_theta": 1, "rope_parameters": {"rope_theta": 2}},
            r"one number, and is 1\.0 and 2\.0",
        ),
        (
            "modern",
            {"rope_theta": float("inf"), "rope_parameters": None},
            "rope_theta = inf isn't a number above 0",
        ),
        ("modern", {"groundup_dropout": 10**400}, "groundup_dropout must be a number"),
        ("modern", {"max_position_embeddings": DIGITS, "head_dim": DIGITS - 1}, "block_size = 777"),
        (
            "gpt2",
            {"n_layer": "a\n\x1b[2J"},
            r"whole number from 1, not 'a\\n\\x1b\[2J'",
        ),
        ("gpt2", {"model_type": "\x1b[2J\n\ud800"}, r"model_type is '\\x1b\[2J\\n\\ud800'"),
        ("gpt2", {"n_layer": "A" * 10**6}, r"AAAA \.\.\. AAAA"),
    ],
)
def test_a_config_value_that_nobody_expects(
    tmp_path: Path, kind: str, changes: dict[str, object], said: str
) -> None:
    file = saved(tmp_path, kind)
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(CheckpointError, match=said) as raised:
        load(tmp_path)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) <= 2000


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "manifest.json", "model.safetensors.index.json"]
)
def test_json_nested_deeply(tmp_path: Path, name: str) -> None:
    """300 levels parse, and overflow the stack where they are shown, compared or walked through."""
    saved(tmp_path, "gpt2")
    if name == "model.safetensors.index.json":
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_text(
        f'{{"model": {{"type": {DEEP}, "vocab": {{}}}}, "files": {DEEP}}}', "utf-8"
    )
    with pytest.raises(
        (CheckpointError, TokenizerError), match=f"{name} is.*(nested more than 64|damaged)"
    ):
        load(tmp_path)


@pytest.mark.parametrize("value", [DEEP, "[" * 10**6 + "]" * 10**6, "7" * 5000])
def test_a_header_with_what_safetensors_passes_over(tmp_path: Path, value: str) -> None:
    """It ignores fields that it doesn't know, whatever is in them."""
    saved(tmp_path, "gpt2")
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = (
        content[8 : 8 + length]
        .rstrip()
        .replace(b'"dtype":', b'"x":' + value.encode() + b',"dtype":', 1)
    )
    file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    with pytest.raises(CheckpointError, match=r"model\.safetensors isn't a valid safetensors file"):
        load(tmp_path)


def test_what_a_tensor_is_called_does_not_reach_the_terminal(tmp_path: Path) -> None:
    """A name can hold line ends, and what clears a screen."""
    saved(tmp_path, "gpt2")
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["evil\n\x1b[2J\x07"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    line = error_line(groundup("generate", tmp_path, folder=tmp_path))
    assert line.isprintable()
    assert r"evil \x1b[2J\x07" in line


def with_pattern(folder: Path, pattern: str) -> Path:
    """A byte-level tokenizer that cuts words by a pattern of its own."""
    folder.mkdir(exist_ok=True)
    learned().save(folder)
    file = folder / "tokenizer.json"
    contents = json.loads(file.read_text("utf-8"))
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    steps = [split, contents["decoder"] | {"use_regex": False}]
    contents["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    file.write_text(json.dumps(contents), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a+)+b$", "retry-limit"),
        (r"[a-z]*[a-z]*[a-z]*!|\s|\S", "takes too long"),
        (r"(?:\w{1,40}){1,40}\s", "retry-limit"),
        ("a" * 5000, "more than 4,000 characters"),
        ("^a|.", "looks back"),
        (r"(?<=b)a|.", "looks back"),
        ("(a", "tokenizers` refuses it"),
        ("[a", "tokenizers` refuses it"),
    ],
)
def test_a_pattern_that_may_never_come_to_an_end(tmp_path: Path, pattern: str, said: str) -> None:
    """Engines in Rust and C would hang, use up all memory or abort the process."""
    with pytest.raises(ForeignTokenizerError, match=said):
        load_tokenizer(with_pattern(tmp_path / "tokenizer", pattern))


def test_a_pattern_of_nothing_loses_no_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """tiktoken panics at a match without characters, which `(?=a)` is: `tokenizers` encodes, and
    that is said.
    """
    tokenizer = load_tokenizer(with_pattern(tmp_path / "tokenizer", "(?=a)"))
    assert tokenizer.decode(tokenizer.encode("banana aa")) == "banana aa"
    (said,) = caplog.messages
    assert "pre_tokenizer Split" in said
