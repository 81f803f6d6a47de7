"""`/v1/inspect` and the page: numbers of the model that is served, within limits."""

import asyncio
import base64
import itertools
import json
import signal
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import groundup
from commands import flags, trained, write_text
from groundup import GPT2, Engine, GPTConfig, SamplingSettings
from groundup.checkpoints import model_folder
from groundup.errors import GenerationError
from groundup.inspection.answer import Wanted
from groundup.page.files import page_files
from groundup.serving.answers import ApiError
from groundup.serving.driver import MOST_BESIDE, Driver, EngineFailedError, Job, OverloadedError
from groundup.serving.inspector import MOST_KEPT, Inspector
from groundup.tokenizers.texts import TokenTexts
from serving.servers import CONFIG, LETTERS, Served, served, small_model

TEXT = "once upon a time, there was a model.\n"
TOKENS = LETTERS.encode(TEXT).tolist()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(small_model(tmp_path_factory.mktemp("inspect") / "little")) as found:
        yield found


def inspected(server: Served, **body: Any) -> Any:
    answer = server.ask("/v1/inspect", {"prompt": TEXT, **body})
    assert answer.status == 200, answer.body
    return answer.json


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_every_number_is_that_of_inspect(server: Served, tmp_path: Path) -> None:
    model, tokenizer = groundup.load(small_model(tmp_path / "same"))
    own = groundup.inspect(Engine(model, tokenizer), TOKENS)
    found = inspected(
        server,
        top=3,
        thumbnails=64,
        attention=[[0, 1], [1, 0]],
        lens=[4, len(TOKENS) - 1],
        stages={"position": 9, "layer": 1, "head": 1},
        distribution=7,
    )
    assert found["shape"]["n_layer"] == 2
    assert found["shape"]["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert "".join(token["text"] for token in found["tokens"]) == TEXT
    assert found["tokens"][0]["logprob"] is found["tokens"][0]["top"] is None
    for token, prediction in zip(found["tokens"][1:], own.predictions, strict=False):
        assert token["logprob"] == pytest.approx(prediction.logprob, rel=1e-6)
        listed = [(each["id"], each["logprob"]) for each in token["top"]]
        assert listed == [(t, pytest.approx(s, rel=1e-6)) for t, s in prediction.top[:3]]
    for entry in found["attention"]:
        weights = own.attention(entry["layer"], entry["head"])
        triangle = weights[*torch.tril_indices(*weights.shape)].numpy()
        np.testing.assert_allclose(numbers(entry["weights"], "<f2"), triangle, atol=5e-4)
    (before, itself, first), weights = found["thumbnails"]["habits"][1][0], own.attention(1, 0)
    rows = range(1, len(TOKENS))
    assert before == pytest.approx(sum(weights[at, at - 1].item() for at in rows) / len(rows))
    assert first == pytest.approx(sum(weights[at, 0].item() for at in rows) / len(rows))
    assert itself == pytest.approx(weights.diagonal().mean().item())
    small = numbers(found["thumbnails"]["maps"][1][0], "u1").reshape(len(TOKENS), -1)
    np.testing.assert_allclose(small / 255, own.attention(1, 0).numpy(), atol=2.1e-3)
    assert [len(column["points"]) for column in found["lens"]] == [5, 5]
    assert found["lens"][0]["target"] == TOKENS[5]
    assert found["lens"][1]["target"] is None
    (last, lens) = found["lens"][0]["points"][-1], own.lens(4, 3)[-1]
    assert last["loss"] == pytest.approx(-(lens.logprob or 0), rel=1e-6)
    logprobs = numbers(found["distribution"]["logprobs"], "<f4")
    np.testing.assert_allclose(logprobs, sorted(own.logprobs(7).tolist(), reverse=True), rtol=1e-5)
    stages = {stage["name"]: stage for stage in found["stages"]["stages"]}
    assert sum(stages["softmax"]["values"][0]["data"]) == pytest.approx(1.0, abs=1e-5)
    assert found["stream"]["after"][1] == pytest.approx(own.norms()[6].tolist(), rel=1e-5)


def test_tokens_alone_are_not_read(server: Served) -> None:
    found = inspected(server, scores=False)
    assert [token["id"] for token in found["tokens"]] == TOKENS
    assert not {"next", "entropy", "stream"} & found.keys()
    long = inspected(server, prompt=TEXT * 10, scores=False)  # longer than the context
    assert len(long["tokens"]) == 10 * len(TOKENS) > CONFIG.block_size
    answer = server.ask("/v1/inspect", {"prompt": "a" * 2**16, "scores": False})
    assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"prompt": "a" * 65}, "prompt", "context_length_exceeded"),
        ({"prompt": ""}, "prompt", None),
        ({"prompt": []}, "prompt", None),
        ({"prompt": [1, 99]}, "prompt", None),
        ({"prompt": [[1]]}, "prompt", None),
        ({"prompt": "é"}, "prompt", None),
        ({"top": 21}, "top", None),
        ({"thumbnails": 65}, "thumbnails", None),
        ({"attention": [[0, 0]] * 65}, "attention", None),
        ({"attention": [[0]]}, "attention", None),
        ({"attention": [[2, 0]]}, "attention", None),
        ({"attention": [[0, 2]]}, "attention", None),
        ({"lens": [99]}, "lens", None),
        ({"lens": [0] * 65}, "lens", None),
        ({"stages": {"position": 99}}, "stages", None),
        ({"stages": {"position": 0, "draw": {"temperature": -1}}}, "stages", None),
        ({"distribution": -1}, "distribution", None),
        ({"model": "another"}, "model", "model_not_found"),
    ],
)
def test_what_is_not_there_is_refused(
    server: Served, body: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = server.ask("/v1/inspect", {"prompt": TEXT, **body})
    assert answer.status == (404 if code == "model_not_found" else 400), answer.body
    error = answer.json["error"]
    assert (error["param"], error["code"]) == (param, code), error
    assert inspected(server)["object"] == "inspection"


def test_streams_say_the_numbers_of_their_tokens(server: Served) -> None:
    whole = server.complete(prompt=TEXT, max_tokens=20, return_token_ids=True, n=2)
    for choice in whole["choices"]:
        assert LETTERS.decode(choice["token_ids"]) == choice["text"]
    body = {"prompt": TEXT, "max_tokens": 20, "seed": 1, "stream": True, "return_token_ids": True}
    events = server.ask("/v1/completions", body).body.decode().split("\n\n")
    parsed = [json.loads(each[6:]) for each in events if each.startswith("data: {")]
    ids = [token for each in parsed for token in each["choices"][0]["token_ids"]]
    assert ids == whole["choices"][0]["token_ids"]
    assert "token_ids" not in server.complete(prompt=TEXT)["choices"][0]


def test_the_page_is_sent_and_nothing_else_of_the_disk(server: Served) -> None:
    page = server.ask("/")
    assert page.status == 200
    assert page.body.decode() == page_files()["index.html"]
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-inline" not in policy
    for name in page_files():
        answer = server.ask(f"/page/{name}")
        assert (answer.status, answer.body.decode()) == (200, page_files()[name])
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in (
        "/page/",
        "/page/none.js",
        "/page/../app.py",
        "/page/%2e%2e/files.py",
        "/page/a/b",
    ):
        assert server.ask(path).status == 404, path
    run = server.ask("/v1/run")
    assert (run.status, run.json) == (200, None)


def test_a_run_is_told_as_it_is_now(tmp_path: Path) -> None:
    write_text(tmp_path)
    trained(*flags({"--steps": 2, "--name": "told"}), folder=tmp_path)
    with served(tmp_path / "runs" / "told") as server:
        run = tmp_path / "runs" / "told"
        assert [line["step"] for line in server.ask("/v1/run").json["steps"]] == [1, 2]
        with (run / "metrics.jsonl").open("a") as file:  # it goes on meanwhile
            file.write('{"kind": "step", "step": 3, "tokens": 9, "loss": 1.5}\n')
        assert server.ask("/v1/run").json["steps"][-1]["loss"] == 1.5
        (run / "samples.txt").unlink()
        assert server.ask("/v1/run").json["samples"] == []
        whole = json.loads((run / "run.json").read_text("utf-8"))
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "step", "step": 4, "loss": NaN}\n')
        assert server.ask("/v1/run").json["steps"][-1]["loss"] is None
        for damaged in (
            "{",
            json.dumps(whole | {"corpus": "a"}),
            json.dumps(whole | {"corpus": {}}),
        ):
            (run / "run.json").write_text(damaged)
            answer = server.ask("/v1/run")
            assert answer.status == 404
            assert str(tmp_path) not in answer.body.decode()
        assert "the page can't show the run" in server.log


def test_a_key_guards_the_data_and_not_the_page(tmp_path: Path) -> None:
    with served(small_model(tmp_path / "little"), "--api-key", "secret") as server:
        assert server.ask("/").status == server.ask("/page/app.js").status == 200
        for path, body in (("/v1/inspect", {"prompt": TEXT}), ("/v1/run", None)):
            assert server.ask(path, body).status == 401
        right = {"Authorization": "Bearer secret"}
        assert server.ask("/v1/inspect", {"prompt": TEXT}, headers=right).status == 200
        assert server.ask("/v1/run", headers=right).status == 200


def test_a_signal_leaves_time_to_answer(tmp_path: Path) -> None:
    """As texts have it: what was asked before the signal is answered."""
    torch.manual_seed(0)
    slow = GPT2(GPTConfig(1024, LETTERS.vocab_size, 8, 8, 256)).eval()
    model_folder.save(tmp_path / "slow", slow, LETTERS)
    with served(tmp_path / "slow") as server:
        found = list[Any]()
        body = {"prompt": "a" * 1000, "thumbnails": 64, "lens": list(range(64))}
        thread = threading.Thread(target=lambda: found.append(server.ask("/v1/inspect", body)))
        thread.start()
        deadline = time.monotonic() + 20
        while not server.running.process.is_alive() or server.ask("/health").status != 200:
            assert time.monotonic() < deadline
        time.sleep(0.3)
        server.running.send(signal.SIGTERM)
        thread.join(30)
        assert found[0].status == 200, found[0].body
        assert "Traceback" not in server.log


def test_what_was_read_is_kept_whatever_becomes_of_the_request() -> None:
    driver = Driver(4)

    async def work() -> None:
        inspector = Inspector(driver, TokenTexts(LETTERS))
        await inspector.answer([1, 2, 3], Wanted())
        (kept,) = inspector._kept.values()
        with pytest.raises(ApiError, match="position 9"):
            await inspector.answer([1, 2, 3], Wanted(lens=(9,)))
        await inspector.answer([5] * 999, Wanted(scores=False))  # which reads nothing
        assert [*inspector._kept.values()] == [kept]
        await inspector.answer([1, 2, 3], Wanted(lens=(0,)))
        assert [*inspector._kept.values()] == [kept]
        for number in range(12):
            await inspector.answer([number], Wanted())
        assert len(inspector._kept) == MOST_KEPT
        assert (11,) in inspector._kept

    asyncio.run(run(driver, work))


def engine() -> Engine:
    torch.manual_seed(0)
    return Engine(GPT2(CONFIG).eval(), slots=2)


async def run(driver: Driver, work: Any) -> Any:
    await driver.start(engine)
    try:
        return await work()
    finally:
        driver.stop()


def test_a_stream_goes_on_between_the_parts_of_a_look() -> None:
    """Between two parts there is a step of the engine, and texts are those written alone."""
    driver = Driver(4)
    settings = SamplingSettings(length=60, temperature=1.0, seed=5)

    async def work() -> tuple[list[int], list[int]]:
        stream = driver.submit([Job([1, 2, 3], settings)])
        pieces = stream.pieces()
        first = await anext(pieces)
        passes = list[int]()

        def look() -> Generator[None, None, int]:
            for _ in range(10):
                passes.append(driver.engine.passes)
                yield
            return 7

        assert await driver.beside(look) == 7
        found = [each for piece in first for each in piece.written]
        async for some in pieces:
            found += [each for piece in some for each in piece.written]
        driver.finish(stream)
        return passes, [each.token for each in found if each.token is not None]

    passes, text = asyncio.run(run(driver, work))
    assert [after - before for before, after in itertools.pairwise(passes)] == [1] * 9
    alone = [each.token for each in engine().submit([1, 2, 3], settings)]
    assert text == [token for token in alone if token is not None]


def test_a_look_that_fails_or_is_left_leaves_the_others() -> None:
    driver = Driver(4)
    begun = list[int]()

    def fails(error: Exception) -> Generator[None, None, None]:
        yield
        raise error

    def endless() -> Generator[None, None, None]:
        while True:
            begun.append(1)
            yield

    def short() -> Generator[None, None, int]:
        yield
        return 3

    async def work() -> None:
        with pytest.raises(GenerationError, match="nothing"):
            await driver.beside(lambda: fails(GenerationError("nothing")))
        with pytest.raises(EngineFailedError):
            await driver.beside(lambda: fails(RuntimeError("a fault")))
        left = asyncio.ensure_future(driver.beside(endless))
        while not begun:
            await asyncio.sleep(0.001)
        left.cancel()
        assert await driver.beside(short) == 3
        waiting = [asyncio.ensure_future(driver.beside(endless)) for _ in range(MOST_BESIDE)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await driver.beside(short)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await driver.beside(short) == 3

    asyncio.run(run(driver, work))
