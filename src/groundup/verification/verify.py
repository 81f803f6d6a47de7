"""What `groundup verify` measures: each claim about each model, with a finding for each part."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from groundup.checkpoints.model_folder import load_model
from groundup.machine.memory import is_out_of_memory
from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.modern import Modern
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.train import learn_tokenizer
from groundup.verification import claims, engine_claims
from groundup.verification.model_under_test import Measurement, ModelUnderTest, Skipped
from groundup.verification.random_models import model_of, perturbed
from groundup.verification.round_trip import HARD, tokenizer_round_trip

Status = Literal["ok", "FAILED", "skipped"]

SHAPE = {"block_size": 160, "n_layer": 2, "n_head": 4, "n_embd": 32, "dropout": 0.1}
MERGED = 64  # pairs that the byte-pair tokenizer learns
# some ten seconds a model: two of the random ones are enough
UNCOMPILED = frozenset({"compiled = eager"})
NO_TOKENIZER = frozenset({"tokenizer round trip"})


@dataclass(frozen=True)
class Claim:
    """Something that groundup claims of its models.

    Args:
        name: What the printed table calls the claim.
        measure: Yields an error and its bound for each part of the claim.
        meaning: What follows for the user if the claim doesn't hold.
        architectures: The architectures that the claim is about.
    """

    name: str
    measure: Callable[[ModelUnderTest], Iterator[Measurement]]
    meaning: str
    architectures: tuple[str, ...] = ("bigram", "readable", "gpt2", "modern")


@dataclass(frozen=True)
class Finding:
    """A row of the printed table, about one part of a claim and one model.

    Args:
        status: Whether the part of the claim holds, or wasn't measured.
        claim: The claim, and its part after a colon.
        model: The name of the model.
        error: The error, or None where nothing was measured or the error is no finite number.
        bound: What the error must not be above, or None where nothing was measured.
        note: What a failure means, or why the claim is skipped.
    """

    status: Status
    claim: str
    model: str
    error: float | None
    bound: float | None
    note: str = ""


CLAIMS = (
    Claim(
        "readable = fused",
        claims.readable_is_fused,
        "the fast GPT-2 doesn't compute what readable.py says: what it learns and writes isn't "
        "GPT-2's. Don't train with this installation; install PyTorch and groundup anew",
        ("readable", "gpt2"),
    ),
    Claim(
        "loss = definition",
        claims.loss_is_its_definition,
        "what is minimised or reported isn't the loss of the next token: don't trust losses and "
        "perplexities",
    ),
    Claim(
        "causality",
        claims.causality,
        "a token sees what comes after it: losses look better than they are, and the model writes "
        "worse than they say",
    ),
    Claim(
        "cached = uncached",
        claims.cached_is_uncached,
        "`groundup generate` writes another text than the model would: don't judge the model by it",
    ),
    Claim(
        "engine = plain loop",
        engine_claims.engine_is_plain_loop,
        "the engine's kernels or its slots compute another model: write with --compile off, and if "
        "that fails too, don't judge the model by its texts",
    ),
    Claim(
        "written alone = in company",
        engine_claims.alone_is_in_company,
        "a text depends on what is written beside it: the same seed doesn't give the same text; "
        "write with --samples 1",
    ),
    Claim(
        "int8 within bound",
        engine_claims.int8_is_within_its_bound,
        "int8 loses more of this model than eight bits explain: write without --quantize",
        ("readable", "gpt2", "modern"),
    ),
    Claim(
        "batch = alone",
        claims.batch_is_alone,
        "an answer depends on what is computed beside it: evaluations change with the batch size",
    ),
    Claim(
        "device = CPU float64",
        claims.device_is_cpu_float64,
        "this device computes other numbers than it should: use --device cpu, and another release "
        "of PyTorch or of the driver",
    ),
    Claim(
        "bfloat16 within bound",
        claims.bfloat16_is_within_its_bound,
        "bfloat16 loses more here than its eight bits explain: train with --train.precision "
        "float32",
    ),
    Claim(
        "compiled = eager",
        claims.compiled_is_eager,
        "torch.compile makes another model of yours: train with --train.compile off",
    ),
    Claim(
        "saved = loaded",
        claims.saved_is_loaded,
        "what is saved isn't what is loaded: don't rely on checkpoints of this installation",
    ),
    Claim(
        "ours = transformers",
        claims.ours_is_transformers,
        "transformers, vLLM and others would run another model from the same folder: don't share "
        "it",
    ),
    Claim(
        "tokenizer round trip",
        tokenizer_round_trip,
        "text doesn't come back from its tokens as it was: the model learns and writes damaged "
        "text",
    ),
)


def models_to_test(name: str | None, device: torch.device) -> list[ModelUnderTest]:
    """Load the model that a name means, or make small random models if the name is None.

    Raises:
        GroundupError: There is no model of that name.
    """
    if name is None:
        return random_models(device)
    loaded = load_model(name)
    return [ModelUnderTest(name, loaded.model, loaded.tokenizer, device, loaded=loaded)]


def random_models(device: torch.device) -> list[ModelUnderTest]:
    """Make random models of every architecture, with a dropout that eval mode must ignore."""
    characters, pairs = CharacterTokenizer(HARD), learn_tokenizer([HARD] * 2, 257 + MERGED)
    # a vocabulary below the width: the objective has a way of its own for it
    narrow = GPTConfig(vocab_size=24, **SHAPE)
    wide = replace(narrow, vocab_size=pairs.vocab_size)
    grouped = ModernConfig(160, pairs.vocab_size, 2, 4, 2, 32, 8, 96, rope_theta=5e5, dropout=0.1)
    torch.manual_seed(0)
    bigram = perturbed(model_of("bigram", replace(narrow, vocab_size=characters.vocab_size)))
    untied = perturbed(Modern(replace(grouped, n_kv_head=4, tied=False)))
    readable, gpt2 = perturbed(model_of("readable", narrow)), perturbed(model_of("gpt2", wide))
    neither = UNCOMPILED | NO_TOKENIZER
    return [
        ModelUnderTest("bigram", bigram, characters, device, UNCOMPILED),
        ModelUnderTest("readable", readable, None, device, neither),
        ModelUnderTest("gpt2", gpt2, pairs, device),
        ModelUnderTest("modern", perturbed(Modern(grouped)), None, device, NO_TOKENIZER),
        ModelUnderTest("modern, untied", untied, None, device, neither),
    ]


def verify_all(models: Iterable[ModelUnderTest]) -> Iterator[Finding]:
    """Verify every claim that is made about each model."""
    for tested in models:
        for claim in CLAIMS:
            if tested.architecture in claim.architectures and claim.name not in tested.without:
                yield from verify(claim, tested)


def verify(claim: Claim, tested: ModelUnderTest) -> Iterator[Finding]:
    """Verify a claim about a model: yield a finding for each part of the claim.

    An exception makes the claim fail, and the finding's note quotes the exception. Without enough
    memory the claim is skipped.
    """
    try:
        for measured in claim.measure(tested):
            name = f"{claim.name}: {measured.part}" if measured.part else claim.name
            holds = measured.error <= measured.bound  # a NaN doesn't
            error = measured.error if math.isfinite(measured.error) else None
            status, note = ("ok", "") if holds else ("FAILED", claim.meaning)
            yield Finding(status, name, tested.name, error, measured.bound, note)
    except Skipped as reason:
        yield Finding("skipped", claim.name, tested.name, None, None, str(reason))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if is_out_of_memory(error):
            note, status = f"out of memory: {reason}", "skipped"
        else:
            note, status = f"{claim.meaning} ({type(error).__name__}: {reason})", "FAILED"
        yield Finding(status, claim.name, tested.name, None, None, note)
