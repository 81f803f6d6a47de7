"""Claim: 64 streams at once, for as long as you like, get what each would get alone.

    python benchmarks/soak.py [--minutes 10] [--model FOLDER]

A random model of the quickstart's shape (or a folder) is served. 50 different requests, of all
kinds, are computed alone first, by an engine of this process. Then 64 clients ask for them in a
random order until the time is over, and every answer is compared. Once a second the resident memory
of the server is read, and /health is asked. The last line's ratio is that of the server's memory
after a tenth of the time to that at the end: 1 is flat.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import tempfile
import time
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


async def ask(port: int, body: dict[str, Any]) -> str:
    """Ask for a stream, and return its whole text."""
    sent = json.dumps(body | {"stream": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
    whole = await reader.read(-1)
    writer.close()
    events = re.findall(rb"^data: (\{.*\})\r?$", whole, re.MULTILINE)
    assert b"data: [DONE]" in whole, whole[-500:]
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def resident(process: int) -> float:
    """The resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20


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
            text = await ask(port, bodies[kind])
            assert text == expected[kind], (bodies[kind], text, expected[kind])
            count += 1

    async def watch() -> None:
        while time.monotonic() < end:
            begun = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b" 200 " in await reader.read(-1)
            writer.close()
            waits.append(time.perf_counter() - begun)
            memory.append(resident(process))
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *map(client, range(STREAMS)))
    return count, memory, waits


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
        with running_server(folder, STREAMS) as (port, process):
            work = soak(port, process, bodies, expected, 60 * chosen.minutes)
            count, memory, waits = asyncio.run(work)
    early, late = memory[len(memory) // 10], statistics.median(memory[-len(memory) // 10 :])
    slowest = sorted(waits)[int(0.99 * len(waits))]
    print(f"{count:,} answers, all as alone; /health at p99 {slowest * 1e3:.0f} ms", flush=True)
    claim = "64 streams get what each would get alone, in memory that stays flat"
    conclude(claim, ratio=early / late, ours=late, peer=early, unit="MiB")


if __name__ == "__main__":
    main()
