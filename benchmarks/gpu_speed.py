"""The stages of gpu.py that measure what a GPU is, and how fast groundup is on it."""

import gc
import importlib.util
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from gpu_checks import Failed
from gpu_place import Place
from groundup.checkpoints.lifecycle import step_folder
from groundup.data.dataset import Dataset
from groundup.generation.engine import Engine
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import stream_tokens
from groundup.generation.writer import Precision
from groundup.machine import memory
from groundup.machine.kinds import kind_of, module_of
from groundup.machine.memory import is_out_of_memory
from groundup.machine.timing import timed
from groundup.models.registry import Model, build
from groundup.profiling.bench import WARMUP_STEPS, Bench, bench
from groundup.profiling.operations import matmul_peak
from groundup.profiling.plan import one_pass
from groundup.recipes.schema import Recipe
from groundup.training.trainer import Trainer

CLASSIC, MODERN = "gpt2-124m-classic", "gpt2-124m"
FEWEST_STEPS, MOST_STEPS = 3, 20
Found = TypeVar("Found")
SAVES, KERNELS, PROFILED_STEPS = 3, 15, 3


def environment(place: Place) -> Iterator[dict[str, Any]]:
    """Say what the device is, and measure its products and its memory."""
    device, cuda = place.device, module_of(place.device)
    free, everything = cuda.mem_get_info(device)
    yield {
        "card": cuda.get_device_name(device),
        "cards": cuda.device_count(),
        "capability": ".".join(map(str, cuda.get_device_capability(device))),
        "driver": driver(),
        "memory_total": everything,
        "memory_free": free,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "c_compiler": any(shutil.which(name) for name in ("cc", "gcc", "clang")),
    }
    peaks = {"float32": matmul_peak(torch.float32, device)}
    torch.set_float32_matmul_precision("high")
    peaks["tf32"] = matmul_peak(torch.float32, device)
    torch.set_float32_matmul_precision("highest")
    peaks["bfloat16"] = matmul_peak(torch.bfloat16, device)
    yield {"peaks_gflops": {name: peak / 1e9 for name, peak in peaks.items()}}
    source = torch.ones(place.sizes.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = min(timed(lambda: target.copy_(source), device) for _ in range(10))
    yield {"memory_gb_a_second": 2 * len(source) / seconds / 1e9}  # read, and written


def driver() -> str | None:
    """The version of NVIDIA's driver, or None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    return said[0].strip() if said else None


def throughput(place: Place) -> Iterator[dict[str, Any]]:
    """Measure both models of GPT-2's size, and Hugging Face's beside the classic one."""
    started = time.monotonic()
    recipe, dataset = place.large(CLASSIC)
    rows, measured = fitting(place, micro_batch(recipe), lambda rows: ours(place, CLASSIC, rows))
    yield {CLASSIC: figures(measured, rows)}
    if place.left() > 3 * (time.monotonic() - started):
        of_modern = fitting(place, rows, lambda rows: ours(place, MODERN, rows))
        yield {MODERN: figures(of_modern[1], of_modern[0])}
    else:
        yield {MODERN: "no time left for it: give more --minutes"}
    if importlib.util.find_spec("transformers") is None:
        yield {"peer": "transformers isn't installed: pip install 'groundup[interop]'"}
    else:
        rows, found = fitting(place, rows, lambda rows: peer(place, recipe, dataset, rows))
        yield {"peer": {**found, "micro_batch": rows}}


def micro_batch(recipe: Recipe) -> int:
    """The sequences of a forward pass of the recipe."""
    return recipe.train.micro_batch_size or recipe.train.batch_size


def fitting(place: Place, rows: int, attempt: Callable[[int], Found]) -> tuple[int, Found]:
    """Attempt something with so many sequences at once, and with half as many until they fit."""
    while True:
        try:
            return rows, attempt(rows)
        except Exception as error:
            if rows == 1 or not is_out_of_memory(error):
                raise
        rows //= 2  # out of the handler, whose error holds what filled the memory
        make_room(place.device)


def make_room(device: torch.device) -> None:
    """Forget what isn't used any more: memory, and what was compiled."""
    torch._dynamo.reset()
    gc.collect()
    if kind_of(device).counts_memory:
        module_of(device).empty_cache()


def ours(place: Place, name: str, rows: int) -> Bench:
    """Measure a recipe whose steps are one forward pass of so many sequences."""
    recipe, dataset = place.large(name)
    make_room(place.device)
    trainer = one_pass(recipe, dataset, rows, recipe.train.compile)
    return bench(trainer, steps_within(place, trainer.train_step))


def steps_within(place: Place, train_step: Callable[[int], object]) -> int:
    """Train two steps, and return how many fit into the time of a measurement."""
    train_step(0)
    once = timed(lambda: train_step(1), place.device)
    return max(FEWEST_STEPS, min(MOST_STEPS, int(place.sizes.seconds_of_steps / once)))


def figures(measured: Bench, rows: int) -> dict[str, Any]:
    """What is said of a measurement of ours."""
    return {
        "tokens_per_second": measured.tokens_per_second,
        "step_seconds": measured.step_seconds,
        "mfu": measured.mfu,
        "matmul_peak_gflops": measured.matmul_peak / 1e9,
        "peak_memory": measured.peak_memory,
        "micro_batch": rows,
        "tokens_per_step": measured.tokens_per_step,
        "precision": measured.precision,
        "compiled": measured.compiled,
        "phases": measured.phases,
    }


def peer(place: Place, recipe: Recipe, dataset: Dataset, rows: int) -> dict[str, Any]:
    """Measure Hugging Face's model of the same shape, batch and precision, compiled where ours is.

    It is trained as well as its users can: with the loss compiled too, and AdamW's fused kernel.
    """
    from train_throughput import adamw, hugging_face_twin

    make_room(place.device)
    trainer = one_pass(recipe, dataset, rows, "off")
    model, section, device = hugging_face_twin(trainer), recipe.optim, place.device
    trainer.model.cpu()  # no memory of the device is ours
    optimizer = adamw(model, section, fused=True)

    def loss_of(tokens: Tensor) -> Tensor:
        logits = model(input_ids=tokens[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    is_compiled = place.sizes.compile != "off"
    compute = torch.compile(loss_of, dynamic=False) if is_compiled else loss_of
    in_bfloat16 = trainer.machine.precision == "bfloat16"

    def train_step(step: int) -> float:
        tokens, _ = trainer.loader.take(step, 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
            loss = compute(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), section.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    steps = steps_within(place, train_step)
    for step in range(WARMUP_STEPS):
        train_step(step)
    memory.forget_peak(device)
    seconds = statistics.median(
        timed(lambda step=step: train_step(step), device) for step in range(steps)
    )
    return {
        "tokens_per_second": trainer.recipe.tokens_per_step / seconds,
        "step_seconds": seconds,
        "peak_memory": memory.peak(device),
        "precision": trainer.machine.precision,
        "compiled": is_compiled,
    }


def decoding(place: Place) -> Iterator[dict[str, Any]]:
    """Write a text with GPT-2's shape in float32 and bfloat16, a batch of one."""
    recipe, dataset = place.large(CLASSIC)
    torch.manual_seed(0)
    model = build("gpt2", recipe.model_config(dataset.tokenizer.vocab_size)).to(place.device)
    prompt = torch.randint(dataset.tokenizer.vocab_size, (1, place.sizes.prompt))
    yield {"prompt": place.sizes.prompt, "written": place.sizes.written}
    for precision in ("float32", "bfloat16"):
        model = model.to(getattr(torch, precision))
        seconds_of_text(model, prompt, place.sizes.written)  # warms up
        first, others = seconds_of_text(model, prompt, place.sizes.written)
        yield {
            precision: {
                "prefill_seconds": first,
                "prefill_tokens_per_second": place.sizes.prompt / first,
                "tokens_per_second": (place.sizes.written - 1) / others,
            }
        }
    if not place.is_toy:  # the device for tests compiles nothing
        yield {"compiled_bfloat16": compiled_writing(model, prompt, place.sizes.written)}


def compiled_writing(model: Model, prompt: Tensor, length: int) -> dict[str, float]:
    """The seconds of the first text, which compiles, and the tokens/s of the second one."""
    engine = Engine(model, slots=1, precision=Precision(compile="on"))
    settings, seconds = SamplingSettings(length=length, seed=1), []
    for _ in range(2):
        started = time.perf_counter()
        assert sum(1 for _ in engine.submit(prompt[0].tolist(), settings)) == length
        seconds.append(time.perf_counter() - started)
    return {"first_seconds": seconds[0], "tokens_per_second": length / seconds[1]}


def seconds_of_text(model: Model, prompt: Tensor, length: int) -> tuple[float, float]:
    """The seconds until the first token of a text, and those of all others."""
    started = time.perf_counter()
    tokens = stream_tokens(model, prompt, SamplingSettings(length=length, seed=1))
    next(tokens)
    first = time.perf_counter()
    assert sum(1 for _ in tokens) == length - 1
    return first - started, time.perf_counter() - first


def save(place: Place) -> Iterator[dict[str, Any]]:
    """Save checkpoints of GPT-2's size with its optimizer, while which training stands still."""
    recipe, dataset = place.large(CLASSIC)
    trainer = one_pass(recipe, dataset, 1, "off")
    trainer.train_step(0)  # makes the optimizer's state
    seconds, checkpoints = [], place.folder / "saved"
    for step in range(1, SAVES + 1):
        trainer.progress.step, into = step, step_folder(checkpoints, step)
        seconds.append(timed(lambda into=into: trainer.save(into, None), place.device))
    files = [path for path in step_folder(checkpoints, SAVES).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    blocked = statistics.median(seconds)
    yield {"blocks_seconds": blocked, "all_seconds": seconds, "bytes": size}
    yield {"gb_a_second": size / blocked / 1e9, "folder": str(Path.cwd())}


def kernels(place: Place) -> Iterator[dict[str, Any]]:
    """Profile some steps, and list the longest kernels.

    Raises:
        Failed: The profiler saw no kernel.
    """
    recipe, dataset = place.large(CLASSIC)
    attempt = micro_batch(recipe)
    rows, trainer = fitting(place, attempt, lambda rows: warmed(place, recipe, dataset, rows))
    alone = timed(lambda: trainer.train_step(WARMUP_STEPS), place.device)
    is_gpu = kind_of(place.device).is_gpu
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * is_gpu]) as profiler:
        for step in range(PROFILED_STEPS):
            timed(lambda step=step: trainer.train_step(step), place.device)
    times, calls = dict[str, float](), 0  # seconds a step
    for each in profiler.key_averages():
        if (each.device_type.name == "CPU") == is_gpu or each.is_user_annotation:
            continue
        spent = each.self_device_time_total if is_gpu else each.self_cpu_time_total
        times[each.key] = times.get(each.key, 0.0) + spent / 1e6 / PROFILED_STEPS
        calls += each.count
    if not (whole := sum(times.values())):
        raise Failed("the profiler saw no kernel")
    yield {
        "micro_batch": rows,
        "compiled": trainer.recipe.train.compile == "on",
        "step_seconds": alone,
        "kernel_seconds": whole,
        "kernels_a_step": calls / PROFILED_STEPS,
        "longest": [
            {"kernel": name[:100], "milliseconds": 1e3 * seconds, "share": seconds / whole}
            for name, seconds in sorted(times.items(), key=lambda each: -each[1])[:KERNELS]
        ],
    }


def warmed(place: Place, recipe: Recipe, dataset: Dataset, rows: int) -> Trainer:
    """Build a trainer whose steps are one forward pass of so many sequences, and warm it up."""
    make_room(place.device)
    trainer = one_pass(recipe, dataset, rows, recipe.train.compile)
    for step in range(WARMUP_STEPS):
        trainer.train_step(step)
    return trainer
