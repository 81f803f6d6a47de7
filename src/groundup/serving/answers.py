"""What clients get, as the OpenAI interface has it: texts, chats, events of streams, errors."""

import codecs
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from groundup.generation.texts import Scored
from groundup.inspection.answer import LOWEST
from groundup.serving.driver import Piece
from groundup.tokenizers.texts import TokenTexts


class ApiError(Exception):
    """A request that isn't answered as it wants to be.

    Args:
        status: The HTTP status.
        message: What is wrong, with the value and the remedy.
        param: The field that it is about.
        code: A word for programs.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error as clients read it."""
        known = {401: "authentication_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": known.get(self.status, kind)}
        return {"error": error | {"param": self.param, "code": self.code}}


def overloaded() -> ApiError:
    """The error where too many texts wait."""
    problem = "the server has as much to write as it takes; try again later"
    return ApiError(429, problem, code="overloaded")


def as_json(value: Any) -> bytes:
    """Write a value as JSON in ASCII: no client has to guess an encoding."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def event(value: Any) -> bytes:
    """Write an event of a stream."""
    return b"data: " + as_json(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class PlacedToken:
    """A token of a text, with its score, or None for the first of a prompt, and where it begins."""

    token: int
    offset: int
    score: Scored | None


@dataclass
class TextSoFar:
    """One text while it is written.

    Attributes:
        silent: Whether nothing that is written is shown: only the prompt was asked for.
        begun: Whether its first token is there.
        shown: The text that clients may see.
        finish: Why it is over, or empty.
        tokens: The number of tokens that were written.
        placed: Tokens whose text is shown, and weren't taken yet.
        ids: The tokens that were written and weren't taken yet, shown or not.
    """

    texts: TokenTexts
    silent: bool = False
    begun: bool = False
    shown: str = ""
    finish: str = ""
    tokens: int = 0
    placed: list[PlacedToken] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    _held: list[PlacedToken] = field(default_factory=list)  # perhaps of a stop string
    _seen: int = 0  # characters that tokens have begun, those held back included
    _decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def begin(self, prompt: Sequence[int], text: str, scores: Sequence[Scored] | None) -> None:
        """Put the prompt in front, for `echo`.

        Args:
            prompt: The tokens of the prompt.
            text: Its text.
            scores: The scores of all tokens but the first, or None.
        """
        self.shown = text
        if scores is not None:
            for token, score in zip(prompt, [None, *scores], strict=True):
                self.placed.append(PlacedToken(token, self._seen, score))
                self._pass(token)
        self._seen, self._decoder = len(text), codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, piece: Piece) -> str:
        """Take what a step added, and return the text that can be shown now."""
        new = ""
        for written in piece.written if not self.silent else ():
            new += written.text
            if written.token is None:
                continue
            self.tokens += 1
            self.ids.append(written.token)
            if written.score is not None:
                self._held.append(PlacedToken(written.token, self._seen, written.score))
                self._pass(written.token)
        self.shown += new
        self.finish = piece.finish
        last = len(self.shown) + (piece.finish == "length")
        while self._held and self._held[0].offset < last:
            self.placed.append(self._held.pop(0))
        return new

    def take_placed(self) -> list[PlacedToken]:
        """Return the tokens whose text is shown since the last call."""
        placed, self.placed = self.placed, []
        return placed

    def take_ids(self) -> list[int]:
        """Return the tokens that were written since the last call."""
        ids, self.ids = self.ids, []
        return ids

    def _pass(self, token: int) -> None:
        self._seen += len(self._decoder.decode(self.texts.bytes(token)))


def completion_logprobs(
    placed: Iterable[PlacedToken], texts: TokenTexts, top: int
) -> dict[str, list[Any]]:
    """Return the log-probabilities of tokens as completions have them."""
    lists: dict[str, list[Any]] = {
        name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    }
    for each in placed:
        score = each.score
        lists["tokens"].append(texts.name(each.token))
        lists["token_logprobs"].append(None if score is None else _number(score.logprob))
        listed = None
        if score is not None and top:
            # tokens that look alike share a name: the most probable one has it
            best = [(each.token, score.logprob), *reversed(score.top)]
            listed = {texts.name(token): _number(value) for token, value in best}
        lists["top_logprobs"].append(listed)
        lists["text_offset"].append(each.offset)
    return lists


def chat_logprobs(placed: Iterable[PlacedToken], texts: TokenTexts) -> dict[str, Any]:
    """Return the log-probabilities of tokens as chats have them."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        name, own = texts.name(token), list(texts.bytes(token))
        return {"token": name, "logprob": _number(logprob), "bytes": own}

    content = [
        entry(each.token, each.score.logprob)
        | {"top_logprobs": [entry(token, value) for token, value in each.score.top]}
        for each in placed
        if each.score is not None
    ]
    return {"content": content}


def _number(logprob: float) -> float:
    return max(logprob, LOWEST)


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class Usage(BaseModel):
    """The tokens that a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(BaseModel):
    """The log-probabilities of a completion's tokens."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One text that follows a prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    token_ids: list[int] | None = None


class Answer(BaseModel):
    """What all answers say of themselves."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage | None = None


class Completion(Answer):
    """The answer of POST /v1/completions, and each event of its stream."""

    choices: list[CompletionChoice]


class TokenLogprob(BaseModel):
    """A token with its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(TokenLogprob):
    """A token of a chat, with the most probable ones at its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """The log-probabilities of a message's tokens."""

    content: list[ChatTokenLogprob]


class ChatMessage(BaseModel):
    """The message that the model wrote."""

    role: str
    content: str


class ChatChoice(BaseModel):
    """One message that follows a chat."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    token_ids: list[int] | None = None


class Chat(Answer):
    """The answer of POST /v1/chat/completions."""

    choices: list[ChatChoice]


class ChatDelta(BaseModel):
    """What an event adds to a message."""

    role: str | None = None
    content: str | None = None


class ChatEventChoice(BaseModel):
    """What an event says of one message."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    token_ids: list[int] | None = None


class ChatEvent(Answer):
    """An event of the stream of POST /v1/chat/completions."""

    choices: list[ChatEventChoice]


EVENTS: dict[str, type[BaseModel]] = {
    "/v1/completions": Completion,
    "/v1/chat/completions": ChatEvent,
}


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int


class ModelList(BaseModel):
    """The answer of GET /v1/models."""

    object: str
    data: list[ModelCard]


class Health(BaseModel):
    """The answer of GET /health."""

    status: str


class RunStory(BaseModel):
    """What is on record of the run that a model came from."""

    name: str
    recipe: str
    facts: dict[str, Any]
    evaluations: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    card: str
