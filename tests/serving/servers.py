"""Starts `groundup serve` on small models, and asks it by plain HTTP."""

import http.client
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from commands import Running, started
from conftest import model_of, perturb
from groundup import CharacterTokenizer, GPTConfig
from groundup.checkpoints import model_folder

LETTERS = CharacterTokenizer("abcdefghijklmnopqrstuvwxyz .,;:\nASU")
CONFIG = GPTConfig(
    block_size=64, vocab_size=LETTERS.vocab_size, n_layer=2, n_head=2, n_embd=32, dropout=0.0
)


def small_model(folder: Path, architecture: str = "gpt2") -> Path:
    """Save a random model of letters that prefers some of them."""
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG)
    perturb(model, scale=0.3)
    model_folder.save(folder, model.eval(), LETTERS)
    return folder


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON, which must be ASCII."""
        return json.loads(self.body.decode("ascii"))


@dataclass
class Served:
    """A server at work."""

    running: Running
    port: int

    @property
    def url(self) -> str:
        """Where the OpenAI interface is."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def log(self) -> str:
        """What it has said."""
        return self.running.output("stderr")

    def ask(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask once. A body that is no text becomes JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = body if body is None or isinstance(body, bytes | str) else json.dumps(body)
        kind = {} if sent is None else {"Content-Type": "application/json"}
        try:
            connection.request(
                method or ("GET" if sent is None else "POST"), path, sent, kind | (headers or {})
            )
            found = connection.getresponse()
            names = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, names, found.read())
        finally:
            connection.close()

    def complete(self, **body: Any) -> Any:
        """Ask for completions, which must succeed."""
        answer = self.ask("/v1/completions", {"max_tokens": 8, "seed": 1, **body})
        assert answer.status == 200, answer.body
        return answer.json

    def metric(self, name: str) -> float:
        """A number of /metrics."""
        page = self.ask("/metrics").body.decode()
        (found,) = re.findall(rf"^groundup_{name} (\S+)$", page, re.M)
        return float(found)

    def wait_until_idle(self) -> None:
        """Until nothing is written and no slot is in use."""
        deadline = time.monotonic() + 20
        while self.metric("num_requests_running") or self.metric("kv_cache_usage_perc"):
            assert time.monotonic() < deadline, "slots are still in use"
            time.sleep(0.02)


@contextmanager
def served(model: Path, *args: object, **options: Any) -> Iterator[Served]:
    """`groundup serve MODEL ARGS...` on a free port, ready, while the body runs."""
    words = "serve", model, "--port", "0", *args
    with started(*words, folder=model.parent, **options) as running:
        server = Served(running, 0)
        deadline = time.monotonic() + 60
        while "ready:" not in server.log:
            assert running.process.is_alive(), server.log
            assert time.monotonic() < deadline, server.log
            time.sleep(0.01)
        (port,) = re.findall(r"listening on http://\S+:(\d+)/v1", server.log)
        server.port = int(port)
        yield server
