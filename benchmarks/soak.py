"""Claim: 64 streams at once, for as long as you like, get what each would get alone.

    python benchmarks/soak.py [--minutes 10] [--model FOLDER]

A random model of the quickstart's shape (or a folder) is served. 50 different requests, of all
kinds, are computed alone first, by an engine of this process. Then 64 clients ask for them in a
random order until the time is over, and every answer is compared. Once a second the resident memory
of the server is read, and /health is asked. Then, for a tenth of the time, ten times as many
requests a second arrive as were answered before: what is refused must be so at once, and what is
answered is compared, too. The clients share the cores with the server.

The last line's ratio is that of the server's memory after a tenth of the time to that at the end: 1
is flat.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import conclude
from decode import build_random
from groundup import Engine, SamplingSettings, load
from groundup.checkpoints import model_folder
from groundup.recipes.files import load_recipe, packaged
from groundup.tokenizers.characters import CharacterTokenizer
from serving import running_server

STREAMS, KINDS = 64, 50
WORDS = "the", "a", "return", "class", "def", "if", "for", "while", "None", "self", "import", "of"


def requests(seed: int = 0) -> list[dict[str, Any]]:
    """Different requests: greedy and drawn, short and past the context, with penalties or stops."""
    generator = random.Random(seed)
    found = []
    for number in range(KINDS):
        words = generator.choices(WORDS, k=generator.randint(1, 15))
        body: dict[str, Any] = {"prompt": " ".join(words), "seed": number}
        body["max_tokens"] = generator.choice([5, 20, 60, 200])
        body["temperature"] = generator.choice([0.0, 0.7, 1.0, 1.4])
        body |= generator.choice([{}, {"top_p": 0.9}, {"top_k": 5}, {"presence_penalty": 1.0}])
        body |= generator.choice([{}, {}, {"stop": ["e"]}, {"repetition_penalty": 1.2}])
        found.append(body)
    return found


def alone(folder: Path, bodies: list[dict[str, Any]]) -> list[str]:
    """What each request gets with nobody else."""
    engine, texts = Engine(*load(folder), slots=1), []
    for body in bodies:
        given = dict(body)
        given["length"], given["stop"] = given.pop("max_tokens"), tuple(given.pop("stop", ()))
        request = engine.submit(given.pop("prompt"), SamplingSettings(**given))
        texts.append("".join(written.text for written in request))
    return texts


@dataclass
class Answered:
    """An answer: its status, its text, and the seconds to its first byte."""

    status: int
    text: str
    seconds: float


async def ask(port: int, body: dict[str, Any] | None) -> Answered:
    """Ask for a stream, and read it to its end; without a body ask for /health."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    kind = "GET /health" if body is None else "POST /v1/completions"
    sent = "" if body is None else json.dumps(body | {"stream": True})
    head = f"{kind} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    begun = time.perf_counter()
    writer.write((head + sent).encode())
    whole = await reader.read(2**16)
    seconds = time.perf_counter() - begun
    whole += await reader.read(-1)
    writer.close()
    status = int(whole.split(b" ", 2)[1])
    assert body is None or status != 200 or b"data: [DONE]" in whole, whole[-500:]
    events = re.findall(rb"^data: (\{.*\})\r?$", whole, re.MULTILINE)
    texts = (json.loads(event)["choices"][0]["text"] for event in events)
    return Answered(status, "".join(texts), seconds)


def resident(process: int) -> float:
    """The resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20


async def watch(port: int, end: float, pause: float, waits: list[float]) -> None:
    """Ask for /health until the time is over, and note how long each answer took."""
    while time.monotonic() < end:
        answered = await ask(port, None)
        assert answered.status == 200
        waits.append(answered.seconds)
        await asyncio.sleep(pause)


async def soak(
    port: int, process: int, bodies: list[dict[str, Any]], expected: list[str], seconds: float
) -> tuple[int, list[float], list[float]]:
    """Ask until the time is over; return the answers' number, memory and /health's seconds."""
    end, count = time.monotonic() + seconds, 0
    memory, waits = list[float](), list[float]()

    async def client(number: int) -> None:
        nonlocal count
        generator = random.Random(number)
        while time.monotonic() < end:
            kind = generator.randrange(KINDS)
            answered = await ask(port, bodies[kind])
            assert (answered.status, answered.text) == (200, expected[kind]), bodies[kind]
            count += 1

    async def weigh() -> None:
        while time.monotonic() < end:
            memory.append(resident(process))
            await asyncio.sleep(1)

    await asyncio.gather(watch(port, end, 1, waits), weigh(), *map(client, range(STREAMS)))
    return count, memory, waits


async def overload(
    port: int, bodies: list[dict[str, Any]], expected: list[str], rate: float, seconds: float
) -> tuple[list[float], list[float], int]:
    """Send so many requests a second; return the seconds of refusals and of /health."""
    end, waits, answers = time.monotonic() + seconds, list[float](), list[Answered]()
    generator, asked = random.Random(1), list[asyncio.Task[None]]()

    async def client(kind: int) -> None:
        answered = await ask(port, bodies[kind])
        assert answered.status == 429 or answered.text == expected[kind], bodies[kind]
        answers.append(answered)

    watching = asyncio.create_task(watch(port, end, 0.05, waits))
    begun, sent = time.monotonic(), 0
    while (now := time.monotonic()) < end:
        for _ in range(int((now - begun) * rate) - sent):
            asked.append(asyncio.create_task(client(generator.randrange(KINDS))))
            sent += 1
        await asyncio.sleep(1 / rate)
    await asyncio.gather(watching, *asked)
    refused = [answered.seconds for answered in answers if answered.status == 429]
    return refused, waits, sent


def at_p99(seconds: list[float]) -> str:
    """The time that one of a hundred exceeds."""
    return f"{sorted(seconds)[int(0.99 * len(seconds))] * 1e3:,.0f} ms at p99"


def main() -> None:
    parser = argparse.ArgumentParser(description="Many streams for long.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = chosen.model or Path(place) / "quickstart"
        if chosen.model is None:
            tokenizer = CharacterTokenizer(map(chr, range(32, 146)))
            config = load_recipe(packaged("quickstart")).model_config(tokenizer.vocab_size)
            model_folder.save(folder, build_random("modern", config), tokenizer)
        bodies = requests()
        expected = alone(folder, bodies)
        seconds = 60 * chosen.minutes
        with running_server(folder, STREAMS) as (port, process):
            work = soak(port, process, bodies, expected, seconds)
            count, memory, waits = asyncio.run(work)
            print(f"{count:,} answers, all as alone; /health {at_p99(waits)}", flush=True)
            rate = 10 * count / seconds
            much = overload(port, bodies, expected, rate, max(5, seconds / 10))
            refused, waits, sent = asyncio.run(much)
            print(f"{rate:,.0f} requests a second: {len(refused):,} of {sent:,} refused", end=" ")
            print(f"({at_p99(refused)}); /health {at_p99(waits)}", flush=True)
    early, late = memory[len(memory) // 10], statistics.median(memory[-len(memory) // 10 :])
    claim = "64 streams get what each would get alone, in memory that stays flat"
    conclude(claim, ratio=early / late, ours=late, peer=early, unit="MiB")


if __name__ == "__main__":
    main()
