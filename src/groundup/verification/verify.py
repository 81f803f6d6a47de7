"""`groundup verify`: a table of what groundup claims, each claim with its error on this machine and
its bound.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from rich.console import Console
from rich.text import Text

from groundup.checkpoints.model_folder import load
from groundup.machine.device import choose_device
from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.modern import Modern
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.train import learn_tokenizer
from groundup.training.failures import is_out_of_memory
from groundup.verification import claims
from groundup.verification.model_under_test import Measured, Skipped, Subject
from groundup.verification.random_models import model_of, perturbed
from groundup.verification.round_trip import HARD, tokenizer_round_trip

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"
COLOURS = {OK: "green", FAILED: "bold red", SKIPPED: "yellow"}

SHAPE = {"block_size": 160, "n_layer": 2, "n_head": 4, "n_embd": 32, "dropout": 0.1}
MERGED = 64  # pairs that the byte-pair tokenizer learns
# some ten seconds a model: two of the random ones are enough
UNCOMPILED = frozenset({"compiled = eager"})
NO_TOKENIZER = frozenset({"tokenizer round trip"})


@dataclass(frozen=True)
class Claim:
    """A claim's name, how it is measured, what its failure means for the user, and of which models
    it is made.
    """

    name: str
    measure: Callable[[Subject], Iterator[Measured]]
    meaning: str
    architectures: tuple[str, ...] = ("bigram", "readable", "gpt2", "modern")


@dataclass(frozen=True)
class Finding:
    """A row of the table. error and bound: None where nothing was measured, or no number
    came out.
    """

    status: str
    claim: str
    model: str
    error: float | None
    bound: float | None
    note: str = ""


@dataclass(frozen=True)
class Verification:
    """The whole table."""

    model: str | None
    device: str
    torch: str
    claims: list[Finding]
    failed: int
    skipped: int


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


def print_verification(name: str | None, device_name: str, as_json: bool) -> int:
    """Examine every claim, print the table row by row, or one JSON object: the exit status. Raises
    GroundupError.
    """
    device = choose_device(device_name)
    subjects = random_subjects(device) if name is None else [named_subject(name, device)]
    console = Console(highlight=False, soft_wrap=True)
    if not as_json:
        what = (
            "small random models"
            if name is None
            else f"{subjects[0].name} ({subjects[0].architecture})"
        )
        console.print(Text(f"verifying {what} on {device}, torch {torch.__version__}"))
    found = []
    for finding in examine_all(subjects):
        found.append(finding)
        if not as_json:
            print_row(finding, console)
    failed, skipped = (
        sum(finding.status == status for finding in found) for status in (FAILED, SKIPPED)
    )
    if as_json:
        whole = Verification(name, str(device), torch.__version__, found, failed, skipped)
        sys.stdout.write(json.dumps(asdict(whole), ensure_ascii=False, allow_nan=False) + "\n")
    else:
        console.print(
            Text(
                f"{len(found)} rows: {len(found) - failed - skipped} hold, {failed} failed, "
                f"{skipped} skipped"
            )
        )
    return int(failed > 0)


def random_subjects(device: torch.device) -> list[Subject]:
    """A perturbed model of every architecture: a vocabulary above its width, and dropout that
    mustn't be noticed.
    """
    characters, pairs = CharacterTokenizer(HARD), learn_tokenizer([HARD] * 2, 257 + MERGED)
    # less than the width: the objective has a way of its own for it
    narrow = GPTConfig(vocab_size=24, **SHAPE)
    wide = replace(narrow, vocab_size=pairs.vocab_size)
    grouped = ModernConfig(160, pairs.vocab_size, 2, 4, 2, 32, 8, 96, rope_theta=5e5, dropout=0.1)
    torch.manual_seed(0)
    bigram = perturbed(model_of("bigram", replace(narrow, vocab_size=characters.vocab_size)))
    untied = perturbed(Modern(replace(grouped, n_kv_head=4, tied=False)))
    return [
        Subject("bigram", bigram, characters, device, UNCOMPILED),
        Subject(
            "readable",
            perturbed(model_of("readable", narrow)),
            None,
            device,
            UNCOMPILED | NO_TOKENIZER,
        ),
        Subject("gpt2", perturbed(model_of("gpt2", wide)), pairs, device),
        Subject("modern", perturbed(Modern(grouped)), None, device, NO_TOKENIZER),
        Subject("modern, untied", untied, None, device, UNCOMPILED | NO_TOKENIZER),
    ]


def named_subject(name: str, device: torch.device) -> Subject:
    """A run's best model, or a folder's. Raises GroundupError."""
    model, tokenizer = load(name)
    return Subject(name, model, tokenizer, device)


def examine_all(subjects: Iterable[Subject]) -> Iterator[Finding]:
    """Every claim that is made of each model."""
    for subject in subjects:
        for claim in CLAIMS:
            if subject.architecture in claim.architectures and claim.name not in subject.left_out:
                yield from examine(claim, subject)


def examine(claim: Claim, subject: Subject) -> Iterator[Finding]:
    """A row for every part of a claim; an exception is a failure with its text, out of memory is a
    reason to skip.
    """
    try:
        for measured in claim.measure(subject):
            name = f"{claim.name}: {measured.what}" if measured.what else claim.name
            holds = measured.error <= measured.bound  # a NaN doesn't
            error = measured.error if math.isfinite(measured.error) else None
            note = "" if holds else claim.meaning
            yield Finding(OK if holds else FAILED, name, subject.name, error, measured.bound, note)
    except Skipped as reason:
        yield Finding(SKIPPED, claim.name, subject.name, None, None, str(reason))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if is_out_of_memory(error):
            yield Finding(SKIPPED, claim.name, subject.name, None, None, f"out of memory: {reason}")
        else:
            note = f"{claim.meaning} ({type(error).__name__}: {reason})"
            yield Finding(FAILED, claim.name, subject.name, None, None, note)


def print_row(finding: Finding, console: Console) -> None:
    """Columns for the status, the claim, the model, the error and its bound; below a failure, what
    it means.
    """
    measured = "-" if finding.error is None else f"{finding.error:.2g}"
    bound = (
        "" if finding.bound is None else f"of {finding.bound:g}" if finding.bound else "exactly 0"
    )
    row = Text(f"{finding.status:<8}", COLOURS[finding.status])
    row.append(f"{finding.claim:<38} {finding.model:<15} ", "default")
    if finding.status == SKIPPED:
        console.print(row.append(finding.note, "default"))
        return
    console.print(row.append(f"{measured:>8} {bound}", "default"))
    if finding.status == FAILED:
        console.print(Text(f"        This means: {finding.note}"))
