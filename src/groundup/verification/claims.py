"""What groundup claims of a model, each claim a function that measures how far the machine at hand
is from it.

A claim yields an error and its bound for each of its parts. It raises Skipped, with the reason,
where it can't be examined; any other exception means that it doesn't hold.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.checkpoints import model_folder
from groundup.generation import stream as engine
from groundup.machine.device import has_compiler
from groundup.models import correspondence
from groundup.models.gpt2 import GPT2
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model, cache_for, hidden_states
from groundup.optim.groups import RULES, build_optimizers
from groundup.recipes.schema import OptimSection
from groundup.training.compiling import parts_of
from groundup.training.failures import is_out_of_memory
from groundup.training.objective import NextTokenLoss
from groundup.verification.differences import (
    Tensors,
    count_unequal,
    gradients_of,
    of_norms,
    relative,
    relative_of_all,
)
from groundup.verification.model_under_test import (
    CPU,
    TIME,
    Measured,
    Skipped,
    Subject,
    logits_of,
    outcome,
)

# AdamW divides by a gradient's size, the rounding of small ones with it
IN_FLOAT64, STEP_IN_FLOAT64 = 1e-12, 1e-10
IN_FLOAT32, GRADIENTS_IN_FLOAT32 = 1e-5, 1e-4
LOGITS_IN_BFLOAT16, GRADIENTS_IN_BFLOAT16 = 0.05, 0.1  # of eight bits, through every layer

LEARNING = OptimSection(learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0)
NEW_TOKENS = 24
OLDEST_TRANSFORMERS = 5
SHORT_CONTEXT = 256  # up to here texts run past the context too, so that its window slides


@dataclass(frozen=True)
class Lesson:
    """What a model makes of a batch, and what the batch makes of the model."""

    logits: Tensor
    gradients: Tensors
    weights: Tensors


def readable_is_fused(subject: Subject) -> Iterator[Measured]:
    """`readable.py` and `gpt2.py`, weights mapped: logits, gradients, and the weights after a
    clipped step of AdamW.
    """
    subject.check_memory(8)
    gpt2, readable = _twins(subject.copied(torch.float64, CPU))
    expected, found = _lesson(readable, subject.tokens()), _lesson(gpt2, subject.tokens())
    yield Measured("logits", relative(found.logits, expected.logits), IN_FLOAT64)
    yield Measured(
        "gradients", relative_of_all(found.gradients, _mapped(expected.gradients, gpt2)), IN_FLOAT64
    )
    yield Measured(
        "a step", relative_of_all(found.weights, _mapped(expected.weights, gpt2)), STEP_IN_FLOAT64
    )


def _twins(model: nn.Module) -> tuple[GPT2, ReadableGPT]:
    """The fused and the readable model with the weights of one of them, in float64."""
    assert isinstance(model, GPT2 | ReadableGPT)
    config, shape = model.config, (model.config.n_layer, model.config.n_head)
    if isinstance(model, GPT2):
        readable = ReadableGPT(config).double().eval()
        readable.load_state_dict(correspondence.readable_from_gpt2(model.state_dict(), *shape))
        return model, readable
    gpt2 = GPT2(config).double().eval()
    gpt2.load_state_dict(correspondence.gpt2_from_readable(model.state_dict(), *shape))
    return gpt2, model


def _mapped(tensors: Tensors, gpt2: GPT2) -> Tensors:
    """Readable tensors under GPT-2's names."""
    return correspondence.gpt2_from_readable(tensors, gpt2.config.n_layer, gpt2.config.n_head)


def _lesson(model: GPT2 | ReadableGPT, tokens: Tensor) -> Lesson:
    logits, loss = model(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    gradients = {name: gradient.clone() for name, gradient in gradients_of(model).items()}
    nn.utils.clip_grad_norm_(model.parameters(), LEARNING.clip_norm)
    rules = RULES["gpt2" if isinstance(model, GPT2) else "readable"]
    for optimizer in build_optimizers(model, rules, LEARNING, torch.float64):
        optimizer.step()
    return Lesson(logits.detach(), gradients, model.state_dict())


def loss_is_its_definition(subject: Subject) -> Iterator[Measured]:
    """The mean of -log p(next token), in float64: the model's own loss, and the one that training
    minimises.
    """
    subject.check_memory(2)
    model, tokens = subject.copied(torch.float64, CPU), subject.tokens()
    with torch.no_grad():
        logits, loss = model(tokens[:, :-1], tokens[:, 1:])
        picked = logits.log_softmax(dim=-1).gather(-1, tokens[:, 1:, None])
        objective = NextTokenLoss(model, "float64")(tokens[:, :-1], tokens[:, 1:])
    yield Measured("of the model", relative(loss, -picked.mean()), IN_FLOAT64)
    yield Measured("of training", relative(objective, -picked.mean()), IN_FLOAT64)


def causality(subject: Subject) -> Iterator[Measured]:
    """Another token later in the text: the logits before it stay the same, to the last bit."""
    if subject.model.config.vocab_size == 1:
        raise Skipped("a vocabulary of one token has no other")
    model, rows = subject.copied(), min(8, subject.model.block_size - 1)
    if rows == 0:
        raise Skipped("a context of one token has no later one")
    before = subject.tokens(rows=1, time=TIME)[:, :-1].repeat(rows, 1)
    time = before.size(1)
    places = [max(1, round((row + 1) * time / rows) - 1) for row in range(rows)]
    after = before.clone()
    for row, place in enumerate(places):
        after[row, place] = (after[row, place] + 1) % subject.model.config.vocab_size
    for precision, in_bfloat16 in (("in float32", False), ("in bfloat16", True)):
        first, second = (logits_of(model, tokens, in_bfloat16) for tokens in (before, after))
        pairs = [(second[row, :place], first[row, :place]) for row, place in enumerate(places)]
        leaks = torch.stack([(found - expected).abs().max() for found, expected in pairs])
        yield Measured(precision, leaks.max().item(), 0.0)


def cached_is_uncached(subject: Subject) -> Iterator[Measured]:
    """The tokens that `groundup generate` streams, and those of the model's plain loop: how many
    differ.

    The streaming model begins in training mode: generation has to switch dropout off, and on again.
    Where a model has a cache, the logits of a text that it reads in pieces too.
    """
    model = subject.copied()
    slides = model.block_size <= SHORT_CONTEXT
    prompt = subject.tokens(
        rows=1, time=max(1, model.block_size - NEW_TOKENS // 2) if slides else NEW_TOKENS
    )[:, 1:]
    chances = {"greedy": 0.0} if isinstance(model, ReadableGPT) else {"greedy": 0.0, "sampled": 0.8}
    # the readable model draws by torch's multinomial: from other numbers
    for name, temperature in chances.items():
        settings = engine.SamplingSettings(length=NEW_TOKENS, temperature=temperature, seed=1)
        generator = torch.Generator().manual_seed(settings.seed)
        plain = model.eval().generate(
            prompt.to(subject.device), NEW_TOKENS, temperature=temperature, generator=generator
        )
        expected = plain[0, prompt.size(1) :].tolist()
        streamed = list(engine.stream_tokens(model.train(), prompt, settings))
        unequal = sum(one != other for one, other in zip(streamed, expected, strict=True))
        yield Measured(f"{name}, tokens", unequal, 0.0)
    tokens = subject.tokens()[:, :-1].to(subject.device)
    for name, model, bound in _in_each_precision(subject):
        if (error := _error_of_pieces(model, tokens)) is not None:
            yield Measured(f"logits{name}", error, bound)


def _in_each_precision(subject: Subject) -> Iterator[tuple[str, Model, float]]:
    """The model in float32, and as it is kept where that is less: what to add to a name, and the
    bound.
    """
    yield "", subject.copied(), IN_FLOAT32
    if subject.dtype in (torch.bfloat16, torch.float16):
        yield (
            f", in {str(subject.dtype).removeprefix('torch.')}",
            subject.copied(subject.dtype),
            LOGITS_IN_BFLOAT16,
        )


def _error_of_pieces(model: Model, tokens: Tensor) -> float | None:
    """Of a text that is read through the cache: half of it, which is copied as rows of it are, a
    token, and the rest.

    None for a model without a cache.
    """
    with torch.no_grad():
        if (cache := cache_for(model, tokens.size(1))) is None or tokens.size(1) < 3:
            return None
        order = torch.arange(tokens.size(0), device=tokens.device).roll(1)
        first, one, rest = tokens.tensor_split(
            [tokens.size(1) // 2, tokens.size(1) // 2 + 1], dim=1
        )
        pieces = [hidden_states(model, first, cache)[order]]
        cache = cache.rows(order)
        pieces += [
            hidden_states(model, one[order], cache),
            hidden_states(model, rest[order], cache),
        ]
        found = model.logits(torch.cat(pieces, dim=1))
    return relative(found, logits_of(model, tokens[order]))


def batch_is_alone(subject: Subject) -> Iterator[Measured]:
    """A text among others, among still others, and by itself."""
    batch, others = subject.tokens(seed=0)[:, :-1], subject.tokens(seed=1)[:, :-1]
    others[1] = batch[1]
    for name, model, bound in _in_each_precision(subject):
        among, elsewhere = logits_of(model, batch)[1], logits_of(model, others)[1]
        yield Measured(f"other neighbours{name}", (elsewhere - among).abs().max().item(), 0.0)
        yield Measured(
            f"no neighbours{name}", relative(logits_of(model, batch[1:2])[0], among), bound
        )


def device_is_cpu_float64(subject: Subject) -> Iterator[Measured]:
    """Logits and gradients in float32 on the device, against the CPU's in float64."""
    found = outcome(subject.copied(), subject.tokens())
    yield Measured("logits", relative(found.logits, subject.exact.logits), IN_FLOAT32)
    yield Measured(
        "gradients", relative_of_all(found.gradients, subject.exact.gradients), GRADIENTS_IN_FLOAT32
    )


def bfloat16_is_within_its_bound(subject: Subject) -> Iterator[Measured]:
    """Products in bfloat16 as training has them, against float64 (as lengths of vectors); norms
    stay in float32.
    """
    model, norms = subject.copied(), dict[str, float]()
    handles = [
        module.register_forward_hook(
            lambda *call, name=name: norms.update({name: _error_of_norm(*call)})
        )
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Norm")
    ]
    found = outcome(model, subject.tokens(), in_bfloat16=True)
    for handle in handles:
        handle.remove()
    logits = of_norms({"": found.logits}, {"": subject.exact.logits})
    yield Measured("logits", logits, LOGITS_IN_BFLOAT16)
    yield Measured(
        "gradients", of_norms(found.gradients, subject.exact.gradients), GRADIENTS_IN_BFLOAT16
    )
    if norms:
        yield Measured("norms", torch.tensor(list(norms.values())).max().item(), IN_FLOAT32)


def _error_of_norm(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> float:
    """LayerNorm (Ba et al. 2016) where there is a scale and a shift, RMSNorm (Zhang & Sennrich
    2019) where no shift.
    """
    scale, *shift = [parameter.detach().cpu().double() for parameter in norm.parameters()]
    hidden = inputs[0].detach().cpu().double()
    if shift:
        hidden = hidden - hidden.mean(dim=-1, keepdim=True)
    hidden = (
        scale
        * hidden
        / (hidden.square().mean(dim=-1, keepdim=True) + (1e-5 if shift else 1e-6)).sqrt()
    )
    return relative(output, hidden + shift[0] if shift else hidden)


def compiled_is_eager(subject: Subject) -> Iterator[Measured]:
    """Logits and gradients in float32, compiled part by part as training does it, and not
    compiled.
    """
    if subject.device.type != "cuda" and not has_compiler():
        raise Skipped(
            "this machine has no C++ compiler (g++ or clang++): training isn't compiled here"
        )
    expected, model = outcome(subject.copied(), subject.tokens()), subject.copied()
    objective = NextTokenLoss(model, "float32")
    for part in parts_of(model) or [objective]:
        part.compile(dynamic=False)
    try:
        found = outcome(model, subject.tokens(), objective=objective)
    except Exception as error:  # the compiler's failures have no common class
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Skipped(
            f"torch.compile doesn't work here, training goes on without it ({reason[:150]})"
        ) from error
    yield Measured("logits", relative(found.logits, expected.logits), IN_FLOAT32)
    yield Measured(
        "gradients", relative_of_all(found.gradients, expected.gradients), GRADIENTS_IN_FLOAT32
    )


def saved_is_loaded(subject: Subject) -> Iterator[Measured]:
    """The model through a folder and back: its tensors bit for bit, and its logits just as it
    comes.
    """
    with subject.saved() as folder:
        loaded = model_folder.load_model(folder).model
    yield Measured("tensors", count_unequal(loaded.state_dict(), subject.model.state_dict()), 0.0)
    tokens = subject.tokens()[:, :-1]
    found, expected = logits_of(loaded, tokens), logits_of(subject.model, tokens)
    yield Measured("logits", (found - expected).abs().max().item(), 0.0)


def _installed_transformers() -> Any:
    """The library. Raises Skipped where it isn't, can't be imported, or is older than what groundup
    writes for.
    """
    if importlib.util.find_spec("transformers") is None:
        raise Skipped("transformers isn't installed: pip install 'groundup[interop]'")
    try:
        transformers = importlib.import_module("transformers")
    except Exception as error:  # of its own dependencies, whatever they raise
        raise Skipped(f"transformers can't be imported: {error}") from error
    if int(transformers.__version__.partition(".")[0]) < OLDEST_TRANSFORMERS:
        raise Skipped(
            f"transformers {transformers.__version__} is older than {OLDEST_TRANSFORMERS}.0"
        )
    return transformers


def ours_is_transformers(subject: Subject) -> Iterator[Measured]:
    """The logits of Hugging Face's own model, loaded from our folder, in float32 on the CPU."""
    transformers = _installed_transformers()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with subject.saved(torch.float32) as folder:
        loading: Any = transformers.AutoModelForCausalLM  # its types don't know the report
        peer, report = loading.from_pretrained(
            folder, output_loading_info=True, local_files_only=True
        )
        wrong = [f"{kind}: {names}" for kind, names in report.items() if names]
        assert not wrong, (
            f"transformers finds other weights in our folder ({'; '.join(wrong)[:150]})"
        )
        tokens = subject.tokens()[:, :-1]
        with torch.no_grad():
            expected = peer.eval()(tokens).logits
    yield Measured(
        "", relative(logits_of(subject.copied(torch.float32, CPU), tokens), expected), IN_FLOAT32
    )
