"""How fast a model writes on this machine, and how near that is to what its memory allows."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from groundup.errors import GenerationError
from groundup.generation.engine import Engine
from groundup.generation.packed import weight_bytes
from groundup.generation.settings import SamplingSettings
from groundup.generation.slots import text_bytes, token_bytes
from groundup.generation.texts import Request
from groundup.generation.writer import Precision, Writer
from groundup.machine import memory
from groundup.machine.timing import timed
from groundup.models.registry import Model, architecture_of, count_parameters
from groundup.profiling.operations import read_bandwidth
from groundup.profiling.writing import texts_that_fit

SIZES = (1, 4, 16)  # texts that are written at once
LONGEST_PROMPT = 256  # tokens
PROMPTS = 3  # that are read, or as many as there are texts: many of a large model take a minute


@dataclass(frozen=True)
class Batch:
    """How fast several texts are written at once. Times are medians of what was measured.

    Attributes:
        texts: The number of texts.
        first_token_seconds: The seconds until the last of them has its first token, where prompts
            of different tokens are given all at once.
        step_seconds: The seconds of a step, which writes a token of each text.
        tokens_per_second: The tokens of all texts that are written in a second.
        bytes_per_step: The bytes of weights, keys and values that a step reads.
        bandwidth_share: The share of the machine's read bandwidth that a step reaches. It can be
            above 1 where the weights stay in the processor's own cache.
    """

    texts: int
    first_token_seconds: float
    step_seconds: float
    tokens_per_second: float
    bytes_per_step: int
    bandwidth_share: float


@dataclass(frozen=True)
class Decoding:
    """What `bench --decode` measured.

    Attributes:
        architecture: The model's architecture.
        parameters: The number of the model's parameters.
        device: Where it writes.
        dtype: The dtype of its weights.
        compiled: Whether groundup's C++ multiplies.
        threads: The number of threads.
        weights: The bytes of the weights.
        prompt: The number of tokens of a prompt.
        prefill_tokens_per_second: The tokens of a prompt that are read in a second.
        read_bandwidth: The bytes that the machine reads in a second.
        batches: What was measured with each number of texts that fits in memory.
    """

    architecture: str
    parameters: int
    device: str
    dtype: str
    compiled: bool
    threads: int
    weights: int
    prompt: int
    prefill_tokens_per_second: float
    read_bandwidth: float
    batches: list[Batch]


def decode_bench(model: Model, precision: Precision, steps: int) -> Decoding:
    """Write texts of random prompts, 1, 4 and 16 at once, and time it. Texts are greedy.

    Args:
        model: The model.
        precision: How it writes.
        steps: The number of steps that are timed with each number of texts, at least.

    Raises:
        GenerationError: The model's context is too short.
        MachineError: The precision asks for what the machine doesn't have.
    """
    prompt = min(LONGEST_PROMPT, model.block_size // 2)
    # the step that reads the prompt's end writes two tokens
    room = min(model.block_size, prompt + 2 + steps)
    if room < prompt + 3:
        wanted = "writing is measured with a context of at least 5 tokens"
        raise GenerationError(f"the model's context is {model.block_size}: {wanted}")
    engine = Engine(model, slots=1, room=room, precision=precision)
    writer, bandwidth, batches = engine.writer, read_bandwidth(engine.writer.device), []
    for texts in sizes_that_fit(model, writer, room):
        if texts > 1:
            engine = Engine(model, slots=texts, room=room, precision=precision)
        batches.append(_measured(engine, texts, prompt, steps, bandwidth))
    return Decoding(
        architecture=architecture_of(model),
        parameters=count_parameters(model),
        device=str(writer.device),
        dtype=str(writer.dtype).removeprefix("torch."),
        compiled=writer.kernels is not None,
        threads=torch.get_num_threads(),
        weights=weight_bytes(writer.model),
        prompt=prompt,
        prefill_tokens_per_second=prompt / batches[0].first_token_seconds,
        read_bandwidth=bandwidth,
        batches=batches,
    )


def sizes_that_fit(model: Model, writer: Writer, room: int) -> list[int]:
    """Return which of SIZES fit in memory: the first one always, because it is there already.

    Args:
        model: The model that was given, whose own weights stay in memory.
        writer: The model as it writes.
        room: The number of tokens of a text.
    """
    weights, shared = weight_bytes(writer.model), writer.dtype == next(model.parameters()).dtype
    held = weights if shared else weights + weight_bytes(model)
    fit = texts_that_fit(memory.available(writer.device), held, text_bytes(writer.model, room))
    return [texts for texts in SIZES if fit is None or texts <= max(1, fit)]


def _measured(engine: Engine, texts: int, prompt: int, steps: int, bandwidth: float) -> Batch:
    """Measure an engine that writes so many texts at once."""
    length = engine.pool.room - prompt
    settings = SamplingSettings(length=length, temperature=0.0)
    prompts = _prompts(engine.writer.vocab_size, prompt)
    first = statistics.median(
        _seconds_to_first_tokens(engine, prompts, texts, settings)
        for _ in range(max(1, PROMPTS // texts))
    )
    step = statistics.median(_seconds_of_steps(engine, prompts, texts, settings, steps))
    model = engine.writer.model
    mean = prompt + (length + 1) // 2  # of prompt + 2 to prompt + length - 1 tokens
    read = weight_bytes(model, of_a_step=True) + texts * mean * token_bytes(model)
    return Batch(texts, first, step, texts / step, read, read / step / bandwidth)


def _prompts(vocab_size: int, length: int) -> Iterator[list[int]]:
    """Yield prompts of random tokens, no two of which begin alike in a large vocabulary."""
    random = torch.Generator().manual_seed(0)
    while True:
        yield torch.randint(vocab_size, (length,), generator=random).tolist()


def _seconds_to_first_tokens(
    engine: Engine, prompts: Iterator[list[int]], texts: int, settings: SamplingSettings
) -> float:
    """Return the seconds from giving prompts to the first token of the last one's text."""
    asked: list[Request] = []

    def write() -> None:
        asked.extend(engine.submit(next(prompts), settings) for _ in range(texts))
        while not all(request.choices[0].tokens for request in asked):
            engine.step()

    seconds = timed(write, engine.writer.device)
    for request in asked:
        engine.cancel(request)
    return seconds


def _seconds_of_steps(
    engine: Engine,
    prompts: Iterator[list[int]],
    texts: int,
    settings: SamplingSettings,
    steps: int,
) -> list[float]:
    """Return the seconds of at least `steps` steps, in each of which all texts get a token."""
    seconds: list[float] = []
    while len(seconds) < steps:
        request = engine.submit(next(prompts), settings, texts)  # one prompt: all begin together
        while not all(choice.tokens for choice in request.choices):
            engine.step()
        while request.open:
            seconds.append(timed(engine.step, engine.writer.device))
    return seconds
