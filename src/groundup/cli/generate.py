"""The command `groundup generate`: loads a model, says which, and writes how a prompt continues.

With --interactive the command takes prompts and commands at the terminal, see interactive.py.
"""

import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING

from cyclopts import Parameter

from groundup.cli.flags import WriterFlags
from groundup.console import show_at_once
from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.generation.settings import SamplingSettings
    from groundup.generation.texts import Written
    from groundup.generation.writer import Precision

logger = logging.getLogger(__name__)

AT_ONCE = 16  # texts that are written at once
SAME = "length", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"
SAME += ("stop",)  # flags that settings have under the same name


@Parameter(name="*")
@dataclass(frozen=True)
class Draw:
    """How texts are drawn.

    Args:
        length: Tokens to write.
        temperature: Below 1 safer, above 1 wilder; 0 is greedy.
        top_k: Draw only from the K most probable tokens.
        top_p: Draw only from the most probable tokens that make up this share of the probability.
        min_p: Draw only from tokens so many times as probable as the most probable one.
        repetition_penalty: Above 1, tokens of the text so far become less likely.
        presence_penalty: Above 0, tokens that were written become less likely.
        frequency_penalty: Above 0, they become less likely each time.
        stop: End the text before this one; up to eight times.
        greedy: Always take the most probable token.
        seed: The same seed writes the same text; a fresh one is taken, and said, if left out.
    """

    length: int = 500
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    greedy: bool = False
    seed: int | None = None

    def settings(self) -> "SamplingSettings":
        """Return the settings.

        Raises:
            GroundupError: A number is out of its range.
        """
        from groundup.generation.settings import WRONG_TOP_K, SamplingSettings

        if self.top_k is not None and self.top_k < 1:
            raise GroundupError(f"top-k = {self.top_k} {WRONG_TOP_K}")
        seed = int.from_bytes(os.urandom(4), "little") if self.seed is None else self.seed
        temperature, top_k = 0.0 if self.greedy else self.temperature, self.top_k or 0
        same = {name: getattr(self, name) for name in SAME}
        return SamplingSettings(temperature=temperature, top_k=top_k, seed=seed, **same)


def generate(
    run: str,
    /,
    *,
    prompt: str = "",
    interactive: bool = False,
    samples: int = 1,
    strict: bool = False,
    device: str = "auto",
    weights: WriterFlags = WriterFlags(),
    draw: Draw = Draw(),
) -> None:
    """Write text with a trained model, as it is made.

    Args:
        run: A run, the path of a run or model folder, gpt2, or OWNER/NAME of the hub.
        prompt: The text to go on from.
        interactive: Take a text to go on from, again and again; /help lists the commands.
        samples: How many texts; each draws numbers of its own from the seed.
        strict: Refuse a prompt longer than the model's context, instead of keeping its end.
        device: auto, cpu, cuda, cuda:1 or mps.
        weights: The weights that write, and what multiplies them.
        draw: How texts are drawn.
    """
    precision, settings = weights.precision(), draw.settings()
    if interactive and samples != 1:
        problem = "--samples and --interactive don't go together: /retry writes another text"
        raise GroundupError(problem)
    if samples < 1:
        raise GroundupError(f"samples = {samples} must be at least 1")
    pen = Pen(run, device, precision, strict, min(samples, AT_ONCE))
    logger.info(f"{pen.description}; seed {settings.seed}")
    if interactive:
        from groundup.cli.interactive import converse

        converse(pen.texts, settings, prompt)
        return
    for number, text in enumerate(pen.texts(prompt, settings, samples), 1):
        if samples > 1:
            show_at_once(f"======== {number} of {samples}\n")
        _show_text(prompt, (written.text for written in text))


def _show_text(prompt: str, pieces: Iterator[str]) -> None:
    """Show a prompt and what follows as soon as there is a first piece.

    A prompt that can't be read is an error before anything is shown, not a text.
    """
    show_at_once(prompt + next(pieces, ""))
    for piece in pieces:
        show_at_once(piece)
    show_at_once("\n")


class Pen:
    """A loaded model, ready to write.

    Args:
        run: The name of the model.
        device: The device that it writes on.
        precision: The dtype of its weights, and what multiplies them.
        strict: Whether a prompt longer than the context is refused.
        slots: The number of texts that are written at once.

    Raises:
        GroundupError: There is no such model or device, or no tokenizer.
    """

    def __init__(
        self, run: str, device: str, precision: "Precision", strict: bool, slots: int
    ) -> None:
        from groundup.checkpoints.model_folder import load_model
        from groundup.generation.engine import Engine
        from groundup.generation.kernels import load_kernels

        if precision.compile != "off" and device in ("auto", "cpu"):
            # they are built while the model is read, where they aren't there yet
            Thread(target=partial(_try, load_kernels), daemon=True).start()
        loaded = load_model(run, device=device)
        self.tokenizer, self.strict = loaded.require_tokenizer(), strict
        self.document_start = loaded.document_start
        self.engine = Engine(
            loaded.model,
            self.tokenizer,
            slots=slots,
            ends=loaded.text_ends,
            precision=precision,
        )
        self.description = f"{loaded.description}; {self.engine.writer.description}"

    def texts(
        self, prompt: str, settings: "SamplingSettings", count: int = 1
    ) -> "Generator[Iterator[Written], None, None]":
        """Yield texts after a prompt, each as an iterator over its pieces.

        A prompt that can't be read is an error before there is a first text. What is still being
        written when the generator is closed is given up.

        Raises:
            GroundupError: The model can't read the prompt.
        """
        from groundup.generation.stream import encode_prompt, fit_prompt

        tokens = encode_prompt(prompt, self.tokenizer, self.document_start)
        tokens = fit_prompt(tokens, self.engine.block_size, self.strict)[0].tolist()
        slots = self.engine.pool.slots
        for first in range(0, count, slots):
            some = min(slots, count - first)
            request = self.engine.submit(tokens, settings, some, first_choice=first)
            try:
                for choice in request.choices:
                    yield iter(choice)
            finally:
                self.engine.cancel(request)


def _try(function: "Callable[[], object]") -> None:
    """Call a function whose errors somebody else will meet."""
    with suppress(GroundupError):
        function()
