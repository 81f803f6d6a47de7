"""The claims about a model: a function for each claim measures how far it is from true here.

A function yields an error and its bound for each part of its claim. It raises `Skipped` with the
reason where the claim can't be measured; any other exception means that the claim doesn't hold.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.checkpoints import model_folder
from groundup.checkpoints.adapter_folder import find_base, is_adapter
from groundup.checkpoints.layouts import Layout
from groundup.checkpoints.layouts.config_json import layout_of
from groundup.checkpoints.layouts.gpt2 import DROPOUTS
from groundup.generation import stream
from groundup.generation.settings import SamplingSettings
from groundup.machine.device import has_compiler
from groundup.machine.kinds import kind_of
from groundup.machine.memory import is_out_of_memory
from groundup.models import correspondence
from groundup.models.gpt2 import GPT2
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model, cache_for, hidden_states
from groundup.models.sampling import uniforms_of
from groundup.optim.groups import RULES, build_optimizers
from groundup.recipes.schema import OptimSection
from groundup.training.objective import NextTokenLoss, compiled_parts
from groundup.verification.differences import Tensors, count_unequal, relative, relative_of_norms
from groundup.verification.model_under_test import (
    CPU,
    TIME,
    Measurement,
    ModelUnderTest,
    Outcome,
    Skipped,
    gradients_of,
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
SHORT_CONTEXT = 256  # up to here texts run past the context too


@dataclass(frozen=True)
class TrainStep(Outcome):
    """One step of training: logits, gradients, and the weights after the optimizer's step."""

    weights: Tensors


def readable_is_fused(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare `readable.py` and `gpt2.py`, with the same weights, in one step of training."""
    tested.check_memory(8)
    gpt2, readable = _twins(tested.copied(torch.float64, CPU))
    expected, found = _train_step(readable, tested.tokens()), _train_step(gpt2, tested.tokens())
    yield Measurement("logits", relative(found.logits, expected.logits), IN_FLOAT64)
    gradients, weights = _mapped(expected.gradients, gpt2), _mapped(expected.weights, gpt2)
    yield Measurement("gradients", relative(found.gradients, gradients), IN_FLOAT64)
    yield Measurement("a step", relative(found.weights, weights), STEP_IN_FLOAT64)


def _twins(model: nn.Module) -> tuple[GPT2, ReadableGPT]:
    """Return the fused and the readable model with the weights of one of them, in float64."""
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
    """Return readable tensors by GPT-2's names."""
    return correspondence.gpt2_from_readable(tensors, gpt2.config.n_layer, gpt2.config.n_head)


def _train_step(model: GPT2 | ReadableGPT, tokens: Tensor) -> TrainStep:
    logits, loss = model(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    gradients = {name: gradient.clone() for name, gradient in gradients_of(model).items()}
    nn.utils.clip_grad_norm_(model.parameters(), LEARNING.clip_norm)
    rules = RULES["gpt2" if isinstance(model, GPT2) else "readable"]
    for optimizer in build_optimizers(model, rules, LEARNING, torch.float64):
        optimizer.step()
    return TrainStep(logits.detach(), gradients, model.state_dict())


def loss_is_its_definition(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare the model's loss and that of training with the mean of -log p(next token).

    All losses are computed in float64.
    """
    tested.check_memory(2)
    model, tokens = tested.copied(torch.float64, CPU), tested.tokens()
    with torch.no_grad():
        logits, loss = model(tokens[:, :-1], tokens[:, 1:])
        picked = logits.log_softmax(dim=-1).gather(-1, tokens[:, 1:, None])
        objective = NextTokenLoss(model, "float64")(tokens[:, :-1], tokens[:, 1:])
    yield Measurement("of the model", relative(loss, -picked.mean()), IN_FLOAT64)
    yield Measurement("of training", relative(objective, -picked.mean()), IN_FLOAT64)


def causality(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Change a token, and measure how much the logits before it change, which must be 0."""
    if tested.model.config.vocab_size == 1:
        raise Skipped("a vocabulary of one token has no other")
    model, rows = tested.copied(), min(8, tested.model.block_size - 1)
    if rows == 0:
        raise Skipped("a context of one token has no later one")
    before = tested.tokens(rows=1, time=TIME)[:, :-1].repeat(rows, 1)
    time = before.size(1)
    changed = [(row, max(1, round((row + 1) * time / rows) - 1)) for row in range(rows)]
    after = before.clone()
    for row, position in changed:
        after[row, position] = (after[row, position] + 1) % tested.model.config.vocab_size
    for precision, in_bfloat16 in (("in float32", False), ("in bfloat16", True)):
        first, second = (logits_of(model, tokens, in_bfloat16) for tokens in (before, after))
        leaks = [(second - first)[row, :position].abs().max() for row, position in changed]
        yield Measurement(precision, torch.stack(leaks).max().item(), 0.0)


def prompt_for(tested: ModelUnderTest) -> Tensor:
    """Draw a prompt, after which a text of NEW_TOKENS runs past a short context: [1, time]."""
    block_size = tested.model.block_size
    is_short = block_size <= SHORT_CONTEXT
    time = max(1, block_size - NEW_TOKENS // 2) if is_short else NEW_TOKENS
    return tested.tokens(rows=1, time=time)[:, 1:]


def cached_is_uncached(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Count the tokens in which `groundup generate` differs from the model without a cache.

    The model begins in training mode, because generation has to switch dropout off, and on again.
    For a model with a cache, the logits of a text that is read in pieces are compared too.
    """
    model = tested.copied()
    prompt = prompt_for(tested).to(tested.device)
    uniforms = uniforms_of(1, 0, NEW_TOKENS)
    for name, temperature in {"greedy": 0.0, "sampled": 0.8}.items():
        settings = SamplingSettings(length=NEW_TOKENS, temperature=temperature, seed=1)
        drawn = {"temperature": temperature, "uniforms": uniforms}
        plain = model.eval().generate(prompt, NEW_TOKENS, **drawn)
        expected = plain[0, prompt.size(1) :].tolist()
        streamed = list(stream.stream_tokens(model.train(), prompt, settings))
        unequal = sum(one != other for one, other in zip(streamed, expected, strict=True))
        yield Measurement(f"{name}, tokens", unequal, 0.0)
    tokens = tested.tokens()[:, :-1].to(tested.device)
    for name, model, bound in _in_each_precision(tested):
        if (error := _error_of_pieces(model, tokens)) is not None:
            yield Measurement(f"logits{name}", error, bound)


def _in_each_precision(tested: ModelUnderTest) -> Iterator[tuple[str, Model, float]]:
    """Yield the model in float32, and in its own precision where that is a lower one.

    Yields:
        What to add to the name of a part, the model, and the bound of its logits.
    """
    yield "", tested.copied(), IN_FLOAT32
    if tested.dtype in (torch.bfloat16, torch.float16):
        precision = str(tested.dtype).removeprefix("torch.")
        yield f", in {precision}", tested.copied(tested.dtype), LOGITS_IN_BFLOAT16


def _error_of_pieces(model: Model, tokens: Tensor) -> float | None:
    """Return the error of logits that are read through a cache; None for a model without one.

    The model reads half of a text, whose rows are then copied in another order, a token, and the
    rest.
    """
    with torch.no_grad():
        if (cache := cache_for(model, tokens.size(1))) is None or tokens.size(1) < 3:
            return None
        order = torch.arange(tokens.size(0), device=tokens.device).roll(1)
        half = tokens.size(1) // 2
        first, one, rest = tokens.tensor_split([half, half + 1], dim=1)
        pieces = [hidden_states(model, first, cache)[order]]
        cache = cache.rows(order)
        pieces += [hidden_states(model, piece[order], cache) for piece in (one, rest)]
        found = model.logits(torch.cat(pieces, dim=1))
    return relative(found, logits_of(model, tokens[order]))


def batch_is_alone(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare a text's logits in a batch, in a batch with different neighbours, and alone."""
    batch, others = tested.tokens(seed=0)[:, :-1], tested.tokens(seed=1)[:, :-1]
    others[1] = batch[1]
    for name, model, bound in _in_each_precision(tested):
        among, elsewhere = logits_of(model, batch)[1], logits_of(model, others)[1]
        yield Measurement(f"other neighbours{name}", (elsewhere - among).abs().max().item(), 0.0)
        alone = logits_of(model, batch[1:2])[0]
        yield Measurement(f"no neighbours{name}", relative(alone, among), bound)


def device_is_cpu_float64(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare logits and gradients in float32 on the tested device with the CPU's in float64."""
    yield from _in_float32(outcome(tested.copied(), tested.tokens()), tested.exact)


def _in_float32(found: Outcome, expected: Outcome) -> Iterator[Measurement]:
    yield Measurement("logits", relative(found.logits, expected.logits), IN_FLOAT32)
    gradients = relative(found.gradients, expected.gradients)
    yield Measurement("gradients", gradients, GRADIENTS_IN_FLOAT32)


def bfloat16_is_within_its_bound(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare logits and gradients by bfloat16 products, as in training, with those in float64.

    The model's normalisations must stay in float32.
    """
    model, errors_of_norms = tested.copied(), list[float]()
    for module in model.modules():
        if type(module).__name__.endswith("Norm"):
            module.register_forward_hook(
                lambda *call: errors_of_norms.append(_error_of_norm(*call))
            )
    found = outcome(model, tested.tokens(), in_bfloat16=True)
    logits = relative_of_norms(found.logits, tested.exact.logits)
    yield Measurement("logits", logits, LOGITS_IN_BFLOAT16)
    error = relative_of_norms(found.gradients, tested.exact.gradients)
    yield Measurement("gradients", error, GRADIENTS_IN_BFLOAT16)
    if errors_of_norms:
        yield Measurement("norms", torch.tensor(errors_of_norms).max().item(), IN_FLOAT32)


def _error_of_norm(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> float:
    """Return the error of a normalisation's output, by the formula in float64.

    With a scale and a shift it is LayerNorm (Ba et al. 2016), without a shift RMSNorm (Zhang &
    Sennrich 2019).
    """
    scale, *shift = [parameter.detach().cpu().double() for parameter in norm.parameters()]
    hidden = inputs[0].detach().cpu().double()
    if shift:
        hidden = hidden - hidden.mean(dim=-1, keepdim=True)
    variance = hidden.square().mean(dim=-1, keepdim=True) + (1e-5 if shift else 1e-6)
    expected = scale * hidden / variance.sqrt()
    return relative(output, expected + shift[0] if shift else expected)


def compiled_is_eager(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare the model's logits and gradients, compiled as in training, with uncompiled ones."""
    if not (kind_of(tested.device).compiles or has_compiler()):
        reason = "this machine has no C++ compiler (g++ or clang++): training isn't compiled here"
        raise Skipped(reason)
    expected, model = outcome(tested.copied(), tested.tokens()), tested.copied()
    objective = NextTokenLoss(model, "float32")
    for part in compiled_parts(model) or [objective]:
        part.compile(dynamic=False)
    try:
        found = outcome(model, tested.tokens(), objective=objective)
    except Exception as error:  # the compiler's failures have no common class
        if is_out_of_memory(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"torch.compile doesn't work here, training goes on without it ({said[:150]})"
        raise Skipped(reason) from error
    yield from _in_float32(found, expected)


def saved_is_loaded(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Save and load the model, and compare its tensors and its logits with those before."""
    with tested.saved() as folder:
        loaded = model_folder.load_model(folder).model
    yield Measurement("tensors", count_unequal(loaded.state_dict(), tested.model.state_dict()), 0.0)
    tokens = tested.tokens()[:, :-1]
    found, expected = logits_of(loaded, tokens), logits_of(tested.model, tokens)
    yield Measurement("logits", (found - expected).abs().max().item(), 0.0)


def _installed_transformers() -> Any:
    """Import the library; skip where it isn't there, doesn't work, or is older than our folders."""
    if importlib.util.find_spec("transformers") is None:
        raise Skipped("transformers isn't installed: pip install 'groundup[interop]'")
    try:
        transformers = importlib.import_module("transformers")
    except Exception as error:  # of its own dependencies, whatever they raise
        raise Skipped(f"transformers can't be imported: {error}") from error
    if int((version := transformers.__version__).partition(".")[0]) < OLDEST_TRANSFORMERS:
        raise Skipped(f"transformers {version} is older than {OLDEST_TRANSFORMERS}.0")
    return transformers


def ours_is_transformers(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare with Hugging Face's own model, loaded on the CPU from the folder that was named.

    The folder itself is loaded, and none that was saved again: what our reader misses would be
    missing there too. A model of no folder is saved for it.
    """
    transformers = _installed_transformers()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    named = nullcontext(tested.loaded.folder) if tested.loaded else tested.saved(torch.float32)
    with named as folder:
        peer = _peer(transformers, folder, layout_of(tested.architecture))
    window = getattr(peer.config, "sliding_window", None)  # seen by longer texts alone
    tokens = tested.tokens(1, time=window + TIME) if window else tested.tokens()
    with torch.no_grad():
        expected = peer.eval()(tokens[:, :-1]).logits
    found = logits_of(tested.copied(torch.float32, CPU), tokens[:, :-1])
    yield Measurement("", relative(found, expected), IN_FLOAT32)
    if tested.loaded is None or is_adapter(tested.loaded.folder):
        return  # beside adapters stands what they were trained with, which peft doesn't look at
    ends = peer.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends])} - {None}
    yield Measurement("ends", len(ends ^ tested.loaded.text_ends), 0.0)
    stated = {value for key in DROPOUTS if (value := getattr(peer.config, key, None)) is not None}
    if len(stated) == 1:  # of three that differ the reader has said which one it takes
        yield Measurement("dropout", abs(stated.pop() - tested.model.config.dropout), 0.0)


def _peer(transformers: Any, folder: Path, layout: Layout) -> Any:
    """Load a folder by transformers in float32; adapters by peft, on their base."""
    base = find_base(folder) if is_adapter(folder) else folder
    options = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True}
    auto = transformers.AutoModelForCausalLM
    peer, report = auto.from_pretrained(base, output_loading_info=True, **options)
    # causal masks, which early releases kept beside the weights
    unused = {name for name in report["unexpected_keys"] if layout.spelled(name) is None}
    report["unexpected_keys"] = {*report["unexpected_keys"]} - unused
    wrong = "; ".join(f"{kind}: {names}" for kind, names in report.items() if names)[:150]
    assert not wrong, f"transformers finds other weights in {base} ({wrong})"
    if base == folder:
        return peer
    if importlib.util.find_spec("peft") is None:
        raise Skipped("peft isn't installed, and the model consists of adapters")
    return importlib.import_module("peft").PeftModel.from_pretrained(peer, str(folder))
