"""A chat model keeps its template, roles, ends and ways of sampling through all that we write."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup
from commands import groundup as command
from conftest import perturb
from groundup.checkpoints import model_folder
from groundup.models.config import ModernConfig
from groundup.models.modern import Modern
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.train import learn_tokenizer

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
transformers = pytest.importorskip("transformers")

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
TEXT = "the quick brown fox jumps over a lazy dog, and it writes. " * 40
CHAT = [{"role": "user", "content": "hi"}]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """A made-up Qwen3 that answers in chats, as its makers would publish it: `tmp_path/chat`."""
    learned = learn_tokenizer([TEXT], 280)
    contents, count = dict(learned.contents), learned.vocab_size
    names = ("<|im_start|>", "<|im_end|>")
    added = contents["added_tokens"]
    added = added + [{**added[0], "id": count + n, "content": name} for n, name in enumerate(names)]
    tokenizer = BytePairTokenizer(contents | {"added_tokens": added}, "made up")
    torch.manual_seed(0)
    model = Modern(ModernConfig(32, tokenizer.vocab_size, 2, 2, 2, 16, 8, 32))
    perturb(model, scale=0.3)
    folder, end = tmp_path / "chat", tokenizer.special_tokens["<|im_end|>"]
    model_folder.save(folder, model, tokenizer)
    padding = tokenizer.special_tokens["<|endoftext|>"]
    change(folder / "config.json", bos_token_id=None, eos_token_id=end, pad_token_id=padding)
    roles: dict[str, Any] = {"bos_token": None, "unk_token": None, "pad_token": "<|endoftext|>"}
    roles |= {"eos_token": {"content": "<|im_end|>", "lstrip": False, "__type": "AddedToken"}}
    change(folder / "tokenizer_config.json", **roles, model_max_length=1000, padding_side="left")
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20, "pad_token_id": padding}
    (folder / "generation_config.json").write_text(
        json.dumps(sampling | {"eos_token_id": [end, padding]}), "utf-8"
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return folder


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def said(folder: Path) -> dict[str, Any]:
    """What transformers takes from a folder besides the weights and ids of text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    generation = transformers.GenerationConfig.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    return {
        "roles": tokenizer.special_tokens_map,
        "chat": tokenizer.apply_chat_template(CHAT, tokenize=False),
        "side": tokenizer.padding_side,
        "longest": min(tokenizer.model_max_length, 32),
        "generation": generation.to_diff_dict() | {"transformers_version": ""},
        "ids": (config.bos_token_id, config.eos_token_id, config.pad_token_id),
    }


def train(tmp_path: Path, *flags: object) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    args = ["train", "finetune", "--init", "chat", "--corpus", "text.txt", "--name", "mine"]
    args += ["--steps", "2", "--train.compile", "off", "--train.batch-size", "2"]
    finished = command(*args, "--eval.sample-length", "0", *flags, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    return tmp_path / "runs" / "mine" / "checkpoints" / "latest"


def test_an_exported_folder_says_what_its_source_says(chat: Path, tmp_path: Path) -> None:
    assert command("export", "chat", "--to", "folder", folder=tmp_path).returncode == 0
    assert said(tmp_path / "chat-model") == said(chat)


def test_a_finetuned_chat_model_is_still_one_and_so_after_a_resume(
    chat: Path, tmp_path: Path
) -> None:
    folder = train(tmp_path)
    assert said(folder) == said(chat)
    finished = command("train", "--resume", "mine", "--steps", "3", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert folder.resolve().name == "step-000003"
    assert said(folder) == said(chat)


def test_merged_adapters_say_what_their_base_says(chat: Path, tmp_path: Path) -> None:
    folder = train(tmp_path, "--lora.rank", "2").resolve()
    assert transformers.AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"
    assert command("export", "mine", "--to", "folder", folder=tmp_path).returncode == 0
    assert said(tmp_path / "mine-model") == said(chat)
    bare = tmp_path / "bare"  # as peft writes them: with no file of a tokenizer
    bare.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(folder / name, bare / name)
    assert command("export", "bare", "--to", "folder", folder=tmp_path).returncode == 0
    assert said(tmp_path / "bare-model") == said(chat)


def test_learning_from_documents_adds_their_token_to_the_ends(chat: Path, tmp_path: Path) -> None:
    loaded = groundup.load_model(chat)
    assert loaded.tokenizer is not None
    start, end = (
        loaded.tokenizer.special_tokens[f"<|{name}|>"] for name in ("endoftext", "im_end")
    )
    assert loaded.text_ends == {start, end}
    out = tmp_path / "out"
    model_folder.save(out, loaded.model, loaded.tokenizer, start, loaded.conventions)
    assert said(out)["ids"] == (start, [start, end], start)
    assert transformers.GenerationConfig.from_pretrained(out).eos_token_id == [start, end]
    assert groundup.load_model(out).text_ends == {start, end}
    assert groundup.load_model(out).document_start == start


def test_a_gguf_has_the_end_and_the_template(chat: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    finished = command("export", "chat", "--to", "gguf", "--type", "f32", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    fields = gguf.GGUFReader(tmp_path / "chat-f32.gguf").fields
    end = groundup.load_model(chat).conventions.ends[0]
    assert fields["tokenizer.ggml.eos_token_id"].contents() == end
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE


def test_what_is_uploaded_has_the_template(chat: Path, tmp_path: Path) -> None:
    finished = command("export", "chat", "--to", "hub", "me/it", "--out", "up", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert said(tmp_path / "up") == said(chat)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", "[1]"),
        ("generation_config.json", "{"),
        ("special_tokens_map.json", '"x"'),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_damaged_file_is_named(file: str, content: str | bytes, chat: Path) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (chat / file).write_bytes(data)
    with pytest.raises(groundup.GroundupError, match=file):
        groundup.load_model(chat)
