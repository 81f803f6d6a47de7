"""llama.cpp itself reads what we export: the same tokens for a text, and the same greedy tokens
after it.
"""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import TRICKY, model_for, saved, tokenizer_of

from commands import groundup
from conftest import some_text
from groundup.export.gguf import export_gguf
from groundup.models.gpt2 import GPT2
from groundup.models.registry import Model
from groundup.tokenizers import BytePairTokenizer, Tokenizer, load_tokenizer

pytestmark = pytest.mark.peers

GREEDY = {
    "temperature": 0.0,
    "samplers": ["top_k"],
    "top_k": 1,
    "cache_prompt": False,
    "return_tokens": True,
}


# llama.cpp looks GELU up in a table of f16: where two logits are closer, either may be the larger
CLEAR = 0.02


class LlamaCpp:
    """llama.cpp's own server with one model."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **question: object) -> Any:
        request = urllib.request.Request(
            self.address + path, json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=60
        ) as answer:
            return json.load(answer)

    def encode(self, text: str) -> list[int]:
        """A prompt's tokens, with whatever llama.cpp puts before it."""
        return self.ask("/tokenize", content=text, add_special=True, parse_special=False)["tokens"]

    def decode(self, tokens: list[int]) -> str:
        return self.ask("/detokenize", tokens=tokens)["content"]

    def write(self, prompt: str | list[int], length: int) -> list[int]:
        """The greedy tokens after a prompt, until llama.cpp stops by itself or at `length`."""
        return self.ask("/completion", prompt=prompt, n_predict=length, **GREEDY)["tokens"]


@contextmanager
def llama_cpp(path: Path) -> Iterator[LlamaCpp]:
    """The model in llama.cpp, whose cache of keys and values is f16 unless it is told otherwise."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 64, 1, False, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    try:
        yield LlamaCpp(server.listening_address)
    finally:
        del server


def greedy(model: Model, prompt: list[int], length: int) -> tuple[list[int], float]:
    """The greedy tokens after a prompt, and by how much the most probable one's logit led where
    that was closest.
    """
    tokens = model.generate(torch.tensor([prompt]), length, temperature=0.0)
    with torch.no_grad():
        first, second = model(tokens[:, :-1])[0][0, len(prompt) - 1 :].topk(2).values.unbind(-1)
    return tokens[0, len(prompt) :].tolist(), (first - second).min().item()


@pytest.mark.parametrize("architecture", ["gpt2", "readable", "modern"])
@pytest.mark.parametrize(("kind", "padding"), [("characters", 0), ("pairs", 0), ("pairs", 5)])
def test_the_same_tokens_and_the_same_32_greedy_ones(
    architecture: str, kind: str, padding: int, tmp_path: Path
):
    model, tokenizer = saved(tmp_path / "model", architecture, kind, padding=padding)
    finished = groundup("export", "model", "--to", "gguf", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    ends = set(tokenizer.special_tokens.values())
    with llama_cpp(tmp_path / "model-f32.gguf") as peer:
        for text in ("the quick ", "čtyři žluté — 中文", TRICKY[:30], some_text()[:20]):
            tokens = tokenizer.encode(text).tolist()
            assert peer.encode(text) == tokens
            assert peer.decode(tokens) == text
        compared = 0
        for start in range(0, 600, 30):
            prompt = tokenizer.encode(some_text()[start : start + 30]).tolist()[:30]
            expected, margin = greedy(model, prompt, 32)
            if margin > CLEAR and len(set(expected)) > 4 and not ends & set(expected):
                assert peer.write(prompt, 32) == expected
                compared += 1
        assert compared >= 2, "too few of these texts are clear, varied and without an end"


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_smaller_types_are_read_too(architecture: str, kind: str, tmp_path: Path):
    model, tokenizer = saved(tmp_path / "model", architecture, "characters")
    export_gguf(model, tokenizer, tmp_path / "small.gguf", kind, "small")
    prompt = tokenizer.encode("the quick ")
    expected = model.generate(torch.tensor([prompt.tolist()]), 1, temperature=0.0)[0, -1].item()
    with llama_cpp(tmp_path / "small.gguf") as peer:
        assert peer.write(prompt.tolist(), 1) == [expected]


def always(token: int, tokenizer: Tokenizer) -> GPT2:
    """A model that writes one token for ever, whatever it reads."""
    model = model_for("gpt2", tokenizer)
    assert isinstance(model, GPT2)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(10.0)
        model.head.weight[token] = 10.0
    return model


@pytest.mark.parametrize("token", [0, 1, 2, 11])
def test_no_character_ends_a_text(token: int, tmp_path: Path):
    """Not even those that llama.cpp holds for special tokens where a file names none."""
    tokenizer = tokenizer_of("characters")
    export_gguf(always(token, tokenizer), tokenizer, tmp_path / "x.gguf", "f32", "x")
    with llama_cpp(tmp_path / "x.gguf") as peer:
        assert peer.write([5, 6], 8) == [token] * 8


def test_end_of_text_ends_a_text_and_token_11_does_not(tmp_path: Path):
    tokenizer = tokenizer_of("pairs")
    end = tokenizer.special_tokens["<|endoftext|>"]
    for token, expected in ((end, [end]), (11, [11] * 8)):
        export_gguf(always(token, tokenizer), tokenizer, tmp_path / f"{token}.gguf", "f32", "x")
        with llama_cpp(tmp_path / f"{token}.gguf") as peer:
            assert peer.write([5, 6], 8) == expected


def test_gpt2s_own_tokenizer_gives_the_same_ids(tmp_path: Path):
    tokenizer = load_tokenizer("gpt2")
    assert isinstance(tokenizer, BytePairTokenizer)
    model = model_for("gpt2", tokenizer, n_embd=8)
    export_gguf(model, tokenizer, tmp_path / "x.gguf", "f32", "x")
    texts = [
        TRICKY,
        some_text(),
        "It's  3.14159 o'clock;\n\n\tdef f(x):\n        return x  ",
        "<|endoftext|>",
        "ｆｕｌｌ １２",
    ]
    with llama_cpp(tmp_path / "x.gguf") as peer:
        for text in texts:
            assert peer.encode(text) == tokenizer.encode(text).tolist(), text
            assert peer.decode(tokenizer.encode(text).tolist()) == text
