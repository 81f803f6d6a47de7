"""The command `groundup generate`: loads a model, says which, and writes how a prompt continues.

With --interactive the command asks for a prompt and settings at the terminal, writes, and asks
again.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.checkpoints.model_folder import LoadedModel
    from groundup.generation.settings import SamplingSettings

    Write = Callable[[str, SamplingSettings], Iterator[str]]

logger = logging.getLogger(__name__)


def generate(
    run: str,
    /,
    *,
    prompt: str = "",
    interactive: bool = False,
    length: int = 500,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 1.0,
    greedy: bool = False,
    seed: int | None = None,
    samples: int = 1,
    strict: bool = False,
    device: str = "auto",
) -> None:
    """Write text with a trained model, as it is made.

    Args:
        run: A run, the path of a run or model folder, gpt2, or OWNER/NAME of the hub.
        prompt: The text to go on from.
        interactive: Ask for prompt, temperature and length, again and again.
        length: Tokens to write.
        temperature: Below 1 safer, above 1 wilder; 0 is greedy.
        top_k: Draw only from the K most probable tokens.
        top_p: Draw only from the most probable tokens that make up this share of the probability.
        greedy: Always take the most probable token.
        seed: The same seed writes the same text; a fresh one is taken, and said, if left out.
        samples: How many texts; text i has the seed SEED + i.
        strict: Refuse a prompt longer than the model's context, instead of keeping its end.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from groundup.checkpoints.model_folder import load_model
    from groundup.generation.settings import SamplingSettings

    _check(top_k, interactive, samples)
    seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
    settings = SamplingSettings(length, 0.0 if greedy else temperature, top_k or 0, top_p, seed)
    loaded = load_model(run, device=device)
    loaded.require_tokenizer()
    logger.info(f"{loaded.description}; seed {seed}")
    write = partial(write_pieces, loaded, strict)
    if interactive:
        converse(write, settings, prompt)
        return
    for number in range(samples):
        if samples > 1:
            show(f"======== {number + 1} of {samples}\n")
        _show_text(prompt, write(prompt, replace(settings, seed=seed + number)))


def _check(top_k: int | None, interactive: bool, samples: int) -> None:
    """Refuse numbers that can't be. Raises GroundupError."""
    from groundup.generation.settings import WRONG_TOP_K

    if top_k is not None and top_k < 1:
        raise GroundupError(f"top-k = {top_k} {WRONG_TOP_K}")
    if interactive and samples != 1:
        problem = "--samples and --interactive don't go together: ask again for another text"
        raise GroundupError(problem)
    if samples < 1:
        raise GroundupError(f"samples = {samples} must be at least 1")


def _show_text(prompt: str, pieces: Iterator[str]) -> None:
    """Show a prompt and what follows as soon as there is a first piece.

    A prompt that can't be read is an error before anything is shown, not a text.
    """
    show(prompt + next(pieces, ""))
    for piece in pieces:
        show(piece)
    show("\n")


def write_pieces(
    loaded: "LoadedModel", strict: bool, prompt: str, settings: "SamplingSettings"
) -> Iterator[str]:
    """Yield the text after a prompt, piece by piece.

    Args:
        loaded: A model with a tokenizer.
        strict: Whether a prompt that is longer than the context is refused.
        prompt: The text to continue.
        settings: How the text is drawn.

    Raises:
        GroundupError: The model can't read the prompt.
    """
    from groundup.generation.stream import encode_prompt, fit_prompt, stream_text

    tokenizer = loaded.require_tokenizer()
    tokens = encode_prompt(prompt, tokenizer, loaded.document_start)
    tokens = fit_prompt(tokens, loaded.model.block_size, strict)
    yield from stream_text(loaded.model, tokenizer, tokens, settings, loaded.text_ends)


def converse(write: "Write", settings: "SamplingSettings", prompt: str) -> None:
    """Ask and write until the end of input (Ctrl-D); each answer is the next default.

    Ctrl-C during a text stops that text; at a question, the first question is asked again.

    Args:
        write: Yields the text after a prompt, piece by piece.
        settings: The first defaults.
        prompt: The first default prompt.
    """
    show("An empty answer takes the value in brackets. Ctrl-C stops a text, Ctrl-D leaves.\n")
    while True:
        try:
            shown = prompt if len(prompt) <= 40 else prompt[:37] + "..."
            asked = input(f"Prompt [{shown}]: ") or prompt
            temperature = ask_number("Temperature", settings.temperature, 0.1, 2.0, whole=False)
            length = int(ask_number("Length", settings.length, 1, 1_000_000, whole=True))
            settings = replace(settings, temperature=temperature, length=length)
            pieces = write(asked, settings)
            # before it is shown or remembered: a prompt that can't be read is an error
            first = next(pieces, "")
            prompt = asked
            show(prompt + first)
            for piece in pieces:
                show(piece)
            # the same prompt again gives another text
            settings = replace(settings, seed=settings.seed + 1)
        except KeyboardInterrupt:
            show("\n[stopped]")
        except EOFError:
            show("\n")
            return
        except GroundupError as error:
            show(f"{error}")
        show("\n\n")


def ask_number(question: str, default: float, low: float, high: float, whole: bool) -> float:
    """Ask for a number until the answer is in the range; an empty line takes the default."""
    while True:
        answer = input(f"{question} ({low:g} to {high:g}) [{default:g}]: ").strip()
        if not answer:
            return default
        try:
            number = int(answer) if whole else float(answer)
        except ValueError:
            number = float("nan")
        if low <= number <= high:
            return number
        show(f"{answer!r} is not a {'whole ' if whole else ''}number from {low:g} to {high:g}.\n")


def show(text: str) -> None:
    """Write text on stdout at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
