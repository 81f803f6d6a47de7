"""Programs of others, unchanged: LangChain's classes, and a fuzzer of OpenAPI documents."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.servers import Served, served, small_model

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

PROMPTS = [f"the {chr(97 + number)} cat" for number in range(20)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    model = small_model(tmp_path_factory.mktemp("served") / "small")
    with served(model, "--max-waiting", "200") as server:
        yield server


def test_langchains_completions(server: Served) -> None:
    from langchain_openai import OpenAI

    model: Any = OpenAI(
        base_url=server.url, api_key="none", model="small", temperature=0, max_tokens=12
    )
    expected = [
        choice["text"]
        for choice in server.complete(prompt=PROMPTS, temperature=0, max_tokens=12)["choices"]
    ]
    assert [model.invoke(prompt) for prompt in PROMPTS[:3]] == expected[:3]
    found = model.generate(PROMPTS)  # all in one request
    assert [texts[0].text for texts in found.generations] == expected
    assert "".join(model.stream(PROMPTS[0])) == expected[0]


def test_langchains_chats(server: Served) -> None:
    from langchain_openai import ChatOpenAI

    model: Any = ChatOpenAI(
        base_url=server.url, api_key="none", model="small", temperature=0, max_tokens=12
    )
    messages = [("system", "be a cat"), ("user", "say a")]
    answer = model.invoke(messages)
    assert answer.usage_metadata["output_tokens"] == 12
    assert "".join(chunk.content for chunk in model.stream(messages)) == answer.content


def test_schemathesis_finds_nothing(server: Served, tmp_path: Path) -> None:
    """All checks but `positive_data_acceptance`: OpenAPI can't say which fields contradict others,
    nor which tokens and letters a model has.
    """
    root = server.url.removesuffix("/v1")
    words = ["run", f"{root}/openapi.json", "--checks", "all", "--max-examples", "40"]
    words += ["--exclude-checks", "positive_data_acceptance"]
    finished = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words, "--seed", "1", "--no-color"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a cat", "logprobs": 2, "echo": True}),
        ("/v1/completions", {"prompt": ["a", "b"], "stream_options": {"include_usage": True}}),
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "a"}],
                "logprobs": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            },
        ),
    ],
)
def test_schemathesis_knows_each_event_of_a_stream(
    server: Served, path: str, body: dict[str, Any]
) -> None:
    import schemathesis

    document = f"{server.url.removesuffix('/v1')}/openapi.json"
    operation = schemathesis.openapi.from_url(document)[path]["POST"]
    asked = {"max_tokens": 5, "stream": True, **body}
    case = operation.Case(body=asked, media_type="application/json")
    answer = case.call_and_validate()
    assert answer.headers["content-type"][0].startswith("text/event-stream")


FIELDS: list[tuple[str, list[Any]]] = [
    (
        "prompt",
        ["a", "", ["a", "b"], [1, 2], [[1], [2, 3]], [], [[]], None, 3, "\N{SNOWMAN}", [99]],
    ),
    ("messages", [[{"role": "user", "content": "a"}], [], None, [{}], "a", [[]]]),
    ("max_tokens", [0, 1, 3, -1, None, "3", 1.5, 2**70, True]),
    ("n", [1, 2, 0, 99, None, "1"]),
    ("temperature", [0, 1, 0.5, -1, 1e308, None, [], "hot"]),
    ("top_p", [1, 0.5, 0, None, {}]),
    ("top_k", [1, 0, -1, 10**10, None]),
    ("stream", [True, False, None, 1]),
    ("stream_options", [{"include_usage": True}, {}, None, 3]),
    ("stop", ["a", ["a", "b"], [], None, [""], 1]),
    ("logprobs", [0, 3, 21, None, True]),
    ("echo", [True, False, None, "yes"]),
    ("logit_bias", [{}, {"1": 5}, {"a": 1}, {"999": 1}, None, []]),
    ("seed", [0, 1, -1, None, 2**65]),
    ("suffix", [None, "", "a"]),
    ("model", ["small", "other", None, 3]),
    ("unknown", [1, None, {"a": [[]]}]),
]


def wrong_body(generator: random.Random) -> Any:
    """A body with some fields of some values, or no JSON at all."""
    if generator.random() < 0.05:
        return generator.choice(
            ["", "{", "[]", "null", '"a"', "{" * 500, "\x00", '{"prompt": "\\ud8"']
        )
    chosen = generator.sample(FIELDS, generator.randint(0, 6))
    body = {name: generator.choice(values) for name, values in chosen}
    return {"max_tokens": 2, **body}


@pytest.mark.long
@pytest.mark.parametrize("seed", [0])
def test_a_hundred_thousand_requests_made_wrong(server: Served, seed: int) -> None:
    """No answer is an error of the server, and it says that it is well all the time."""
    found = dict[int, int]()
    counting = threading.Lock()

    def ask(number: int) -> None:
        generator = random.Random(f"{seed} {number}")
        for _ in range(25_000):
            path = generator.choice(["/v1/completions", "/v1/chat/completions"])
            body = wrong_body(generator)
            answer = server.ask(path, body.encode() if isinstance(body, str) else body)
            with counting:
                found[answer.status] = found.get(answer.status, 0) + 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            assert server.ask("/health").status == 200
            thread.join(0.5)
    assert sum(found.values()) == 100_000
    assert set(found) <= {200, 400, 404, 429}, found
    server.wait_until_idle()
