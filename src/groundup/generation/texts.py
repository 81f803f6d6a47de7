"""A request to the engine and its choices: what is written, and how far the engine has come."""

import codecs
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from groundup.errors import GenerationError
from groundup.generation.sampler import Sampler
from groundup.generation.settings import SamplingSettings
from groundup.generation.stops import StopFilter
from groundup.models.sampling import window_start
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Scored:
    """A token with its log-probability, and the most probable tokens with theirs.

    Args:
        token: The token.
        logprob: The model's own log-probability of it, in nats, before temperature and all else.
        top: The most probable tokens at its place, the first ones first, with log-probabilities.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Written:
    """What one step adds to a text.

    Args:
        token: The token; None where only text is left to show, at the end.
        text: The text that can be shown now: whole characters, and no beginning of a stop string.
        score: The token's log-probability, where it was asked for.
    """

    token: int | None
    text: str = ""
    score: Scored | None = None


class Choice:
    """One of the texts that follow a prompt. Iterating over it makes the engine write.

    Args:
        request: The request.
        number: Its number among the texts of the prompt.

    Attributes:
        finish: Why it ended: length, stop, cancelled or error; empty while it is written.
        tokens: The tokens that were written so far.
    """

    def __init__(self, request: "Request", number: int) -> None:
        self.request, self.number = request, number
        self.finish = ""
        self.tokens: list[int] = []
        self.sampler = Sampler(request.settings, number, request.prompt)
        # how far the engine has come
        self.slot, self.read, self.start = -1, 0, 0
        self.follows: Choice | None = None  # the choice that reads the prompt for this one
        self._events: deque[Written] = deque()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = StopFilter(request.settings.stop)

    def __iter__(self) -> Iterator[Written]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self.finish and not self._events:
                break
            self.request.step()
        if self.finish == "error":
            raise GenerationError("the text can't go on: an error ended a step of the engine")

    def take(self) -> list[Written]:
        """Return what was written since the last call, without making a step."""
        return [self._events.popleft() for _ in range(len(self._events))]

    @property
    def window(self) -> list[int]:
        """The tokens that the model sees: from `window_start` on."""
        prompt = self.request.context
        return (prompt + self.tokens)[self.start :] if self.start or self.tokens else prompt

    @property
    def length(self) -> int:
        """The number of tokens that the model sees."""
        return len(self.request.context) + len(self.tokens) - self.start

    @property
    def newest(self) -> int:
        """The newest token."""
        return self.tokens[-1] if self.tokens else self.request.context[-1]

    def accept(self, token: int, score: Scored | None, block_size: int) -> None:
        """Take the token that was drawn, and end the text where it or the settings say so."""
        settings = self.request.settings
        if token in self.request.ends and not settings.ignore_ends:
            self.end("stop")
            return
        self.tokens.append(token)
        text = self._shown(self.request.decode([token]))
        self._events.append(Written(token, text, score))
        if self._stops.found:
            self.end("stop")
            return
        if len(self.tokens) >= settings.length:
            self.end("length")
            return
        start = window_start(len(self.request.context) + len(self.tokens), block_size)
        if start != self.start:
            self.start, self.read = start, 0

    def end(self, reason: str) -> None:
        """End the text, and show what was held back."""
        rest = self._shown(b"", final=True) + self._stops.finish()
        if rest:
            self._events.append(Written(None, rest))
        # at last: another thread may read what there is, and then see whether it is all
        self.finish = "stop" if self._stops.found and reason == "length" else reason

    def _shown(self, written: bytes, final: bool = False) -> str:
        """Return the text that can be shown after some more bytes."""
        return self._stops.push(self._decoder.decode(written, final=final))


class Request:
    """A prompt, and the texts that are to follow it.

    Args:
        step: Makes a step of the engine.
        tokenizer: What turns tokens into text, if there is something.
        prompt: All tokens of the prompt.
        block_size: The most tokens that the model sees: the newest ones of a longer prompt.
        settings: How the texts are drawn.
        choices: The numbers of the texts.
        ends: The tokens that end a text.
        logprobs: How many most probable tokens to list beside each token; None for no scores.
        prompt_logprobs: Whether the prompt's tokens get scores, too.

    Attributes:
        choices: The texts.
        prompt_scores: The scores of the prompt's tokens but the first, as far as it is read.
    """

    def __init__(
        self,
        step: Callable[[], object],
        tokenizer: Tokenizer | None,
        prompt: Sequence[int],
        block_size: int,
        settings: SamplingSettings,
        *,
        choices: range,
        ends: frozenset[int],
        logprobs: int | None,
        prompt_logprobs: bool,
    ) -> None:
        self.step, self._tokenizer = step, tokenizer
        self.prompt, self.context = list(prompt), list(prompt[-block_size:])
        self.settings, self.ends = settings, ends
        self.logprobs, self.prompt_logprobs = logprobs, prompt_logprobs
        self.prompt_scores: list[Scored] = []
        self.choices = tuple(Choice(self, number) for number in choices)

    def __iter__(self) -> Iterator[Written]:
        """Write the first choice."""
        return iter(self.choices[0])

    @property
    def open(self) -> list[Choice]:
        """The choices that aren't over."""
        return [choice for choice in self.choices if not choice.finish]

    def decode(self, tokens: list[int]) -> bytes:
        """Return the text of tokens as UTF-8, perhaps with the beginning of a character."""
        return b"" if self._tokenizer is None else self._tokenizer.decode_bytes(tokens)
