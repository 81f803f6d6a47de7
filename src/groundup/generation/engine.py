"""The engine that writes texts: many at once, each as it would be alone.

A request has a prompt and one or more choices, the texts that follow it. In each step the engine
reads one piece of a prompt, if one is waiting, and then writes one token of every text, in one pass
through the model. Requests join and leave between steps.
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from operator import index
from typing import Any

import torch
from torch import Tensor

from groundup.errors import GenerationError
from groundup.generation.pool import Pool
from groundup.generation.settings import SamplingSettings
from groundup.generation.texts import Choice, Request, Scored
from groundup.generation.writer import Precision, Writer, evaluating
from groundup.models.registry import Model
from groundup.models.sampling import token_logprobs
from groundup.tokenizers.base import Tokenizer

NOT_FINITE = "the model's outputs are no finite numbers: its weights are bad"
PIECE = 256  # tokens of a prompt that are read at once, at most; other texts wait for so long


class Engine:
    """Writes texts with a model, many at once.

    A request is submitted and then iterated over. Whoever waits for a token makes the steps until
    it is there, so no thread of the engine's own is needed, and several threads may wait.

        engine = groundup.Engine(*groundup.load("gpt2"))
        request = engine.submit("Once upon a time", groundup.SamplingSettings(length=50))
        for written in request:
            print(written.text, end="")

    On a CPU a text's tokens and log-probabilities don't depend on other texts, bit for bit.

    Args:
        model: Any model. Its mode stays as it is, and texts are written in eval mode. Its weights
            must stay as they are, too: after training goes on, another engine is needed.
        tokenizer: The model's tokenizer; without one, prompts and texts are tokens.
        slots: The number of texts that are written at once; others wait.
        room: The number of tokens of a text that the model can see at once, at most its block_size,
            which 0 stands for. Memory is taken for all slots at once.
        piece: The number of tokens of a prompt that are read at once; 0 takes a quarter of the
            context, at most 256. Other texts wait for so long, and last bits depend on it.
        ends: The tokens that end a text, beside the tokenizer's end-of-text.
        precision: The dtype of the weights, and what multiplies them.

    Raises:
        GenerationError: There is no slot, or no room.
        MachineError: The precision asks for what the machine doesn't have.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer | None = None,
        *,
        slots: int = 16,
        room: int = 0,
        piece: int = 0,
        ends: frozenset[int] = frozenset(),
        precision: Precision | None = None,
    ) -> None:
        self.block_size = model.block_size
        room = min(room or self.block_size, self.block_size)
        if slots < 1 or room < 1 or piece < 0:
            least = "must be at least 1, 1 and 0"
            raise GenerationError(f"slots = {slots}, room = {room} and piece = {piece} {least}")
        self._model, self._versions = model, versions_of(model)
        self.writer = Writer(model, precision or Precision())
        self.writer.take_slots(slots, room)
        self.piece = piece or max(8, min(PIECE, self.block_size // 4))
        self.pool = Pool(slots, room, self.piece)
        self.tokenizer = tokenizer
        # a model may have more tokens than there are, to make its matrices even
        known = self.writer.vocab_size if tokenizer is None else tokenizer.vocab_size
        self.vocab_size = min(self.writer.vocab_size, known)
        end = None if tokenizer is None else tokenizer.end_of_text
        self.ends = ends | (frozenset() if end is None else {end})
        self.passes = 0  # through the model, for pieces and for steps
        self._waiting: deque[Request] = deque()
        self._running: list[Choice] = []
        self._lock = threading.RLock()

    def submit(
        self,
        prompt: str | Sequence[int],
        settings: SamplingSettings | None = None,
        choices: int = 1,
        *,
        logprobs: int | None = None,
        prompt_logprobs: bool = False,
        first_choice: int = 0,
    ) -> Request:
        """Ask for texts that follow a prompt.

        Of a prompt longer than the model's context the newest block_size tokens are read.

        Args:
            prompt: A text, or tokens; at least one token.
            settings: How the texts are drawn.
            choices: The number of texts. Their uniform numbers differ, and the prompt is read once.
            logprobs: List so many most probable tokens beside each token that is written, with
                log-probabilities; None for no log-probabilities at all.
            prompt_logprobs: Whether the prompt's tokens are to have log-probabilities, too.
            first_choice: The number of the first text, by which its uniform numbers are drawn.

        Raises:
            GenerationError: The prompt is empty, a token isn't the model's, the texts need more
                than the engine has, or the model's weights have changed.
            TokenizerError: The vocabulary lacks a character of the prompt.
        """
        settings = settings or SamplingSettings()
        tokens = self._tokens(prompt)
        self._check(len(tokens), settings, choices, logprobs)
        if versions_of(self._model) != self._versions:
            changed = "the model's weights have changed since the engine was made"
            raise GenerationError(f"{changed}; make another engine")
        request = Request(
            self.step,
            self.tokenizer,
            tokens,
            self.block_size,
            settings,
            choices=range(first_choice, first_choice + choices),
            ends=self.ends,
            logprobs=0 if prompt_logprobs and logprobs is None else logprobs,
            prompt_logprobs=prompt_logprobs,
        )
        with self._lock:
            self._waiting.append(request)
        return request

    def cancel(self, what: Request | Choice) -> None:
        """Stop writing: the texts end as they are, and their slots are free."""
        with self._lock:
            for choice in what.choices if isinstance(what, Request) else (what,):
                if not choice.finish:
                    self._end(choice, "cancelled")
            self._waiting = deque(request for request in self._waiting if request.open)

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while a step is made: who holds it has the model alone."""
        return self._lock

    @property
    def running(self) -> int:
        """The number of texts that have slots."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for slots."""
        return len(self._waiting)

    def step(self) -> bool:
        """Read a piece of a prompt, write a token of each text, and return whether more is to do.

        An error in a step ends all texts that were being written. The engine can go on with others.
        """
        with self._lock, torch.inference_mode(), evaluating(self.writer.model):
            try:
                self._admit()
                if self.writer.has_cache:
                    self._read_a_piece()
                    self._write()
                else:
                    self._write_without_cache()
            except BaseException:
                for choice in [*self._running]:
                    self._end(choice, "error")
                    self.pool.hold(choice.slot, [])
                raise
            return bool(self._waiting or self._running)

    def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the tokens of a prompt. Raises GenerationError or TokenizerError."""
        if not isinstance(prompt, str):
            given = prompt
        elif self.tokenizer is not None:
            given = self.tokenizer.encode(prompt).tolist()
        else:
            raise GenerationError("without a tokenizer, a prompt must be tokens")
        try:
            tokens = [index(token) for token in given]
        except TypeError as error:
            raise GenerationError(f"a token of the prompt is no whole number: {error}") from error
        if not tokens:
            raise GenerationError("the prompt is empty; a text follows at least one token")
        self.check_tokens("of the prompt", tokens)
        return tokens

    def check_tokens(self, what: str, tokens: Iterable[int]) -> None:
        """Refuse tokens that are never written.

        Args:
            what: What they are, for the message.
            tokens: The tokens.

        Raises:
            GenerationError: One is none of the model's.
        """
        for token in tokens:
            if not 0 <= token < self.vocab_size:
                size = f"{self.vocab_size:,}"
                raise GenerationError(f"token {token} {what} is none of the model's {size}")

    def _check(
        self, prompt: int, settings: SamplingSettings, choices: int, logprobs: int | None
    ) -> None:
        """Refuse what would never get a slot, or no slot of that size. Raises GenerationError."""
        self.check_tokens("of logit_bias", (token for token, _ in settings.logit_bias))
        for name, value in (("choices", choices), ("logprobs", logprobs or 0)):
            if not isinstance(value, int):
                raise GenerationError(f"{name} = {value!r} must be a whole number")
        if not 1 <= choices <= self.pool.slots:
            limit = f"from 1 to {self.pool.slots}, the slots of the engine"
            raise GenerationError(f"choices = {choices} must be {limit}")
        if logprobs is not None and logprobs < 0:
            raise GenerationError(f"logprobs = {logprobs} must be a number of tokens, from 0")
        need = min(min(prompt, self.block_size) + settings.length, self.block_size)
        if need > self.pool.room:
            raise GenerationError(
                f"the text needs room for {need:,} tokens, but a slot of the engine has room for "
                f"{self.pool.room:,}"
            )

    def _admit(self) -> None:
        """Give slots to those who wait, first come, first served, when all of a request fits."""
        while self._waiting and len(self._waiting[0].open) <= self.pool.free:
            request = self._waiting[0]  # until all of it has slots: an error may come between
            shares = self.writer.has_cache and not request.prompt_logprobs
            for number, choice in enumerate(request.open):
                reads = number == 0 or choice.length == 1
                found = self.pool.take(choice.window if shares and reads else [])
                choice.slot, choice.read, source = found
                choice.follows = None if reads else request.open[0]
                self._running.append(choice)
                if source is not None:
                    self.writer.copy(source, choice.slot, choice.read)
            self._waiting.popleft()

    def _read_a_piece(self) -> None:
        """Read a piece of the first text that has more to read than its newest token."""
        behind = (c for c in self._running if not c.follows and c.length - c.read > 1)
        if (choice := next(behind, None)) is None:
            return
        window, first = choice.window, choice.read
        last = min((first // self.pool.piece + 1) * self.pool.piece, len(window))
        hidden = self.writer.read(window[first:last], choice.slot, first)
        self.passes += 1
        choice.read = last
        if last % self.pool.piece == 0:
            self.pool.hold(choice.slot, window[:last])
        if choice.request.prompt_logprobs and not choice.tokens:
            self._score_prompt(choice.request, hidden, first)
        if last == len(window):
            self._go_on([choice], self.writer.logits(hidden[:, -1]))

    def _go_on(self, choices: Sequence[Choice], logits: Tensor) -> None:
        """Write the tokens after what was read, also of the choices that have waited for that."""
        writing, rows = list[Choice](), list[int]()
        for row, choice in enumerate(choices):
            others = [c for c in self._running if c.follows is choice]
            for other in others:
                self.writer.copy(choice.slot, other.slot, choice.read)
                other.read, other.follows = choice.read, None
            writing += [choice, *others]
            rows += [row] * (1 + len(others))
        self._accept(writing, logits if len(rows) == len(choices) else logits[rows])

    def _write(self) -> None:
        """Read the newest token of every text that has read all others, and write the next."""
        rows = [c for c in self._running if not c.follows and c.length - c.read == 1]
        if not rows:
            return
        newest = torch.tensor([choice.newest for choice in rows])
        slots, lengths = [c.slot for c in rows], [c.length for c in rows]
        logits = self.writer.write(newest, slots, lengths)
        self.passes += 1
        for choice in rows:
            choice.read += 1
        self._go_on(rows, logits)

    def _write_without_cache(self) -> None:
        """Read all that the model sees of every text, and write the next token."""
        for choice in [*self._running]:
            choice.follows = None
            request = choice.request
            asked = request.prompt_logprobs and not (choice.tokens or request.prompt_scores)
            hidden = self.writer.read_whole(choice.window, last=not asked)
            self.passes += 1
            if asked:
                self._score_prompt(request, hidden, 0)
            self._accept([choice], self.writer.logits(hidden[:, -1]))

    def _accept(self, choices: Sequence[Choice], logits: Tensor) -> None:
        """Draw the next token of each text. logits: [choices, vocab]"""
        rows = logits.split(1)
        known = self.vocab_size
        drawn = [c.sampler.draw(r[:, :known], c.tokens) for c, r in zip(choices, rows, strict=True)]
        are_numbers = logits.max().isfinite()  # the largest is NaN where any is
        # the one wait for the device
        *tokens, good = torch.cat([*drawn, are_numbers.to(drawn[0])[None]]).tolist()
        if not good:
            raise GenerationError(NOT_FINITE)
        for choice, token, row in zip(choices, tokens, rows, strict=True):
            wanted = choice.request.logprobs
            score = None if wanted is None else scored(row, [token], wanted, known)[0]
            choice.accept(token, score, self.block_size)
            if choice.finish:
                self._end(choice, choice.finish)
            elif choice.read == 0:
                self.pool.hold(choice.slot, [])  # the context was full

    def _score_prompt(self, request: Request, hidden: Tensor, first: int) -> None:
        """Score the tokens that follow those that were just read. hidden: [1, time, width]"""
        following = request.context[first + 1 : first + 1 + hidden.size(1)]
        for some in range(0, len(following), 32):  # logits need much memory
            logits = self.writer.logits(hidden[:, some : some + 32])[0]
            tokens, top = following[some : some + 32], request.logprobs or 0
            request.prompt_scores += scored(logits[: len(tokens)], tokens, top, self.vocab_size)

    def _end(self, choice: Choice, reason: str) -> None:
        """End a text, and give its slot back. Who reads a prompt for others hands that on."""
        if not choice.finish:
            choice.end(reason)
        if choice not in self._running:
            return
        self._running.remove(choice)
        heir, *others = [c for c in self._running if c.follows is choice] or [None]
        if heir is not None:
            heir.slot, choice.slot = choice.slot, heir.slot
            heir.read, heir.follows = choice.read, None
            for other in others:
                assert other is not None
                other.follows = heir
        self.pool.release(choice.slot)


def versions_of(model: Model) -> list[int]:
    """How often each weight of a model was changed in place, as autograd counts it."""
    return [0 if each.is_inference() else each._version for each in model.parameters()]


def scored(logits: Tensor, tokens: Sequence[int], top: int, known: int) -> list[Scored]:
    """Return the scores of tokens. logits: [tokens, vocab], as the model gives them."""
    found = token_logprobs(logits, torch.tensor(tokens, device=logits.device), top, known)
    own, numbers, values = (each.tolist() for each in found)
    rows = zip(tokens, own, numbers, values, strict=True)
    return [Scored(token, logprob, tuple(zip(n, v, strict=True))) for token, logprob, n, v in rows]
