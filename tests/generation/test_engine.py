"""The engine: each text as the plain loop writes it, and to the last bit as it would be alone."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import model_of, perturb
from groundup import CharacterTokenizer, Engine, GPTConfig, Precision, SamplingSettings
from groundup.errors import GenerationError
from groundup.generation.texts import Choice, Request, Scored, Written
from groundup.models.registry import Model
from groundup.models.sampling import uniforms_of

# widths that are no multiple of a vector, heads that share keys and values, an odd vocabulary
CONFIG = GPTConfig(block_size=24, vocab_size=31, n_layer=2, n_head=6, n_embd=36, dropout=0.3)
LETTERS = CharacterTokenizer("abcdefghijklmnopqrstuvwxyz .,;\n")
BY_TORCH, BY_KERNELS = Precision(compile="off"), Precision(compile="on")
INT8 = Precision(quantize="int8")
# of a prompt: what makes it, and its length
LONG = ((1, 150), (2, 1), (1, 230), (3, 390), (1, 399), (5, 101), (1, 201))
CLEAR = 1e-3  # logits that are further apart than this have one order on both paths


def made(architecture: str) -> Model:
    """A model that prefers some tokens."""
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG)
    perturb(model, scale=0.3)
    return model.eval()


MODELS = {name: made(name) for name in ("bigram", "readable", "gpt2", "modern")}
PROMPTS = st.lists(st.integers(0, 30), min_size=1, max_size=40)


def greedy(length: int) -> SamplingSettings:
    return SamplingSettings(length=length, temperature=0.0)


def mixed(number: int) -> SamplingSettings:
    """Settings of many kinds, by number."""
    return SamplingSettings(
        length=5 + 7 * number % 50,
        temperature=(0.0, 0.7, 1.0, 1.5)[number % 4],
        top_k=(0, 0, 5)[number % 3],
        top_p=(1.0, 0.9)[number % 2],
        min_p=(0.0, 0.0, 0.02)[number % 3],
        repetition_penalty=(1.0, 1.2)[number % 5 == 0],
        presence_penalty=(0.0, 0.5)[number % 7 == 0],
        logit_bias=((number % 31, 1.5),) if number % 4 == 0 else (),
        seed=number,
    )


def prompt_of(number: int) -> list[int]:
    """Prompts of 1 to 30 tokens, of which many begin alike."""
    return [
        (7 * place + (number % 3 if place > 12 else 0)) % 31 for place in range(1 + number % 30)
    ]


def everything(choice: Choice) -> list[Written]:
    return list(choice)


def alone(model: Model, precision: Precision, number: int) -> list[Written]:
    engine = Engine(model, slots=1, precision=precision)
    return list(engine.submit(prompt_of(number), mixed(number), logprobs=3))


def plain(model: Model, prompt: Sequence[int], chosen: SamplingSettings, choice: int = 0) -> Any:
    """The tokens of the model's own loop, and by how much the two best logits differ at each."""
    limits = {"temperature": chosen.temperature, "top_k": chosen.top_k, "top_p": chosen.top_p}
    uniforms = uniforms_of(chosen.seed, choice, chosen.length)
    found = model.generate(torch.tensor([prompt]), chosen.length, uniforms=uniforms, **limits)
    return found[0, len(prompt) :].tolist()


def tokens_of(request: Request | Choice) -> list[int]:
    return [written.token for written in request if written.token is not None]


@pytest.mark.parametrize("name", list(MODELS))
@given(prompt=PROMPTS, seed=st.integers(0, 2**63 - 1), temperature=st.sampled_from([0.0, 0.8]))
@settings(max_examples=15, deadline=None)
def test_in_float64_it_is_the_plain_loop(
    name: str, prompt: list[int], seed: int, temperature: float
):
    model = made(name).double()
    chosen = SamplingSettings(length=60, temperature=temperature, seed=seed)
    engine = Engine(model, slots=2)
    assert tokens_of(engine.submit(prompt, chosen)) == plain(model, prompt, chosen)


@pytest.mark.parametrize("precision", [BY_TORCH, BY_KERNELS], ids=["torch", "kernels"])
@pytest.mark.parametrize("name", ["readable", "gpt2", "modern"])
@given(prompt=PROMPTS)
@settings(max_examples=10, deadline=None)
def test_in_float32_it_is_the_plain_loop_where_that_is_sure(
    name: str, precision: Precision, prompt: list[int]
):
    """Past the context, too: logits are close, and greedy tokens are equal if nothing is."""
    model, length = MODELS[name], 60
    engine = Engine(model, slots=1, precision=precision)
    found = [w for w in engine.submit(prompt, greedy(length), logprobs=2) if w.token is not None]
    kept = prompt[-24:]
    for written in found:
        assert written.score is not None
        context = kept[-24:] if len(kept) <= 24 else kept[12 * -(-(len(kept) - 24) // 12) :]
        logprobs = model(torch.tensor([context]))[0][0, -1].double().log_softmax(-1)
        first, second = logprobs.topk(2).values.tolist()
        assert written.score.logprob == pytest.approx(first, abs=1e-4)
        assert [value for _, value in written.score.top] == pytest.approx([first, second], abs=1e-4)
        if first - second > CLEAR:
            assert written.token == int(logprobs.argmax())
        kept = [*kept, written.token or 0]


@pytest.mark.parametrize("precision", [BY_TORCH, BY_KERNELS, INT8], ids=["torch", "c++", "int8"])
@pytest.mark.parametrize("name", ["gpt2", "modern", "readable"])
def test_a_text_is_the_same_in_any_company(name: str, precision: Precision):
    """32 requests that come one after the other, of which half are cancelled on the way."""
    model = MODELS[name]
    engine = Engine(model, slots=5, precision=precision)
    requests: list[Request] = []
    for number in range(32):
        requests.append(engine.submit(prompt_of(number), mixed(number), logprobs=3))
        for _ in range(number % 4):
            engine.step()
        if number % 2:
            engine.cancel(requests[number])
    while engine.step():
        pass
    for number in range(0, 32, 2):
        assert everything(requests[number].choices[0]) == alone(model, precision, number)
    for number in range(1, 32, 2):
        assert requests[number].choices[0].finish in ("cancelled", "length")
    assert engine.pool.free == 5


@pytest.mark.parametrize("precision", [BY_TORCH, BY_KERNELS, INT8], ids=["torch", "c++", "int8"])
@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_long_pieces_are_read_as_if_alone(name: str, precision: Precision):
    """Pieces of 100 tokens are multiplied by torch; some texts begin alike, some move on."""
    torch.manual_seed(0)
    model = model_of(name, replace(CONFIG, block_size=400)).eval()
    perturb(model, scale=0.1)
    chosen = SamplingSettings(length=40, temperature=0.9, seed=1)
    prompts = [[(number * place) % 31 for place in range(length)] for number, length in LONG]
    engine = Engine(model, slots=3, precision=precision)
    together = [engine.submit(prompt, chosen, logprobs=0) for prompt in prompts]
    while engine.step():
        pass
    for prompt, request in zip(prompts, together, strict=True):
        one = Engine(model, slots=1, precision=precision)
        assert list(request) == list(one.submit(prompt, chosen, logprobs=0))


def test_threads_change_no_bit_of_a_step():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(alone(MODELS["modern"], BY_KERNELS, 30))  # a prompt of one token
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_a_beginning_is_read_once(name: str):
    engine = Engine(MODELS[name], slots=2, precision=BY_KERNELS)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6] * 2  # two pieces of 8
    expected = tokens_of(engine.submit([*prompt, 7], greedy(4)))
    cold = engine.passes
    assert tokens_of(engine.submit([*prompt, 7], greedy(4))) == expected
    assert engine.passes - cold == cold - 2
    # it is copied while its slot is in use
    running = engine.submit([*prompt, 7], greedy(6))
    engine.step()
    before = engine.passes
    other = engine.submit([*prompt, 8], greedy(1), logprobs=1)
    engine.step()
    assert engine.passes == before + 1
    assert list(other) == list(
        Engine(MODELS[name], slots=1, precision=BY_KERNELS).submit(
            [*prompt, 8], greedy(1), logprobs=1
        )
    )
    assert tokens_of(running)[:4] == expected


def test_several_choices_cost_one_reading_and_are_the_plain_loops():
    model, chosen = MODELS["gpt2"], SamplingSettings(length=30, temperature=0.9, seed=4)
    prompt = [*range(20)]
    engine = Engine(model, slots=4, precision=BY_KERNELS)
    request = engine.submit(prompt, chosen, 4)
    while not request.choices[0].tokens:
        engine.step()
    assert all(choice.tokens for choice in request.choices)
    assert engine.passes == 3 + 1  # pieces, and a step of all four
    for choice in reversed(request.choices):
        assert tokens_of(choice) == plain(model, prompt, chosen, choice.number)


@pytest.mark.parametrize("steps", range(6))
def test_who_reads_for_others_can_be_cancelled(steps: int):
    model, chosen = MODELS["modern"], SamplingSettings(length=9, seed=4)
    engine = Engine(model, slots=3, precision=BY_KERNELS)
    request = engine.submit([*range(22)], chosen, 3)
    for _ in range(steps):
        engine.step()
    engine.cancel(request.choices[0])
    for choice in request.choices[1:]:
        assert tokens_of(choice) == plain(model, [*range(22)], chosen, choice.number)
    assert engine.pool.free == 3


def test_short_texts_overtake_a_long_one():
    engine = Engine(MODELS["gpt2"], slots=9, precision=BY_KERNELS)
    long = engine.submit([1, 2, 3], SamplingSettings(length=256))
    tokens = iter(long)
    next(tokens)
    short = [engine.submit([5, number], SamplingSettings(length=8)) for number in range(8)]
    while not all(request.choices[0].finish for request in short):
        engine.step()
    assert len(long.choices[0].tokens) < 20
    list(tokens)
    # 256 tokens and the pieces of 9 prompts and of 20 windows of 13 tokens
    assert engine.passes <= 1.1 * 256 + 9 + 20 * 2


def test_a_long_prompt_lets_others_write_between_its_pieces():
    engine = Engine(MODELS["gpt2"], slots=2, precision=BY_KERNELS)
    running = engine.submit([1], SamplingSettings(length=12))
    engine.step()
    engine.submit([*range(24)], SamplingSettings(length=1))  # three pieces
    for expected in (2, 3, 4):
        engine.step()
        assert len(running.choices[0].tokens) == expected


@pytest.mark.parametrize("precision", [BY_TORCH, BY_KERNELS], ids=["torch", "kernels"])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_prompts_tokens_have_the_models_log_probabilities(name: str, precision: Precision):
    if name == "bigram":
        precision = BY_TORCH
    model, prompt = MODELS[name], [(5 * place) % 31 for place in range(22)]
    engine = Engine(model, slots=2, precision=precision)
    list(engine.submit(prompt, greedy(1)))  # a beginning that is held must not hide them
    request = engine.submit(prompt, greedy(1), 2, logprobs=2, prompt_logprobs=True)
    list(request)
    logprobs = model(torch.tensor([prompt]))[0][0].double().log_softmax(-1)
    assert [score.token for score in request.prompt_scores] == prompt[1:]
    for place, score in enumerate(request.prompt_scores):
        assert score.logprob == pytest.approx(logprobs[place, prompt[place + 1]].item(), abs=1e-4)
        values, numbers = logprobs[place].topk(2)
        assert [number for number, _ in score.top] == numbers.tolist()
        assert [value for _, value in score.top] == pytest.approx(values.tolist(), abs=1e-4)


def test_log_probabilities_are_the_models_own():
    """Whatever the settings do to the logits."""
    chosen = SamplingSettings(
        length=9, temperature=1.9, top_k=3, repetition_penalty=1.5, logit_bias=((4, 9.0),), seed=2
    )
    model = MODELS["gpt2"]
    tokens, kept = Engine(model, precision=BY_TORCH).submit([1, 2], chosen, logprobs=0), [1, 2]
    for written in tokens:
        assert written.token is not None
        logprobs = model(torch.tensor([kept]))[0][0, -1].double().log_softmax(-1)
        expected = logprobs[written.token].item()
        assert written.score == Scored(written.token, pytest.approx(expected, abs=1e-5), ())
        kept.append(written.token)


def test_penalties_and_bias_count_as_the_interface_says():
    """Repetition counts the whole text, even what the context has dropped; the others count what
    was written.
    """
    model, prompt = MODELS["bigram"], [*range(30), 5]
    logits = model(torch.tensor([[5]]))[0][0, -1]
    best = int(logits.argmax())

    def first(**changed: Any) -> int:
        chosen = replace(greedy(1), **changed)
        return tokens_of(Engine(model).submit([*prompt[:-1], best, 5], chosen))[0]

    assert first() == first(presence_penalty=2.0, frequency_penalty=2.0) == best
    assert first(logit_bias=((best, -100.0),)) == int(logits.topk(2).indices[1])
    penalised = torch.where(logits > 0, logits / 50, logits * 50)
    penalised[30] = logits[30]  # the one token that the text lacks
    assert first(repetition_penalty=50.0) == int(penalised.argmax())


def test_a_text_ends_before_its_ends_and_its_stop_strings():
    model = MODELS["gpt2"]
    free = Engine(model, LETTERS, slots=1).submit("ab", SamplingSettings(length=40, seed=3))
    text = "".join(written.text for written in free)
    assert len(text) == 40
    stop = text[10:14]
    chosen = SamplingSettings(length=40, seed=3, stop=("never this", stop))
    engine = Engine(model, LETTERS, slots=1)
    stopped = engine.submit("ab", chosen)
    assert "".join(written.text for written in stopped) == text[: text.index(stop)]
    assert stopped.choices[0].finish == "stop"
    assert engine.pool.free == 1
    token = free.choices[0].tokens[7]
    ended = Engine(model, LETTERS, slots=1, ends=frozenset({token})).submit("ab", chosen)
    assert "".join(written.text for written in ended) == text[: text.index(LETTERS.decode([token]))]
    assert ended.choices[0].finish == "stop"
    ignoring = replace(chosen, ignore_ends=True, stop=())
    again = Engine(model, LETTERS, ends=frozenset({token})).submit("ab", ignoring)
    assert "".join(written.text for written in again) == text
    assert again.choices[0].finish == "length"


def test_tokens_without_a_text_are_never_written():
    torch.manual_seed(0)
    padded = model_of("gpt2", replace(CONFIG, vocab_size=64))
    tokens = tokens_of(Engine(padded, LETTERS).submit("a", SamplingSettings(length=300)))
    assert max(tokens) < LETTERS.vocab_size


@pytest.mark.parametrize(
    ("prompt", "more", "said"),
    [
        ([], {}, "the prompt is empty"),
        ([31], {}, "token 31 of the prompt is none of the model's 31"),
        ([-1], {}, "token -1 of the prompt is none of the model's 31"),
        ("a", {}, "without a tokenizer, a prompt must be tokens"),
        ([1], {"choices": 3}, "choices = 3 must be from 1 to 2, the slots of the engine"),
        ([1], {"choices": 0}, "choices = 0 must be from 1"),
        ([1], {"settings": greedy(10)}, "needs room for 11 tokens, but .* has room for 8"),
        ([*range(8)], {}, "needs room for 9 tokens, but .* has room for 8"),
        (
            [1],
            {"settings": SamplingSettings(length=1, logit_bias=((31, 1.0),))},
            "token 31 of logit_bias is none of the model's 31",
        ),
    ],
)
def test_what_can_never_be_written_is_refused(prompt: Any, more: dict[str, Any], said: str):
    engine = Engine(MODELS["gpt2"], slots=2, room=8)
    with pytest.raises(GenerationError, match=said):
        engine.submit(prompt, **{"settings": greedy(1)} | more)
    assert not engine.step()


def test_an_error_in_a_step_ends_its_texts_and_no_others(monkeypatch: pytest.MonkeyPatch):
    engine = Engine(MODELS["gpt2"], slots=2, precision=BY_KERNELS)
    expected = tokens_of(engine.submit([*range(18)], greedy(3)))
    failing, waiting = (engine.submit([*range(18)], greedy(3), 2) for _ in range(2))
    with monkeypatch.context() as broken:
        broken.setattr(engine.writer, "logits", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(failing)
    assert [choice.finish for choice in failing.choices] == ["error", "error"]
    with pytest.raises(GenerationError, match="an error ended a step"):
        list(failing)
    assert tokens_of(waiting) == expected
    assert engine.pool.free == 2
    assert waiting.choices[1].finish == "length"


def test_several_threads_may_wait():
    model = MODELS["gpt2"]
    engine = Engine(model, slots=3, precision=BY_KERNELS)
    found: dict[int, list[Written]] = {}

    def ask(number: int) -> None:
        found[number] = list(engine.submit(prompt_of(number), mixed(number), logprobs=3))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: alone(model, BY_KERNELS, number) for number in range(12)}


def test_a_model_in_training_writes_in_eval_mode_and_trains_on():
    model = made("gpt2").train()
    assert tokens_of(Engine(model, precision=BY_TORCH).submit([1, 2], greedy(9))) == plain(
        made("gpt2"), [1, 2], greedy(9)
    )
    assert model.training
    assert model.transformer.h[1].mlp.dropout.training
