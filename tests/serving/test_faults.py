"""Bad requests, bad clients, a failing engine and signals: the next request is answered."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from commands import groundup, started
from groundup import Engine, SamplingSettings, load
from groundup.checkpoints import model_folder
from groundup.generation.writer import Writer
from groundup.serving import begin, event_stream
from groundup.serving import server as serving
from groundup.serving.driver import Driver, Job
from serving.servers import Served, served, small_model

KEY = "k-3"
LONG = {"prompt": "a", "max_tokens": 1_000_000, "ignore_eos": True}


def impatient() -> None:
    """Wait for nobody for long."""
    serving.HEADER_SECONDS, event_stream.STALL_SECONDS = 1, 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("served") / "small")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model, "--max-streams", "4", "--max-waiting", "4", before=impatient) as server:
        yield server


def check_alive(server: Served) -> None:
    """The next request succeeds."""
    assert server.complete(prompt="abc")["choices"][0]["finish_reason"] == "length"


WRONG: list[tuple[Any, str | None]] = [
    ("{", None),
    ("[" * 100_000, None),
    (b"\xff\xfe{}", None),
    ("[]", None),
    ('{"prompt": "a", "temperature": NaN}', "temperature"),
    ('{"prompt": "a", "temperature": 1e999}', "temperature"),
    ('{"prompt": "a", "max_tokens": ' + "9" * 5000 + "}", None),
    ('{"prompt": "\\ud800"}', "prompt"),
    ({}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [1, True]}, "prompt"),
    ({"prompt": [35]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [2**70]}, "prompt"),
    ({"prompt": "Ünknown"}, "prompt"),
    ({"prompt": ["a"] * 200}, "prompt"),
    ({"prompt": ["a"] * 100, "n": 4}, "n"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": "a", "n": 10**6}, "n"),
    ({"prompt": "a", "n": 5}, "n"),
    ({"prompt": "a", "n": 0}, "n"),
    ({"prompt": "a", "n": True}, "n"),
    ({"prompt": "a", "n": "1"}, "n"),
    ({"prompt": "a", "n": 1.5}, "n"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
    ({"prompt": "a", "max_tokens": 2**40}, "max_tokens"),
    ({"prompt": "a", "temperature": -0.1}, "temperature"),
    ({"prompt": "a", "temperature": "1"}, "temperature"),
    ({"prompt": "a", "top_p": 0}, "top_p"),
    ({"prompt": "a", "top_p": 1.1}, "top_p"),
    ({"prompt": "a", "top_k": -2}, "top_k"),
    ({"prompt": "a", "min_p": 2}, "min_p"),
    ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty"),
    ({"prompt": "a", "presence_penalty": 3}, "presence_penalty"),
    ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
    ({"prompt": "a", "logit_bias": {"99": 1}}, "logit_bias"),
    ({"prompt": "a", "logit_bias": {"1": 101}}, "logit_bias"),
    ({"prompt": "a", "logit_bias": {"1": 1, "01": 2}}, "logit_bias"),
    ({"prompt": "a", "seed": -1}, "seed"),
    ({"prompt": "a", "seed": 2**63}, "seed"),
    ({"prompt": "a", "stop": ["a"] * 5}, "stop"),
    ({"prompt": "a", "stop": [""]}, "stop"),
    ({"prompt": "a", "stop": 3}, "stop"),
    ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ({"prompt": "a", "logprobs": True}, "logprobs"),
    ({"prompt": "a", "stream": "yes"}, "stream"),
    ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
    ({"prompt": "a", "suffix": "b"}, "suffix"),
    ({"prompt": "a", "best_of": 2}, "best_of"),
    ({"prompt": "a", "response_format": {"type": "json_object"}}, "response_format"),
    ({"prompt": "a", "tools": [{"type": "function"}]}, "tools"),
    ({"prompt": "a", "guided_regex": "a*"}, "guided_regex"),
]


@pytest.mark.parametrize(("body", "param"), WRONG)
def test_a_wrong_body_gets_400_that_names_the_field(
    server: Served, body: Any, param: str | None
) -> None:
    answer = server.ask("/v1/completions", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param), answer.body
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.json["error"]["type"] == "invalid_request_error"


def test_neutral_values_and_unknown_fields_change_nothing(server: Served) -> None:
    plain = server.complete(prompt="abc", n=2)["choices"]
    names = [
        "stop",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "logprobs",
        "echo",
        "stream",
        "stream_options",
        "user",
    ]
    neutral = dict.fromkeys(names) | {"logit_bias": {}, "best_of": 2, "suffix": None, "tools": []}
    neutral |= {"response_format": {"type": "text"}, "presence_penalty": 0, "store": True}
    assert server.complete(prompt="abc", n=2, **neutral)["choices"] == plain


def test_a_prompt_above_the_context_is_refused_with_both_numbers(server: Served) -> None:
    answer = server.ask("/v1/completions", {"prompt": "a" * 65})
    assert answer.status == 400
    assert answer.json["error"]["code"] == "context_length_exceeded"
    assert "65" in answer.json["error"]["message"]
    assert "64" in answer.json["error"]["message"]
    long = server.complete(prompt="a" * 64, max_tokens=256, ignore_eos=True)
    assert long["usage"]["completion_tokens"] == 256


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/v2", {}, 404),
        ("/v1/../etc/passwd", {}, 404),
        ("//v1/models", {}, 404),
        ("/v1/completions", {}, 405),
        ("/v1/models", {"body": {}}, 405),
        ("/v1/completions", {"body": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ("/v1/completions", {"body": "{}", "headers": {"Content-Encoding": "gzip"}}, 415),
        ("http://localhost/v1/models", {}, 200),  # as a proxy asks
        ("HTTP://localhost:9/v1/nothing", {}, 404),
        ("/v1/completions", {"body": "a" * (2**20 + 1)}, 413),
        ("/v1/completions", {"body": "a" * (15 * 2**20)}, 413),
        ("/v1/completions", {"body": "a" * 2**20, "headers": {"Host": "example.org"}}, 421),
        ("/v1/models", {"headers": {f"x-{n}": "a" for n in range(100)}}, 431),
        ("/v1/models", {"headers": {"x-a": "a" * 40_000}}, 431),
        ("/v1/models", {"headers": {"x-a": "a" * 100_000}}, 431),
        ("/v1/models", {"headers": {"x-a": "a" * 5_000_000}}, 431),
        ("/v1/models", {"headers": {"Host": "example.org"}}, 421),
        ("/v1/models", {"headers": {"Host": "x/?"}}, 421),
        ("/v1/models", {"headers": {"Host": "localhost:9"}}, 200),
        ("/v1/completions", {"body": {"prompt": "a", "model": "gpt-5"}}, 404),
    ],
)
def test_other_refusals(server: Served, path: str, options: dict[str, Any], status: int) -> None:
    answer = server.ask(path, **options)
    assert answer.status == status, answer.body
    assert ("allow" in answer.headers) == (status == 405)
    if status != 200:
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}


def test_a_body_in_chunks_is_limited_too(server: Served) -> None:
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = b""
        for _ in range(40):
            link.sendall(chunk)
        link.sendall(b"0\r\n\r\n")
        while part := link.recv(4096):
            answer += part
    assert b" 413" in answer
    check_alive(server)


def test_a_request_id_is_the_clients_if_it_is_harmless(server: Served) -> None:
    assert (
        server.ask("/health", headers={"X-Request-Id": "a_B-9"}).headers["x-request-id"] == "a_B-9"
    )
    assert server.ask("/health", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"


def test_pages_of_others_may_not_ask(server: Served) -> None:
    answer = server.ask("/v1/models", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers
    page = server.ask("/")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"groundup</title>" in page.body


def test_a_second_request_on_a_link_must_come_in_time_too(server: Served) -> None:
    """A byte now and then doesn't help."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b'{"status":"ok"}' not in answer:
            answer += link.recv(4096)
        assert b" 200 " in answer
        begun = time.monotonic()
        answer = b""
        for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\n":
            link.sendall(bytes([byte]))
            link.settimeout(0.2)
            try:
                answer = link.recv(4096)
                break
            except TimeoutError:
                continue
        assert b" 408 " in answer
        assert time.monotonic() - begun < 4


def test_a_page_that_is_named_may_ask(model: Path) -> None:
    page = "https://example.org"
    with served(model, "--allow-origin", page, "--api-key", KEY) as server:
        asks = {"Origin": page, "Access-Control-Request-Method": "POST"}
        asks["Access-Control-Request-Headers"] = "authorization"
        answer = server.ask("/v1/completions", method="OPTIONS", headers=asks)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, page)
        other = server.ask(
            "/v1/completions", method="OPTIONS", headers=asks | {"Origin": "https://b"}
        )
        assert other.status == 400
        key = {"Authorization": f"Bearer {KEY}", "Origin": page}
        listed = server.ask("/v1/models", headers=key)
        assert (listed.status, listed.headers["access-control-allow-origin"]) == (200, page)


def test_slow_headers_and_stalled_readers_are_left(server: Served) -> None:
    """200 sockets that send a line and no more; readers that take nothing."""
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    for link in slow:
        link.sendall(b"GET /health HTTP/1.1\r\n")
    body = str(LONG | {"stream": True}).replace("'", '"').replace("True", "true").encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    stalled = []
    for _ in range(4):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", server.port))
        link.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        stalled.append(link)
    begun = time.monotonic()
    assert server.ask("/health").status == 200
    assert time.monotonic() - begun < 1
    server.wait_until_idle()
    slow[0].settimeout(10)
    assert b" 408 " in slow[0].recv(4096)
    for link in slow + stalled:
        link.close()
    check_alive(server)


def test_who_leaves_is_seen_though_more_requests_were_sent(server: Served) -> None:
    """The second request, which isn't read yet, must not hide that its client has gone."""
    body = json.dumps(LONG).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for ahead in (request, request * 2, request * 1000):
        link = socket.create_connection(("127.0.0.1", server.port))
        link.sendall(request)
        while not server.metric("num_requests_running"):
            time.sleep(0.01)
        with suppress(OSError):
            link.sendall(ahead)
        link.close()
        server.wait_until_idle()


def test_what_is_too_much_is_refused_at_once(server: Served) -> None:
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    long = {"model": "small", "prompt": "a", "max_tokens": 10**6, "stream": True}
    streams = [client.completions.create(**long, extra_body={"ignore_eos": True}) for _ in range(4)]
    for stream in streams:
        next(iter(stream))
    waiting = [
        threading.Thread(target=server.ask, args=("/v1/completions", {"prompt": "a"}), daemon=True)
        for _ in range(4)
    ]
    for thread in waiting:
        thread.start()
    deadline = time.monotonic() + 10
    while server.metric("num_requests_waiting") < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    answer = server.ask("/v1/completions", {"prompt": "a"})
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.json["error"]["type"] == "rate_limit_error"
    assert server.ask("/health").status == 200
    found = list[Any]()
    patient = openai.OpenAI(base_url=server.url, api_key="none", max_retries=5)
    retrying = threading.Thread(
        target=lambda: found.append(patient.completions.create(model="small", prompt="a"))
    )
    retrying.start()
    while server.log.count(" 429 in ") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for stream in streams:
        stream.close()
    for thread in [*waiting, retrying]:
        thread.join(20)
    assert found[0].usage.completion_tokens == 16
    server.wait_until_idle()


def test_a_text_that_is_over_makes_room_though_its_request_goes_on(model: Path) -> None:
    async def counts() -> list[int]:
        driver, taken = Driver(max_waiting=4), list[int]()
        await driver.start(lambda: Engine(*load(model), slots=4))
        jobs = [Job([1], SamplingSettings(length=length)) for length in (1, 1, 1, 300)]
        stream = driver.submit(jobs)
        async for _ in stream.pieces():
            taken.append(driver.taken)
        driver.finish(stream)
        driver.stop()
        return [*taken, driver.taken]

    taken = asyncio.run(counts())
    assert 1 in taken  # while the long one is written
    assert taken == sorted(taken, reverse=True)
    assert taken[-1] == 0


def test_a_key_guards_all_but_health_and_the_page(model: Path) -> None:
    with served(model, "--api-key", KEY, "--log-format", "json") as server:
        for path in ("/health", "/"):
            assert server.ask(path, headers={"Host": "example.org"}).status == 200
        for key in (None, "Bearer", "Bearer k-4", "Basic k-3", "k-3"):
            headers = {} if key is None else {"Authorization": key}
            for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
                assert server.ask(path, headers=headers).status == 401
        client = openai.OpenAI(base_url=server.url, api_key=KEY)
        assert client.models.list().data[0].id == "small"
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            client.with_options(api_key="other").models.list()
        client.completions.create(model="small", prompt="abc secret")
        deadline = time.monotonic() + 5
        while '"completion_tokens": 16' not in server.log:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.01)
        assert "secret" not in server.log
        assert KEY not in server.log
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
            link.sendall(b"\x16\x03\x01\r\n\r\n")
            assert b" 400 " in link.recv(4096)
        lines = [json.loads(line) for line in server.log.splitlines()]
    assert "refused what is no request yet, with 400" in server.log
    assert {"ready: small, 16 texts at once"} <= {line.get("message") for line in lines}
    assert all(line["time"] > 1.7e9 for line in lines)


def test_who_asks_before_a_body_is_sent_is_refused_at_once(server: Served) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(head + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n")
        answer = b""
        while part := link.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - begun < 3


def test_head_is_get_without_a_body(server: Served) -> None:
    for path, status in (("/health", 200), ("/", 200), ("/v1/models", 200), ("/nowhere", 404)):
        answer = server.ask(path, method="HEAD")
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers["content-length"] == str(len(server.ask(path).body))
    assert server.ask("/v1/completions", method="HEAD").status == 405


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{}] * 200_000}]}),
        ("/v1/chat/completions", {"messages": [{}] * 200_000}),
        ("/v1/completions", {"prompt": "a", "logit_bias": {f"a{n}": "b" for n in range(50_000)}}),
        ("/v1/completions", {"prompt": "a", "stop": [1] * 200_000}),
    ],
)
def test_a_body_of_many_faults_is_refused_for_one(server: Served, path: str, body: Any) -> None:
    """To list them all took seconds, in which nobody else was answered."""
    answer = server.ask(path, body)
    assert answer.status == 400
    assert len(answer.body) < 1000
    check_alive(server)


def test_no_body_is_said(server: Served) -> None:
    json_kind = {"Content-Type": "application/json"}
    answer = server.ask("/v1/completions", "", headers=json_kind)
    assert (answer.status, answer.json["error"]["message"]) == (
        400,
        "the request has no body: send JSON",
    )


def failing() -> None:
    """Let the 5th step of the engine fail, and each later one with a text that waits for `z`."""
    write, calls = Writer.write, [0]

    def broken(self: Writer, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] in (5, 30):
            raise RuntimeError("a cosmic ray")
        return write(self, *args)

    Writer.write = broken


def test_an_error_in_the_engine_fails_its_requests_and_no_more(model: Path) -> None:
    with served(model, before=failing) as server:
        answer = server.ask("/v1/completions", {"prompt": "a", "max_tokens": 20})
        assert (answer.status, answer.json["error"]["code"]) == (503, "engine_error")
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        stream = client.completions.create(model="small", prompt="a", max_tokens=50, stream=True)
        with pytest.raises(openai.APIError, match="an error ended a step"):
            list(stream)
        check_alive(server)
        assert "a cosmic ray" in server.log
        server.wait_until_idle()
        assert server.ask("/health").status == 200


def test_a_signal_lets_texts_end_and_takes_no_others(model: Path) -> None:
    with served(model) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        body = {"model": "small", "prompt": "a", "max_tokens": 3000, "seed": 1}
        stream = iter(
            client.completions.create(**body, stream=True, extra_body={"ignore_eos": True})
        )
        next(stream)
        server.running.send(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while server.ask("/health").status != 503:
            assert time.monotonic() < deadline
        refused = server.ask("/v1/completions", {"prompt": "a"})
        assert (refused.status, refused.json["error"]["code"]) == (503, "draining")
        text = "".join(event.choices[0].text for event in stream)
        assert len(text) == 2999 - (len(text) < 2999)
        assert server.running.wait(20).returncode == 0


def test_a_second_signal_ends_texts_by_an_error(model: Path) -> None:
    with served(model) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        long: dict[str, Any] = {"model": "small", "prompt": "a", "max_tokens": 10**6}
        stream = client.completions.create(**long, stream=True, extra_body={"ignore_eos": True})
        whole = threading.Thread(
            target=lambda: answers.append(server.ask("/v1/completions", LONG)), daemon=True
        )
        answers = list[Any]()
        whole.start()
        while server.metric("num_requests_running") < 2:
            time.sleep(0.01)
        server.running.send(signal.SIGTERM)
        while server.ask("/health").status != 503:
            time.sleep(0.01)
        server.running.send(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="the server stops"):
            for _ in stream:
                pass
        assert server.running.wait(20).returncode == 0
        whole.join(5)
        assert (answers[0].status, answers[0].json["error"]["code"]) == (503, "engine_error")
        assert "Traceback" not in server.log


def slow_to_load() -> None:
    load = model_folder.load_model

    def slowly(*args: Any, **options: Any) -> Any:
        time.sleep(1)
        return load(*args, **options)

    begin.load_model = slowly


def test_health_says_that_the_model_is_loading(model: Path) -> None:
    words = "serve", model, "--port", "0"
    with started(*words, folder=model.parent, before=slow_to_load) as running:
        server = Served(running, 0)
        while "listening" not in server.log:
            time.sleep(0.01)
        server.port = int(server.log.split("/v1")[0].rpartition(":")[2])
        answer = server.ask("/health")
        assert (answer.status, answer.json) == (503, {"status": "loading"})
        assert server.ask("/v1/models").status == 503
        running.send(signal.SIGINT)
        assert running.wait(20).returncode == 0


def test_wrong_words_are_a_line(model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, said in (
            ((model, "--port", port), "can't listen on 127.0.0.1"),
            (("nothing-here", "--port", "0"), "nothing-here"),
            ((model, "--max-streams", "0"), "max-streams = 0"),
            ((model, "--max-streams", 10**20), "must be from 1 to 100,000"),
            ((model, "--host", "a" * 300), "this is no name of a host"),
            ((model, "--port", "99999"), "port = 99999"),
            ((model, "--api-key", " "), "api-key is empty"),
            ((model, "--dtype", "int4", "--port", "0"), "dtype"),
        ):
            finished = groundup("serve", *words, folder=tmp_path)
            assert finished.returncode == 2, finished.stderr
            assert said in finished.stderr.splitlines()[-1]
            assert "Traceback" not in finished.stderr
