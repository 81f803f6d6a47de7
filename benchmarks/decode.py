"""Claim: GPT-2 of 124M parameters writes at least twice as fast as in transformers, on a CPU.

    python benchmarks/decode.py [--rounds 5] [--only PART] [--without llama.cpp]

A random GPT-2 of GPT-2's shape, and a random model of the quickstart's. Parts, each in rounds in
which every contender has its turn and another begins; medians count:

    one      greedy, a prompt of 64 tokens, 256 new ones, wall time with prefill; two threads each.
             groundup in float32, bfloat16 and int8; transformers' generate in float32, and in
             bfloat16 where the processor has units for it; llama.cpp's server in f16, bf16, q8_0
    prefill  a prompt of 512 tokens and one new one
    sixteen  16 prompts of 64 tokens and 64 new tokens each, at once; transformers in one batch
    small    the quickstart's model: 8 tokens and 112 new ones, each at its best number of threads
    past     1,000 tokens past the context, against the speed within it, and the longest pause
    memory   resident memory after warm-up, above a process that imported torch and compiled a
             function, against the bytes of weights and cache; seconds to build the C++

llama.cpp comes from the extra `peers`. The last line's ratio is that of `one`: groundup in bfloat16
against transformers at its best.
"""

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from common import conclude, machine, quoted
from groundup import Engine, Precision, SamplingSettings
from groundup.checkpoints import model_folder
from groundup.export.gguf import export_gguf
from groundup.machine.device import choose_precision
from groundup.models.config import GPTConfig
from groundup.models.registry import Model, build
from groundup.recipes.files import load_recipe, packaged
from groundup.tokenizers.gpt2 import gpt2_tokenizer

THREADS = 2
CPU = torch.device("cpu")
Ask = Callable[[list[list[int]], int], object]  # prompts, and the number of new tokens of each


@dataclass
class Contender:
    """Who writes, and the seconds that it took in each round."""

    name: str
    ask: Ask
    threads: int = THREADS
    seconds: list[float] = field(default_factory=list)

    def run(self, prompts: list[list[int]], new: int) -> None:
        """Write one round's texts."""
        torch.set_num_threads(self.threads)
        started = time.perf_counter()
        self.ask(prompts, new)
        self.seconds.append(time.perf_counter() - started)


def ours(model: Model, dtype: str, slots: int) -> Ask:
    """What `groundup generate` does; int8 is a dtype here."""
    kind = Precision(quantize="int8") if dtype == "int8" else Precision(dtype=dtype)
    engine = Engine(model, slots=slots, precision=replace(kind, compile="on"))

    def ask(prompts: list[list[int]], new: int) -> None:
        for slot in range(slots):  # nothing is read beforehand
            engine.pool.hold(slot, [])
        settings = SamplingSettings(length=new, temperature=0.0, ignore_ends=True)
        requests = [engine.submit(prompt, settings) for prompt in prompts]
        while engine.step():
            pass
        assert all(len(request.choices[0].tokens) == new for request in requests)

    return ask


def transformers(folder: Path, dtype: torch.dtype) -> Ask:
    """What `generate` of transformers does, with its own cache."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def ask(prompts: list[list[int]], new: int) -> None:
        tokens = torch.tensor(prompts)
        length = {"max_new_tokens": new, "min_new_tokens": new}
        mask = torch.ones_like(tokens)
        found = model.generate(
            tokens, attention_mask=mask, do_sample=False, pad_token_id=0, **length
        )
        assert found.size(1) == tokens.size(1) + new

    return ask


def llama_cpp(model: Model, folder: Path, kind: Any) -> Ask:
    """What llama.cpp's server answers, with its own defaults for keys and values.

    It has a process of its own: OpenMP's threads wait less well for one another where a process has
    more of them than the machine has cores, and others would be slower beside it.
    """
    file = folder / f"{kind}.gguf"
    if not file.exists():
        export_gguf(model, gpt2_tokenizer(), file, kind, "benchmark")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=serve_llama_cpp, args=(str(file), theirs), daemon=True).start()
    theirs.close()
    address = ours.recv()

    def ask(prompts: list[list[int]], new: int) -> None:
        (prompt,) = prompts
        wanted = {"prompt": prompt, "n_predict": new, "temperature": 0.0, "ignore_eos": True}
        body = json.dumps(wanted | {"cache_prompt": False}).encode()
        request = urllib.request.Request(
            f"{address}/completion", body, {"Content-Type": "application/json"}
        )
        assert not ours.closed  # which would end it
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=600) as answer:
            assert json.load(answer)["tokens_predicted"] == new

    return ask


def serve_llama_cpp(file: str, pipe: Any, slots: int = 1) -> None:
    """Serve a GGUF file until the other end of a pipe is closed, and say where."""
    llama: Any = importlib.import_module("xllamacpp")
    settings = llama.CommonParams()
    settings.model.path = file
    settings.n_ctx, settings.n_parallel, settings.verbosity = 1024 * slots, slots, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = THREADS
    server = llama.Server(settings)
    pipe.send(server.listening_address)
    with suppress(EOFError):
        pipe.recv()


def compare(
    contenders: list[Contender], prompts: list[list[int]], new: int, rounds: int
) -> dict[str, float]:
    """Print what each reached, in tokens/s, and return it by name.

    Args:
        contenders: Who writes; each runs once to warm up.
        prompts: The prompts, the same for all.
        new: The number of new tokens of each. If it is 1, the prompt's tokens count instead.
        rounds: The number of rounds.
    """
    per = new * len(prompts) if new > 1 else sum(map(len, prompts))
    for contender in contenders:
        contender.run(prompts, min(new, 8))
        contender.seconds.clear()
    for number in range(rounds):
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            contender.run(prompts, new)
    speeds = {}
    for contender in contenders:
        speeds[contender.name] = per / statistics.median(contender.seconds)
        spread = ", ".join(f"{per / seconds:,.1f}" for seconds in sorted(contender.seconds))
        print(f"  {contender.name}: {speeds[contender.name]:,.1f} tokens/s ({spread})", flush=True)
    return speeds


def best(speeds: dict[str, float], name: str) -> float:
    """The best speed of those whose name begins so."""
    return max(speed for each, speed in speeds.items() if each.startswith(name))


def halves(speeds: dict[str, float]) -> float:
    """The speed of llama.cpp's better type of 16 bits."""
    return max(speeds["llama.cpp f16"], speeds["llama.cpp bf16"])


def say(what: str, ratio: float) -> None:
    print(f"  {what}: {ratio:.2f} times", flush=True)


def large(folder: Path, peers: bool, slots: int) -> list[Contender]:
    """The contenders of the model of 124M parameters."""
    model = build_random("gpt2", GPTConfig())
    model_folder.save(folder / "large", model, gpt2_tokenizer())
    found = [
        Contender(f"groundup {dtype}", ours(model, dtype, slots))
        for dtype in ("float32", "bfloat16", "int8")
    ]
    found.append(Contender("transformers float32", transformers(folder / "large", torch.float32)))
    if choose_precision("auto", CPU) == "bfloat16":
        contender = transformers(folder / "large", torch.bfloat16)
        found.append(Contender("transformers bfloat16", contender))
    if peers and slots == 1:
        for kind in ("f16", "bf16", "q8_0"):
            found.append(Contender(f"llama.cpp {kind}", llama_cpp(model, folder, kind)))
    return found


def build_random(architecture: str, config: Any) -> Model:
    """A random model in eval mode."""
    torch.manual_seed(0)
    return build(architecture, config).eval()


def tokens(count: int, vocab_size: int = 50257) -> list[int]:
    """A prompt of random tokens, always the same."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(vocab_size, (count,), generator=generator).tolist()


def one(folder: Path, rounds: int, peers: bool) -> dict[str, float]:
    print("one: 124M, a prompt of 64 tokens and 256 new ones", flush=True)
    speeds = compare(large(folder, peers, 1), [tokens(64)], 256, rounds)
    transformer, mine = best(speeds, "transformers"), speeds["groundup bfloat16"]
    say("bfloat16 against transformers' best", mine / transformer)
    if peers:
        say("against llama.cpp's f16 or bf16", mine / halves(speeds))
        say("int8 against llama.cpp's q8_0", speeds["groundup int8"] / speeds["llama.cpp q8_0"])
    return {"ours": mine, "peer": transformer}


def prefill(folder: Path, rounds: int, peers: bool) -> None:
    print("prefill: 124M, a prompt of 512 tokens and one new one", flush=True)
    speeds = compare(large(folder, peers, 1), [tokens(512)], 1, rounds)
    say("against transformers' best", best(speeds, "groundup") / best(speeds, "transformers"))
    if peers:
        say("against llama.cpp's f16 or bf16", best(speeds, "groundup") / halves(speeds))


def sixteen(folder: Path, rounds: int, _peers: bool) -> None:
    print("sixteen: 124M, 16 prompts of 64 tokens and 64 new ones each", flush=True)
    prompts = [tokens(64 + number)[number:] for number in range(16)]
    speeds = compare(large(folder, False, 16), prompts, 64, rounds)
    alone = compare(large(folder, False, 1)[:3], [tokens(64)], 64, rounds)
    for name, speed in alone.items():
        say(f"{name} against one text at a time", speeds[name] / speed)
    say("against transformers' best", best(speeds, "groundup") / best(speeds, "transformers"))


def small(folder: Path, rounds: int, _peers: bool) -> None:
    print("small: the quickstart's model, 8 tokens and 112 new ones", flush=True)
    model = build_random("modern", load_recipe(packaged("quickstart")).model_config(114))
    model_folder.save(folder / "small", model, None)
    contenders = []
    for threads in (1, 2):
        said = f"{threads} thread" + "s" * (threads > 1)
        mine, peer = ours(model, "auto", 1), transformers(folder / "small", torch.float32)
        contenders += [Contender(f"groundup, {said}", mine, threads)]
        contenders += [Contender(f"transformers, {said}", peer, threads)]
    speeds = compare(contenders, [tokens(8, 114)], 112, rounds)
    say("each at its best", best(speeds, "groundup") / best(speeds, "transformers"))


def past(_folder: Path, rounds: int, _peers: bool) -> None:
    print("past: 124M in bfloat16, 1,000 tokens past the context", flush=True)
    torch.set_num_threads(THREADS)
    model = build_random("gpt2", GPTConfig())
    within, beyond, pauses = [], [], []
    for _ in range(max(1, rounds // 2)):
        engine = Engine(model, slots=1, precision=Precision(dtype="bfloat16", compile="on"))
        settings = SamplingSettings(length=2023, temperature=0.0)
        times = [time.perf_counter() for _ in engine.submit([1], settings)]
        within.append(1000 / (times[1000] - times[0]))
        beyond.append(1000 / (times[2022] - times[1022]))
        pauses.append(max(b - a for a, b in itertools.pairwise(times)))
    print(f"  within {statistics.median(within):,.1f}, past it {statistics.median(beyond):,.1f}")
    say("past the context against within it", statistics.median(beyond) / statistics.median(within))
    print(f"  the longest pause: {1e3 * max(pauses):,.0f} ms", flush=True)


RESIDENT = """
import gc, sys, time, torch
from pathlib import Path
def resident():
    gc.collect()
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmRSS")) * 1024
torch.set_num_threads(2)
torch.compile(lambda x: (x * 2).sin().sum())(torch.ones(1000))
before = resident()
from groundup import Engine, Precision, SamplingSettings
from groundup.models.config import GPTConfig
from groundup.models.gpt2 import GPT2
model = GPT2(GPTConfig()).eval()
kind = sys.argv[1]
precision = Precision(quantize=kind) if kind == "int8" else Precision(dtype=kind)
started = time.perf_counter()
engine = Engine(model, slots=1, precision=precision)
seconds = time.perf_counter() - started
del model
list(engine.submit([1] * 512, SamplingSettings(length=512, temperature=0.0)))
weights = sum({m.matrix.weight.data_ptr(): m.matrix.weight.nbytes
               for m in engine.writer.model.modules() if hasattr(m, "matrix")}.values())
weights += sum(p.nbytes for p in engine.writer.model.parameters())
print(resident() - before, weights + engine.writer.slots.memory.nbytes, seconds)
"""


LOADED = """
import time
from groundup.generation.kernels import load_kernels
started = time.perf_counter()
load_kernels()
print(time.perf_counter() - started)
"""


def memory(folder: Path, _rounds: int, _peers: bool) -> None:
    print("memory: 124M, 1,024 tokens in one slot", flush=True)
    for kind in ("float32", "bfloat16", "int8"):
        command = [sys.executable, "-c", RESIDENT, kind]
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        grown, needed = int(words[0]), int(words[1])
        print(f"  {kind}: {grown / 1e6:,.0f} MB for {needed / 1e6:,.0f} MB", end="; ")
        say("of weights and cache", grown / needed)
    environment = os.environ | {"GROUNDUP_CACHE": str(folder / "empty")}
    for state in ("cold", "warm"):
        found = subprocess.run(
            [sys.executable, "-c", LOADED],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        print(f"  the C++, {state}: {float(found.stdout):.3f} s", flush=True)


PARTS = {"one": one, "prefill": prefill, "sixteen": sixteen, "small": small, "past": past}
PARTS["memory"] = memory


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast texts are written.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--without", choices=["llama.cpp"])
    given = parser.parse_args()
    print(machine(), flush=True)
    found = {"ours": 0.0, "peer": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            if given.only in (None, name):
                place = Path(folder) / name
                place.mkdir()
                found = part(place, given.rounds, given.without is None) or found
    if found["peer"]:
        claim = "GPT-2 of 124M parameters writes at least twice as fast as in transformers"
        ratio = found["ours"] / found["peer"]
        script = quoted("decode", parser, given, "only")
        conclude(claim, **found, ratio=ratio, unit="tokens/s", script=script)


if __name__ == "__main__":
    main()
