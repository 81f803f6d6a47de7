"""The engine at its edges: prompts of odd lengths, models that change, errors, and small tools."""

from collections import deque
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from conftest import model_of
from groundup.errors import GenerationError
from groundup.generation.engine import Engine
from groundup.generation.settings import SamplingSettings
from groundup.generation.texts import Request, Written
from groundup.models.config import GPTConfig
from groundup.models.registry import Model
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.verification.random_models import perturbed

GREEDY = SamplingSettings(length=5, temperature=0.0)


def made(architecture: str, **shape: int) -> Model:
    """A random model; the piece of its engine is 8 tokens."""
    torch.manual_seed(0)
    sizes = {"block_size": 32, "vocab_size": 13, "n_layer": 2, "n_head": 2, "n_embd": 16} | shape
    return perturbed(model_of(architecture, GPTConfig(**sizes)))


def written(request: Request) -> list[list[int | None]]:
    return [[each.token for each in choice] for choice in request.choices]


def steps_until_done(engine: Engine, most: int = 100) -> int:
    """Make steps, but not for ever."""
    return next(number for number in range(most) if not engine.step())


def test_choices_go_on_when_one_token_is_left_of_the_last_piece():
    """The prompt's last token is read by a step that writes, with others or after a hit."""
    model = made("gpt2")
    for length in (8, 9, 10, 17):
        prompt = [number % 13 for number in range(length)]
        engine = Engine(model, slots=4)
        for _ in range(2):
            request = engine.submit(prompt, SamplingSettings(length=5, seed=3), 3)
            steps_until_done(engine)
            alone = [
                written(Engine(model).submit(prompt, request.settings, first_choice=number))[0]
                for number in range(3)
            ]
            assert written(request) == alone


def logprobs(engine: Engine, prompt: list[int]) -> list[float]:
    request = engine.submit(prompt, replace(GREEDY, ignore_ends=True), logprobs=1)
    return [each.score.logprob for each in request if each.score]


PROMPT = [number % 13 for number in range(12)]


def test_a_modern_model_in_bfloat16_has_whole_rotations():
    """Its own tables are rounded; the C++ reads float32. A prompt's piece may be rounded too."""
    model = made("modern", block_size=64).to(torch.bfloat16)
    found = logprobs(Engine(model), PROMPT[:1])
    expected = logprobs(Engine(deepcopy(model).float()), PROMPT[:1])
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_model_may_move_while_an_engine_has_it():
    model = made("modern")
    engine = Engine(model)
    before = logprobs(engine, PROMPT)
    model.double()
    assert logprobs(engine, PROMPT) == before


def test_autocast_does_not_reach_the_kernels():
    engine = Engine(made("gpt2"))
    prompt = PROMPT[:7]
    expected = logprobs(engine, prompt)
    with torch.autocast("cpu", torch.bfloat16):
        assert logprobs(engine, prompt) == pytest.approx(expected, abs=0.1)


def test_what_a_slot_never_held_is_no_nan():
    """A text beside a longer one multiplies it by a weight of 0."""
    slots = Engine(made("gpt2"), slots=3).writer.slots
    assert slots is not None
    assert not slots.memory.any()


TOKENIZER = CharacterTokenizer("abcdef")  # of fewer tokens than the models have


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prompt": [1, 12]}, "token 12 of the prompt is none of the model's 6"),
        (
            {"settings": SamplingSettings(logit_bias=((6, 1.0),))},
            "token 6 of logit_bias is none of the model's 6",
        ),
        ({"logprobs": -1}, "logprobs = -1 must be a number of tokens, from 0"),
    ],
)
def test_what_would_end_all_texts_by_an_error_is_refused(asked: dict[str, Any], said: str):
    engine = Engine(made("gpt2"), TOKENIZER)
    with pytest.raises(GenerationError, match=said):
        engine.submit(**{"prompt": [1, 2]} | asked)


def test_prompts_and_texts_are_scored_by_the_same_logits():
    """Those of all outputs, as everybody scores, but only tokens that there are are listed."""
    for architecture in ("bigram", "readable", "gpt2", "modern"):
        model, prompt = made(architecture), [1, 2, 3, 4, 5]
        request = Engine(model, TOKENIZER).submit(
            prompt, SamplingSettings(length=3), 2, logprobs=6, prompt_logprobs=True, first_choice=1
        )
        scores = [each.score for each in request if each.score]
        text = [*prompt, *(each.token for each in scores)]
        with torch.no_grad():
            logits = model.logits(model.hidden(torch.tensor([text])))[0]
        expected = logits.double().log_softmax(-1)[range(len(text) - 1), text[1:]].tolist()
        found = [*request.prompt_scores, *scores]
        assert [each.logprob for each in found] == pytest.approx(expected, abs=1e-5)
        assert all(sorted(token for token, _ in each.top) == [*range(6)] for each in found)


def test_an_error_while_a_text_gets_its_slot_loses_no_slot(monkeypatch: pytest.MonkeyPatch):
    engine = Engine(made("gpt2"), slots=3)
    prompt = [number % 13 for number in range(20)]
    first = engine.submit(prompt, SamplingSettings(length=12))
    next(iter(first))  # it stays, so that others must copy what it has read
    with monkeypatch.context() as patch:
        patch.setattr(engine.writer, "copy", lambda *_: 1 // 0)
        request = engine.submit(prompt, GREEDY, 2)
        with pytest.raises(ZeroDivisionError):
            engine.step()
    steps_until_done(engine)
    assert all(choice.finish for choice in (*request.choices, *first.choices))
    assert engine.pool.free == 3


def test_the_last_text_is_there_before_the_end_is_said():
    """Another thread that iterates over it takes what is there, and stops where it has ended."""
    engine = Engine(made("gpt2"), TOKENIZER)
    stops = ("aaaaaaa", "bbbbbbb", "cccccccc", "d" * 9)
    choice = engine.submit("a", replace(GREEDY, stop=stops)).choices[0]

    class Events(deque[Written]):
        def append(self, item: Written, /) -> None:
            assert not choice.finish
            super().append(item)

    choice._events = Events()
    assert any(each.token is None for each in choice)


def test_a_head_has_the_same_alignment_in_every_slot():
    """By torch's attention, a text of a head_dim such as 6 had other last bits in another slot."""
    for dtype in (torch.float32, torch.float16):
        engine = Engine(made("gpt2", n_embd=12).to(dtype), slots=3, room=13)
        slots = engine.writer.slots
        assert slots is not None
        places = [head.data_ptr() for slot in slots.memory[1, 1] for head in slot]
        assert len(places) == 6
        assert all(place % 64 == 0 for place in places)


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "bigram", "readable"])
def test_weights_that_change_under_an_engine_are_noticed(architecture: str):
    """Some of them are copied, and texts that were read are kept."""
    model = made(architecture)
    engine = Engine(model)
    list(engine.submit([1, 2], GREEDY))
    with torch.no_grad():
        next(reversed(list(model.parameters()))).add_(1)
    with pytest.raises(GenerationError, match=r"weights have changed .* make another engine"):
        engine.submit([1, 2], GREEDY)
    list(Engine(model).submit([1, 2], GREEDY))


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "bigram", "readable"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_gives_no_numbers_writes_nothing(architecture: str, temperature: float):
    model = made(architecture)
    with torch.no_grad():
        for weight in model.parameters():
            weight[..., 0] = torch.nan
    engine = Engine(model)
    with pytest.raises(GenerationError, match="no finite numbers"):
        list(engine.submit([1, 2], replace(GREEDY, temperature=temperature)))
    assert engine.pool.free == engine.pool.slots


def test_what_is_no_token_is_refused():
    engine = Engine(made("gpt2"))
    prompts: list[Any] = [[1.7, 2.9], ["1"], [None], torch.tensor([1.0])]
    for prompt in prompts:
        with pytest.raises(GenerationError, match="no whole number"):
            engine.submit(prompt, GREEDY)
    asked: Any = {"logprobs": 1.5}
    with pytest.raises(GenerationError, match=r"logprobs = 1\.5 must be a whole number"):
        engine.submit([1], GREEDY, **asked)
    with pytest.raises(GenerationError, match="piece = -5"):
        Engine(made("gpt2"), piece=-5)
    given: Any = torch.tensor([1, 2])
    assert written(engine.submit(given, GREEDY)) == written(engine.submit([1, 2], GREEDY))


def test_who_leaves_the_queue_waits_no_more():
    engine = Engine(made("gpt2"), slots=1)
    first, second = engine.submit([1], GREEDY), engine.submit([2], GREEDY)
    engine.step()
    assert engine.waiting == 1
    engine.cancel(second)
    assert engine.waiting == 0
    engine.cancel(first)
    assert (engine.running, engine.waiting, engine.pool.free) == (0, 0, 1)
