"""The engine against `model.generate`, its oracle, and against the rules that a user can see."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import model_of, perturb
from groundup import Bigram, CharacterTokenizer, GPTConfig, ReadableGPT
from groundup.console import messages_to
from groundup.errors import GenerationError, TokenizerError
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import (
    encode_prompt,
    fit_prompt,
    stream_text,
    stream_tokens,
    write_text,
)
from groundup.models.gpt2 import GPT2
from groundup.models.sampling import next_token, uniforms_of
from groundup.tokenizers.base import END_OF_TEXT
from groundup.tokenizers.train import learn_tokenizer

CONFIG = GPTConfig(block_size=8, vocab_size=11, n_layer=2, n_head=2, n_embd=8, dropout=0.3)
TOKENIZER = CharacterTokenizer("\n abcdefghi")


def made(model_class: Callable[[GPTConfig], Any]) -> Any:
    """A model that prefers some tokens, in evaluation mode."""
    torch.manual_seed(0)
    model = model_class(CONFIG)
    perturb(model, scale=0.5)
    return model.eval()


def made_modern() -> Any:
    """The same of the modern model, with heads that share keys and values."""
    model = model_of("modern", CONFIG)
    perturb(model, scale=0.5)
    return model.eval()


MODELS = {model_class.__name__: made(model_class) for model_class in (Bigram, ReadableGPT, GPT2)}
MODELS["Modern"] = made_modern()


@st.composite
def chosen_settings(draw: st.DrawFn) -> SamplingSettings:
    """Settings of every kind, for 20 tokens."""
    return SamplingSettings(
        length=20,
        temperature=draw(st.sampled_from([0.0, 0.1, 0.8, 2.0])),
        top_k=draw(st.sampled_from([0, 1, 3, 11, 1000])),
        top_p=draw(st.sampled_from([1e-9, 0.5, 0.9, 1.0])),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


def generated(model: Any, prompt: list[int], chosen: SamplingSettings) -> list[int]:
    """The same by the model's own loop."""
    limits = {"temperature": chosen.temperature, "top_k": chosen.top_k, "top_p": chosen.top_p}
    uniforms = uniforms_of(chosen.seed, 0, chosen.length)
    found = model.generate(torch.tensor([prompt]), chosen.length, uniforms=uniforms, **limits)
    return found[0].tolist()


PROMPTS = st.lists(st.integers(0, 10), min_size=1, max_size=12)


@pytest.mark.parametrize("name", list(MODELS))
@given(prompt=PROMPTS, chosen=chosen_settings())
@settings(max_examples=25, deadline=None)
def test_the_engine_writes_what_the_model_generates(
    name: str, prompt: list[int], chosen: SamplingSettings
):
    written = [*prompt, *stream_tokens(MODELS[name], torch.tensor([prompt]), chosen)]
    assert written == generated(MODELS[name], prompt, chosen)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 4, 1.0), (1.5, 0, 0.7), (2.0, 6, 0.8)]
)
def test_the_readable_model_draws_with_the_engines_probabilities(
    temperature: float, top_k: int, top_p: float
):
    """It draws by its own hand, in other random numbers: what can be compared is how often each
    token comes.
    """
    model, draws = MODELS["ReadableGPT"], 20_000
    prompt = torch.tensor([[3, 1, 4]])
    limits: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    drawn = model.generate(
        prompt.expand(draws, -1), 1, generator=torch.Generator().manual_seed(1), **limits
    )[:, -1]
    logits = model(prompt)[0][:, -1].expand(draws, -1)
    # as many as there are, each once: no chance
    evenly = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    expected = next_token(logits, evenly, **limits).bincount(minlength=11) / draws
    found = drawn.bincount(minlength=11) / draws
    assert torch.equal(found > 0, expected > 0)
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((found - expected).abs() <= 4 * deviation + 1e-4).all()


def test_a_seed_is_a_text():
    model, chosen = MODELS["GPT2"], SamplingSettings(length=60, seed=5)
    texts = [write_text(model, TOKENIZER, replace(chosen, seed=seed), "ab") for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 60


def test_greedy_is_the_most_probable_at_each_place():
    model = MODELS["GPT2"]
    context = encode_prompt("ab", TOKENIZER)
    for token in stream_tokens(
        model, context, SamplingSettings(length=30, temperature=0.0, seed=1)
    ):
        logits, _ = model(context[:, -8:])
        assert token == int(logits[0, -1].argmax())
        context = torch.cat([context, torch.tensor([[token]])], dim=1)


def test_one_token_of_top_k_or_top_p_is_greedy():
    model, greedy = MODELS["GPT2"], SamplingSettings(length=30, temperature=0.0)
    expected = write_text(model, TOKENIZER, greedy, "ab")
    assert (
        write_text(model, TOKENIZER, SamplingSettings(length=30, temperature=2.0, top_k=1), "ab")
        == expected
    )
    assert (
        write_text(
            model, TOKENIZER, SamplingSettings(length=30, temperature=2.0, top_p=1e-12), "ab"
        )
        == expected
    )
    assert (
        write_text(model, TOKENIZER, SamplingSettings(length=30, temperature=1e-9), "ab")
        == expected
    )


def test_more_than_the_vocabulary_is_all_of_it():
    model, all_of_it = MODELS["GPT2"], SamplingSettings(length=30, seed=3)
    assert write_text(model, TOKENIZER, replace(all_of_it, top_k=10**9), "a") == write_text(
        model, TOKENIZER, all_of_it, "a"
    )


def test_pieces_come_as_they_are_made():
    model, passes = MODELS["GPT2"], []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    watched = model.transformer.register_forward_hook(lambda *_: passes.append(1))
    try:
        pieces = stream_text(
            model, TOKENIZER, encode_prompt("a", TOKENIZER), SamplingSettings(length=5)
        )
        assert passes == []
        for number, piece in enumerate(pieces, 1):
            assert len(piece) == 1
            assert len(passes) == number
    finally:
        handle.remove()
        watched.remove()


@pytest.mark.parametrize("name", ["GPT2", "Modern"])
def test_a_token_is_read_once_until_the_context_is_full(name: str):
    """The prompt, then token by token; a full context leaves its newest half, which is read again
    with the token that didn't fit.
    """
    model, lengths = MODELS[name], []
    part = model.transformer if name == "GPT2" else model.model
    handle = part.register_forward_hook(
        lambda _module, inputs, _output: lengths.append(inputs[0].size(1))
    )
    try:
        list(stream_tokens(model, torch.tensor([[1, 2, 3]]), SamplingSettings(length=13, seed=1)))
    finally:
        handle.remove()
    assert lengths == [3, 1, 1, 1, 1, 1, 5, 1, 1, 1, 5, 1, 1]


def test_writing_leaves_the_model_and_the_generators_as_they_were():
    model = made(GPT2).train()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    writing = stream_text(
        model, TOKENIZER, encode_prompt("a", TOKENIZER), SamplingSettings(length=5, seed=1)
    )
    first = next(writing)
    writing.close()  # stopped in the middle, as by Ctrl-C
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert first == write_text(model.eval(), TOKENIZER, SamplingSettings(length=1, seed=1), "a")


def test_an_empty_prompt_begins_as_a_line_does():
    assert encode_prompt("", TOKENIZER).tolist() == [[TOKENIZER.encode("\n")[0]]]
    assert encode_prompt("", CharacterTokenizer("xyz")).tolist() == [[0]]


def test_a_document_begins_and_ends_with_its_token():
    """A model whose every next token is known: x after end-of-text, then y, then
    end-of-text again.
    """
    tokenizer = learn_tokenizer(["x"], 257)
    end = tokenizer.special_tokens[END_OF_TEXT]
    model = Bigram(GPTConfig(block_size=8, vocab_size=257, n_layer=1, n_head=1, n_embd=8))
    x, y, newline = tokenizer.encode("xy\n").tolist()
    with torch.no_grad():
        model.head.weight.zero_()
        for token, following in ((end, x), (x, y), (y, end), (newline, y)):
            model.head.weight[following, token] = 100.0
    greedy = SamplingSettings(length=20, temperature=0.0)
    assert encode_prompt("", tokenizer, end).tolist() == [[end]]
    assert encode_prompt("x", tokenizer, end).tolist() == [[x]]
    assert write_text(model, tokenizer, greedy, document_start=end) == "xy"
    assert write_text(model, tokenizer, greedy) == "y"  # as after a new line
    assert write_text(model, tokenizer, greedy, "y", document_start=end) == ""
    assert list(stream_tokens(model, torch.tensor([[end]]), greedy))[:4] == [x, y, end, x]
    assert list(stream_tokens(model, torch.tensor([[end]]), greedy, ends=frozenset({end}))) == [
        x,
        y,
    ]


def test_an_unknown_character_is_named_with_its_position():
    with pytest.raises(TokenizerError, match=r"'é' \(U\+00E9\) at position 3 "):
        encode_prompt("abcé", TOKENIZER)


@given(st.integers(1, 30), st.integers(1, 30))
def test_a_long_prompt_keeps_its_end(length: int, block_size: int):
    tokens, said = torch.arange(length)[None], []
    with messages_to(said.append):
        kept = fit_prompt(tokens, block_size, strict=False)
    assert kept.tolist() == [list(range(length))[-block_size:]]
    if length <= block_size:
        assert said == []
        assert torch.equal(fit_prompt(tokens, block_size, strict=True), tokens)
        return
    assert len(said) == 1
    assert f"{length} tokens" in said[0]
    assert f"newest {block_size}" in said[0]
    with pytest.raises(
        GenerationError, match=f"{length} tokens, but the model's context is {block_size}"
    ):
        fit_prompt(tokens, block_size, strict=True)
