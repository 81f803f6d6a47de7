"""Claim: over HTTP texts are written at 85% of the engine's own speed, at 1 to 64 clients.

    python benchmarks/serving.py [--rounds 3] [--model large|quickstart] [--without llama.cpp]

A random GPT-2 of GPT-2's shape in bfloat16, or the quickstart's model; prompts of 64 tokens (8 for
the small one) and 128 new tokens, streamed. The server and its clients share the cores: clients are
tasks of this process, which does no more than read events. In each round the engine writes as many
texts by itself, in this process, while the server has nothing to do. The server of llama.cpp (f16,
16 slots of 1,024 tokens, from the extra `peers`) is asked in the same way by 1 and 16 clients.

The last line's ratio is the smallest of those to the engine.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from common import conclude, machine
from decode import build_random, serve_llama_cpp, tokens
from groundup import Engine, Precision, SamplingSettings
from groundup.checkpoints import model_folder
from groundup.export.gguf import export_gguf
from groundup.models.config import GPTConfig
from groundup.models.registry import Model
from groundup.recipes.files import load_recipe, packaged
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.gpt2 import gpt2_tokenizer

CLIENTS = 1, 4, 16, 64
NEW = 128  # tokens of each text
Timed = tuple[float, list[float]]  # the seconds of all texts, and those to each first token


async def stream(port: int, path: str, body: dict[str, Any]) -> float:
    """Ask for a stream, read it to its end, and return the seconds to the first event."""
    begun, sent = time.perf_counter(), json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
    first, whole = 0.0, bytearray()
    while some := await reader.read(2**16):
        if not first and b"data: " in some:
            first = time.perf_counter() - begun
        whole += some
    writer.close()
    assert b" 200 " in whole[:20], whole[:500]
    # llama.cpp holds beginnings of characters back
    all_written = whole.count(b"data: ") >= NEW or b'"predicted_n":%d' % NEW in whole
    assert all_written, whole[-300:]
    return first


def ask(port: int, path: str, bodies: list[dict[str, Any]]) -> Timed:
    """Ask for several streams at once."""

    async def all_of_them() -> list[float]:
        return await asyncio.gather(*(stream(port, path, body) for body in bodies))

    begun = time.perf_counter()
    first = asyncio.run(all_of_them())
    return time.perf_counter() - begun, first


def write(engine: Engine, prompts: list[list[int]]) -> float:
    """Write texts by the engine itself, and return the seconds."""
    for slot in range(engine.pool.slots):  # nothing is read beforehand
        engine.pool.hold(slot, [])
    begun = time.perf_counter()
    settings = SamplingSettings(length=NEW, temperature=0.0, ignore_ends=True)
    requests = [engine.submit(prompt, settings) for prompt in prompts]
    while engine.step():
        pass
    assert all(len(request.choices[0].tokens) == NEW for request in requests)
    return time.perf_counter() - begun


@contextmanager
def running_server(folder: Path, streams: int) -> Iterator[tuple[int, int]]:
    """`groundup serve`, in a process of its own; its port, and the number of its process."""
    words = "serve", str(folder), "--port", "0", "--max-streams", str(streams)
    command = [sys.executable, "-m", "groundup", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = 0
        for line in process.stderr:
            if found := re.search(r"http://\S+:(\d+)/v1", line):
                port = int(found[1])
            if line.startswith("ready"):
                break
        # nobody reads the log: it must not fill the pipe
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        try:
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()
            drain.kill()
            drain.wait()


def compare(
    engine: Engine, port: int, size: int, vocabulary: int, rounds: int
) -> tuple[float, float, float]:
    """Print the speeds at each number of clients; return the smallest ratio with its speeds."""
    worst = 9.0, 0.0, 0.0
    base = {"max_tokens": NEW, "temperature": 0, "stream": True, "ignore_eos": True}
    for clients in CLIENTS:
        ours, alone, firsts = [], [], list[float]()
        for number in range(rounds + 1):
            numbers = range(1000 * number, 1000 * number + clients)
            prompts = [tokens(size + n, vocabulary)[n:] for n in numbers]
            seconds, first = ask(port, "/v1/completions", [base | {"prompt": p} for p in prompts])
            own = write(engine, prompts)
            if number:  # the first round warms up
                ours.append(clients * NEW / seconds)
                alone.append(clients * NEW / own)
                firsts += first
        over, own = statistics.median(ours), statistics.median(alone)
        worst = min(worst, (over / own, over, own))
        print(
            f"  {clients} clients: {over:,.0f} tokens/s over HTTP, {own:,.0f} by the engine "
            f"({over / own:.2f}); first token after {statistics.median(firsts) * 1e3:,.0f} ms",
            flush=True,
        )
    return worst


def ask_llama_cpp(model: Model, folder: Path, rounds: int) -> None:
    """Print the speeds of llama.cpp's server."""
    file = folder / "model.gguf"
    export_gguf(model, gpt2_tokenizer(), file, "f16", "benchmark")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_llama_cpp, args=(str(file), theirs, 16), daemon=True)
    process.start()
    theirs.close()
    port = int(ours.recv().rpartition(":")[2])
    body = {"n_predict": NEW, "temperature": 0, "stream": True, "ignore_eos": True}
    for clients in (1, 16):
        speeds = []
        for number in range(rounds + 1):
            prompts = [tokens(64 + n)[n:] for n in range(1000 * number, 1000 * number + clients)]
            bodies = [body | {"prompt": p, "cache_prompt": False} for p in prompts]
            seconds, _ = ask(port, "/completion", bodies)
            speeds.append(clients * NEW / seconds)
        print(f"  llama.cpp, {clients} clients: {statistics.median(speeds[1:]):,.0f} tokens/s")
    process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast texts are written over HTTP.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=("large", "quickstart"), default="large")
    parser.add_argument("--without", choices=("llama.cpp",))
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / chosen.model
        if chosen.model == "large":
            model, tokenizer = build_random("gpt2", GPTConfig()), gpt2_tokenizer()
            size, vocabulary = 64, 50257
        else:
            tokenizer = CharacterTokenizer(map(chr, range(32, 146)))
            vocabulary, size = tokenizer.vocab_size, 8
            config = load_recipe(packaged("quickstart")).model_config(vocabulary)
            model = build_random("modern", config)
        model_folder.save(folder, model, tokenizer)
        engine = Engine(model, tokenizer, slots=max(CLIENTS), precision=Precision(compile="on"))
        with running_server(folder, max(CLIENTS)) as (port, _):
            ratio, ours, alone = compare(engine, port, size, vocabulary, chosen.rounds)
        if chosen.model == "large" and chosen.without is None:
            ask_llama_cpp(model, Path(place), chosen.rounds)
    claim = "texts are written over HTTP at 85% of the engine's own speed"
    conclude(claim, ratio=ratio, ours=ours, peer=alone, unit="tokens/s")


if __name__ == "__main__":
    main()
