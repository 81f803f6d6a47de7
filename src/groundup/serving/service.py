"""The model that a server has: what requests ask of it, and what is answered."""

import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import groundup
from groundup.checkpoints.model_folder import LoadedModel
from groundup.errors import ChatTemplateError, GroundupError
from groundup.generation.stream import encode_prompt
from groundup.generation.texts import Request
from groundup.models.registry import build_on_meta
from groundup.page.story import run_story
from groundup.serving.answers import (
    ApiError,
    TextSoFar,
    chat_logprobs,
    completion_logprobs,
    overloaded,
)
from groundup.serving.chat import PLAIN_STOP, chat_template_of, check_messages
from groundup.serving.driver import Driver, EngineFailedError, Job, OverloadedError, Piece, Stream
from groundup.serving.inspector import Inspector
from groundup.serving.protocol import (
    ChatRequest,
    CompletionRequest,
    SamplingRequest,
)
from groundup.tokenizers.texts import TokenTexts

logger = logging.getLogger(__name__)

MOST_TOLD = 2**15  # tokens of a text that is only cut into them
MOST_TEXTS = 256  # of one request
LEAST_OF_A_CHAT = 16  # tokens that a chat may write at least, however long it is


@dataclass(frozen=True)
class Plan:
    """What a request asks the engine for, and how its answer begins.

    Args:
        jobs: One for each prompt.
        prompts: The text of each prompt.
        body: The request.
    """

    jobs: list[Job]
    prompts: list[str]
    body: SamplingRequest

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens of all prompts."""
        return sum(len(job.prompt) for job in self.jobs)


class Service:
    """A model behind HTTP.

    Args:
        driver: What writes its texts.
        loaded: The model, as it was loaded.
        name: The name that clients call it by.
        allow_special_tokens: Whether messages may spell special tokens.
    """

    def __init__(
        self, driver: Driver, loaded: LoadedModel, name: str, allow_special_tokens: bool
    ) -> None:
        self.driver, self.name = driver, name
        self.tokenizer, self.document_start = loaded.require_tokenizer(), loaded.document_start
        self.allow_special_tokens = allow_special_tokens
        self.special = dict(self.tokenizer.special_tokens)
        self.template = chat_template_of(loaded.conventions)
        self.texts, self.created = TokenTexts(self.tokenizer), int(time.time())
        self.inspector = Inspector(driver, self.texts)
        shape = build_on_meta(loaded.architecture, loaded.model.config).to(loaded.dtype)
        self._recorded = replace(loaded, model=shape, adapter={})  # the weights needn't stay
        self.fingerprint = f"groundup-{groundup.__version__}-{driver.engine.writer.path}"

    @property
    def context(self) -> int:
        """The number of tokens that the model sees at once."""
        return self.driver.engine.block_size

    def check_model(self, name: str | None) -> None:
        """Refuse a name that isn't the model's; none stands for it."""
        if name is not None and name != self.name:
            known = f"there is no model {name[:200]!r}; this server has {self.name!r}"
            raise ApiError(404, known, "model", "model_not_found")

    def plan_completion(self, body: CompletionRequest) -> Plan:
        """Return what a completion asks for.

        Raises:
            ApiError: The model can't do that.
        """
        prompts = [self._prompt(each) for each in body.prompt]
        length = 16 if body.max_tokens is None else body.max_tokens
        wants_scores = body.logprobs is not None
        scores = {"logprobs": body.logprobs}
        scores["prompt_logprobs"] = wants_scores and bool(body.echo)
        jobs = self._jobs([tokens for tokens, _ in prompts], body, length, scores)
        return Plan(jobs, [text for _, text in prompts], body)

    def plan_chat(self, body: ChatRequest) -> Plan:
        """Return what a chat asks for.

        Raises:
            ApiError: The model can't do that.
        """
        text = self.render(body)
        tokens = self._encode_rendered(text)
        left = max(self.context - len(tokens), LEAST_OF_A_CHAT)
        length = left if body.most_tokens is None else body.most_tokens
        scores = {"logprobs": (body.top_logprobs or 0) if body.logprobs else None}
        if self.template.is_plain:  # the engine takes more stops than a request may have
            body = body.model_copy(update={"stop": [*(body.stop or ()), PLAIN_STOP]})
        return Plan(self._jobs([tokens], body, length, scores), [text], body)

    def start(self, plan: Plan) -> Stream:
        """Begin to write.

        Raises:
            ApiError: Too many texts wait.
        """
        try:
            return self.driver.submit(plan.jobs)
        except OverloadedError:
            raise overloaded() from None

    def begun_texts(self, plan: Plan) -> list[TextSoFar]:
        """Return the texts of a request before anything is written."""
        silent = plan.body.max_tokens == 0
        return [TextSoFar(self.texts, silent) for job in plan.jobs for _ in range(job.choices)]

    def echo(self, plan: Plan, which: int, request: Request, text: TextSoFar) -> None:
        """Put a prompt in front of a text whose first token is there.

        Args:
            plan: What was asked for.
            which: The number of the prompt.
            request: The engine's request for it.
            text: The text.
        """
        job = plan.jobs[which]
        scores = request.prompt_scores if job.prompt_logprobs else None
        text.begin(job.prompt, plan.prompts[which], scores)

    def logprobs(self, plan: Plan, text: TextSoFar) -> dict[str, Any] | None:
        """Return the log-probabilities of what can be shown of a text since the last call."""
        body = plan.body
        if isinstance(body, CompletionRequest):
            if body.logprobs is None:
                return None
            return completion_logprobs(text.take_placed(), self.texts, body.logprobs)
        if isinstance(body, ChatRequest) and body.logprobs:
            return chat_logprobs(text.take_placed(), self.texts)
        return None

    def render(self, body: ChatRequest) -> str:
        """Return a chat as one text.

        Raises:
            ApiError: The template doesn't take it, or a message spells a special token.
        """
        messages = [message.as_template_sees_it() for message in body.messages]
        try:
            if not self.allow_special_tokens:
                check_messages(messages, self.special)
            return self.template.render(messages)
        except ChatTemplateError as error:
            raise ApiError(400, str(error), "messages") from error

    def story(self) -> dict[str, Any] | None:
        """Return what is on record of the model's run, which may go on meanwhile; None without one.

        Raises:
            ApiError: The records of the run are damaged.
        """
        try:
            return run_story(self._recorded)
        except GroundupError as error:
            logger.warning(f"the page can't show the run: {error}")
            problem = "the records of the model's run are damaged; the server's log has more"
            raise ApiError(404, problem) from error

    def prompt_tokens(self, prompt: str | list[int], is_read: bool) -> list[int]:
        """Return the tokens of a prompt.

        Args:
            prompt: The prompt.
            is_read: Whether the model is to see it whole.

        Raises:
            ApiError: The prompt is too long, or has what the model doesn't know.
        """
        tokens, _ = self._prompt(prompt)
        if is_read:
            self._check_fits(tokens, "prompt")
        elif len(tokens) > MOST_TOLD:
            problem = f"the prompt has {len(tokens):,} tokens, of which at most {MOST_TOLD:,}"
            raise ApiError(400, f"{problem} are listed", "prompt", "context_length_exceeded")
        return tokens

    def _check_fits(self, tokens: list[int], where: str) -> None:
        if len(tokens) > self.context:
            problem = f"the prompt has {len(tokens):,} tokens, but the model's context is "
            code = "context_length_exceeded"
            raise ApiError(400, f"{problem}{self.context:,}", where, code)

    def _prompt(self, prompt: str | list[int]) -> tuple[list[int], str]:
        """Return a prompt's tokens and its text."""
        if isinstance(prompt, str):
            if not prompt and self.document_start is None:
                problem = "is empty, and this model has no token that begins a document"
                raise ApiError(400, f"prompt {problem}: give at least one character", "prompt")
            try:
                tokens = encode_prompt(prompt, self.tokenizer, self.document_start)[0].tolist()
            except GroundupError as error:
                raise ApiError(400, str(error), "prompt") from error
            return tokens, prompt
        size = self.driver.engine.vocab_size
        if wrong := [token for token in prompt if not 0 <= token < size]:
            problem = f"token {wrong[0]} of the prompt is none of the model's {size:,}"
            raise ApiError(400, problem, "prompt")
        if not prompt:
            raise ApiError(400, "prompt has no tokens: give at least one", "prompt")
        return prompt, self.tokenizer.decode(prompt)

    def _jobs(
        self,
        prompts: Sequence[list[int]],
        body: SamplingRequest,
        length: int,
        scores: dict[str, Any],
    ) -> list[Job]:
        """Return the jobs of a request, of which all is known to be possible."""
        slots, choices = self.driver.engine.pool.slots, body.n or 1
        if choices > slots:
            raise ApiError(400, f"n = {choices} is above {slots}, this server's most", "n")
        if choices * len(prompts) > MOST_TEXTS:
            asked = f"{len(prompts)} prompts with n = {choices} are"
            raise ApiError(400, f"{asked} more than {MOST_TEXTS} texts in one request", "n")
        for tokens in prompts:
            self._check_fits(tokens, "messages" if isinstance(body, ChatRequest) else "prompt")
        try:
            settings = body.settings(length, lambda: secrets.randbits(63))
            self.driver.engine.check_tokens("of logit_bias", dict(settings.logit_bias))
        except GroundupError as error:
            raise ApiError(400, str(error), "logit_bias") from error
        return [Job(tokens, settings, choices, **scores) for tokens in prompts]

    def _encode_rendered(self, text: str) -> list[int]:
        """Return the tokens of a rendered chat, in which names of special tokens are tokens."""
        names = sorted(self.special, key=len, reverse=True)
        pattern = "|".join(map(re.escape, names)) or "(?!)"
        tokens = list[int]()
        try:
            for part in re.split(f"({pattern})", text):
                if part in self.special:
                    tokens.append(self.special[part])
                elif part:
                    tokens += self.tokenizer.encode(part).tolist()
        except GroundupError as error:
            raise ApiError(400, str(error), "messages") from error
        if not tokens:
            raise ApiError(400, "the model's chat template makes an empty text of it", "messages")
        return tokens


async def follow(stream: Stream) -> AsyncGenerator[list[Piece]]:
    """Yield what each step adds to a request's texts.

    Raises:
        ApiError: The engine failed, or doesn't take the request.
    """
    try:
        async for pieces in stream.pieces():
            yield pieces
    except EngineFailedError as error:
        raise ApiError(503, f"{error}; try again", code="engine_error") from None
    except GroundupError as error:
        raise ApiError(400, str(error)) from None
