"""Completions, as `openai` and plain HTTP see them: each as the engine writes it alone."""

import asyncio
import json
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from groundup import Engine, SamplingSettings, load
from groundup.generation.texts import Request
from serving.servers import CONFIG, LETTERS, Served, served, small_model

PROMPT = "the cat sat on "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("served") / "small")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model, "--max-streams", "8", "--max-waiting", "200") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    loaded, tokenizer = load(model)
    return Engine(loaded, tokenizer, slots=8)


def alone(engine: Engine, prompt: str | list[int], choices: int = 1, **settings: Any) -> Request:
    """What the engine writes, with nobody else; temperature 1 as the interface has it."""
    settings = {"temperature": 1.0, "seed": 1, "length": 8} | settings
    scores = settings.pop("scores", None), settings.pop("prompt_scores", False)
    request = engine.submit(
        prompt,
        SamplingSettings(**settings),
        choices,
        logprobs=scores[0],
        prompt_logprobs=scores[1],
    )
    while engine.step():
        pass
    return request


def text_of(request: Request, number: int = 0) -> str:
    return "".join(written.text for written in request.choices[number])


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object, model.owned_by) == ("small", "model", "groundup")
    assert model.model_dump()["max_model_len"] == 64
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'"):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        (
            {"temperature": 0.5, "seed": 7, "top_p": 0.9},
            {"temperature": 0.5, "seed": 7, "top_p": 0.9},
        ),
        (
            {"presence_penalty": 1.5, "frequency_penalty": 0.5, "logit_bias": {"3": 5}},
            {"presence_penalty": 1.5, "frequency_penalty": 0.5, "logit_bias": ((3, 5.0),)},
        ),
        (
            {"extra_body": {"top_k": 3, "min_p": 0.05, "repetition_penalty": 1.3}},
            {"top_k": 3, "min_p": 0.05, "repetition_penalty": 1.3},
        ),
        ({"extra_body": {"top_k": -1}, "max_tokens": 200}, {"length": 200}),
        ({"stop": ["a", "b"], "max_tokens": 60}, {"stop": ("a", "b"), "length": 60}),
    ],
)
def test_a_text_is_the_engines(
    client: openai.OpenAI, engine: Engine, asked: dict[str, Any], settings: dict[str, Any]
) -> None:
    given = {"model": "small", "prompt": PROMPT, "max_tokens": 8, "seed": 1} | asked
    request = alone(engine, PROMPT, **settings)
    found = client.completions.create(**given)
    expected = text_of(request)
    assert found.choices[0].text == expected
    assert found.choices[0].finish_reason == request.choices[0].finish
    assert found.usage is not None
    written = len(request.choices[0].tokens)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(PROMPT), written)
    stream = list(client.completions.create(**given, stream=True))
    assert "".join(each.choices[0].text for each in stream) == expected
    assert [each.choices[0].finish_reason for each in stream if each.choices[0].finish_reason] == [
        request.choices[0].finish
    ]
    assert stream[0].system_fingerprint == found.system_fingerprint
    assert "torch" in str(found.system_fingerprint)


def test_prompts_and_choices_are_numbered_in_order(client: openai.OpenAI, engine: Engine) -> None:
    tokens = LETTERS.encode("a dog").tolist()
    prompts: list[Any] = [[*LETTERS.encode(PROMPT).tolist()], tokens, [4]]
    found = client.completions.create(model="small", prompt=prompts, n=2, seed=5, max_tokens=6)
    assert [choice.index for choice in found.choices] == list(range(6))
    expected = [
        text_of(alone(engine, prompt, 2, seed=5, length=6), number)
        for prompt in prompts
        for number in range(2)
    ]
    assert [choice.text for choice in found.choices] == expected
    assert client.completions.create(
        model="small", prompt=["a dog", "b"], seed=5, max_tokens=6
    ).choices[0].text == text_of(alone(engine, tokens, seed=5, length=6))


def test_log_probabilities_of_a_prompt_and_a_text_are_the_models(
    client: openai.OpenAI, model: Path
) -> None:
    """By a forward pass of the model itself, of the whole text at once."""
    for _ in range(2):  # a beginning that is kept has no scores to give
        found = client.completions.create(
            model="small", prompt=PROMPT, echo=True, logprobs=3, max_tokens=5, temperature=0
        )
        (choice,) = found.choices
        assert choice.text.startswith(PROMPT)
        ids = LETTERS.encode(choice.text)
        live, _ = load(model)
        with torch.inference_mode():
            logits, _ = live(torch.from_numpy(ids)[None])
        scores = logits[0].log_softmax(-1)
        listed = choice.logprobs
        assert listed is not None
        assert listed.tokens == list(choice.text)
        assert listed.text_offset == list(range(len(choice.text)))
        given = listed.token_logprobs
        assert given is not None
        assert listed.top_logprobs is not None
        assert (given[0], listed.top_logprobs[0]) == (None, None)
        for place in range(1, len(ids)):
            expected = scores[place - 1]
            assert given[place] == pytest.approx(float(expected[ids[place]]), abs=1e-4)
            top = sorted(listed.top_logprobs[place].values(), reverse=True)[:3]
            assert top == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)


def test_each_prompt_of_several_has_its_own_scores(server: Served) -> None:
    """The engine reads one after the other, and writes after the first meanwhile."""
    prompts = [PROMPT * 3, "a dog", PROMPT * 2 + "b", "c"]
    body = {"echo": True, "logprobs": 1, "max_tokens": 2, "temperature": 0, "n": 2}
    together = server.complete(prompt=prompts, **body)["choices"]
    alone = [server.complete(prompt=prompt, **body)["choices"] for prompt in prompts]
    expected = [choice | {"index": n} for n, choice in enumerate(chain(*alone))]
    assert together == expected
    streamed = {"prompt": prompts, **body, "stream": True, "seed": 1}
    events = events_of(server.ask("/v1/completions", streamed).body)
    for choice in together:
        own = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
        assert "".join(each["text"] for each in own) == choice["text"]
        scores = [each["logprobs"]["token_logprobs"] for each in own if each["logprobs"]]
        assert [*chain(*scores)] == choice["logprobs"]["token_logprobs"]


def test_a_prompt_alone_may_be_scored(client: openai.OpenAI) -> None:
    found = client.completions.create(
        model="small", prompt=PROMPT, echo=True, logprobs=1, max_tokens=0
    )
    assert found.choices[0].text == PROMPT
    listed = found.choices[0].logprobs
    assert listed is not None
    assert listed.tokens == list(PROMPT)
    assert found.usage is not None
    assert found.usage.completion_tokens == 0


def test_log_probabilities_end_where_the_text_does(server: Served) -> None:
    """Tokens of a stop string are not shown, streamed or not."""
    plain = server.complete(prompt=PROMPT, max_tokens=40)["choices"][0]["text"]
    stop = plain[10:13]
    cut = plain.index(stop)
    body = {"prompt": PROMPT, "max_tokens": 40, "stop": [stop], "logprobs": 0}
    choice = server.complete(**body)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (plain[:cut], "stop")
    assert choice["logprobs"]["tokens"] == list(plain[:cut])
    events = events_of(server.ask("/v1/completions", body | {"seed": 1, "stream": True}).body)
    assert "".join(event["choices"][0]["text"] for event in events) == plain[:cut]
    tokens = [
        token
        for event in events
        for token in (event["choices"][0]["logprobs"] or {"tokens": []})["tokens"]
    ]
    assert tokens == list(plain[:cut])


def events_of(body: bytes) -> list[Any]:
    """The events of a stream, which must end as the interface has it."""
    *events, done, rest = body.decode("ascii").split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_usage_of_streams(server: Served) -> None:
    body = {"prompt": "a", "max_tokens": 3, "stream": True, "seed": 1}

    def asked(**options: bool) -> list[Any]:
        return events_of(server.ask("/v1/completions", body | {"stream_options": options}).body)

    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    *events, last = asked(include_usage=True)
    assert (last["choices"], last["usage"]) == ([], usage)
    assert all(event["usage"] is None for event in events)
    counted = [event["usage"]["completion_tokens"] for event in asked(continuous_usage_stats=True)]
    assert counted == sorted(counted)
    assert counted[-1] == 3
    refused = server.ask(
        "/v1/completions", {"prompt": "a", "stream_options": {"include_usage": True}}
    )
    assert (refused.status, refused.json["error"]["param"]) == (400, "stream_options")


def test_texts_in_company_are_those_alone_and_others_may_leave(
    server: Served, engine: Engine
) -> None:
    """32 requests at once of all kinds, half of which are left in the middle of their streams."""
    client = openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0)
    bodies = [
        {
            "prompt": (PROMPT * 4)[: 1 + 7 * number % 50],
            "max_tokens": 20 + 5 * number % 60,
            "temperature": (0.0, 0.7, 1.3)[number % 3],
            "seed": number,
        }
        for number in range(32)
    ]

    async def write(number: int) -> str:
        stream = await client.completions.create(model="small", stream=True, **bodies[number])
        text = ""
        async for event in stream:
            text += event.choices[0].text
            if number % 2 and len(text) > 5:
                await stream.close()
                break
        return text

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(write, range(32)))

    found = asyncio.run(all_of_them())
    for number, body in enumerate(bodies):
        chosen = {"length": body["max_tokens"], "seed": number, "temperature": body["temperature"]}
        expected = text_of(alone(engine, body["prompt"], **chosen))
        assert expected.startswith(found[number])
        if not number % 2:
            assert found[number] == expected
    server.wait_until_idle()


def test_short_texts_don_t_wait_for_a_long_one(server: Served) -> None:
    """And all texts of a step go through the model at once."""
    passes = server.metric("forward_passes")
    order = list[str]()
    begun = threading.Event()
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)

    def long() -> None:
        options = {"max_tokens": 600, "seed": 1, "extra_body": {"ignore_eos": True}}
        for _ in client.completions.create(model="small", prompt="a", stream=True, **options):
            begun.set()
        order.append("long")

    def short(number: int) -> None:
        server.complete(prompt="bcdefghi"[number], max_tokens=8)
        order.append("short")

    threads = [threading.Thread(target=long)]
    threads[0].start()
    begun.wait(20)
    threads += [threading.Thread(target=short, args=(number,)) for number in range(7)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert order == ["short"] * 7 + ["long"]
    # each time that the context is full, half of it is read again in two pieces
    pieces = 8 + 2 * (600 // (CONFIG.block_size // 2) + 1)
    assert server.metric("forward_passes") - passes <= 1.1 * 600 + pieces
    server.wait_until_idle()


def test_a_client_that_goes_frees_its_slots(server: Served) -> None:
    """Whether it streams or waits for the whole answer."""
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=0.3)
    body = {
        "model": "small",
        "prompt": "a",
        "max_tokens": 100_000,
        "extra_body": {"ignore_eos": True},
    }
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(**body)
    stream = client.completions.create(**body, stream=True)
    next(iter(stream))
    stream.close()
    server.wait_until_idle()
    assert server.metric("num_requests_waiting") == 0
