"""`groundup generate`: load, say what was loaded, write."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from groundup.checkpoints.model_folder import load_model
from groundup.cli.interactive import converse, say
from groundup.console import report
from groundup.generation.stream import Ends, SamplingSettings, fit_prompt, start_of, stream_text
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer


def generate_texts(
    name: str,
    prompt: str,
    settings: SamplingSettings,
    *,
    samples: int,
    interactive: bool,
    strict: bool,
    device: str,
) -> None:
    """Write `samples` texts to stdout, or ask for what to write; all else goes to stderr. Raises
    GroundupError.
    """
    loaded = load_model(name, device=device)
    tokenizer = loaded.require_tokenizer()
    report(f"{loaded.description}; seed {settings.seed}")
    write = partial(
        write_pieces,
        loaded.model,
        tokenizer,
        start=loaded.document_start,
        ends=loaded.text_ends,
        strict=strict,
    )
    if interactive:
        converse(write, settings, prompt)
        return
    for number in range(samples):
        if samples > 1:
            say(f"======== {number + 1} of {samples}\n")
        pieces = write(prompt, replace(settings, seed=settings.seed + number))
        # before the prompt is shown: a prompt that can't be read is an error, not a text
        first = next(pieces, "")
        say(prompt + first)
        for piece in pieces:
            say(piece)
        say("\n")


def write_pieces(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str,
    settings: SamplingSettings,
    *,
    start: int | None,
    ends: Ends,
    strict: bool,
) -> Iterator[str]:
    """The text after the prompt, piece by piece."""
    tokens = fit_prompt(start_of(prompt, tokenizer, start), model.block_size, strict, report)
    yield from stream_text(model, tokenizer, tokens, settings, ends)
