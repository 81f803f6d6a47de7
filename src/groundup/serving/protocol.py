"""What clients may ask for: every field with its type and its range.

Values that would change the answer and that the server doesn't know are refused by name. Neutral
ones, and fields that nobody here has heard of, are left alone.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function

from groundup.generation.settings import SamplingSettings

MOST_TOKENS = 2**20  # of an answer
MOST_PROMPTS = 128
MOST_CHOICES = 128
MOST_LOGPROBS = 20
MOST_STOPS = 4
# more are refused before they are looked at: to say what is wrong with each would take long
MOST_PARTS = 1000  # of a message
MOST_BIASES = 1024
WRONG = "wrong_value"  # the type of errors that we raise


def refuse(message: str) -> PydanticCustomError:
    """An error whose message is shown as it is."""
    return PydanticCustomError(WRONG, "{message}", {"message": message})


class Neutral:
    """Marks a field that isn't supported: only values that change nothing are taken.

    Args:
        values: Such values, beside those that every field has.
    """

    def __init__(self, *values: Any) -> None:
        self.values = [None, "", [], {}, *values]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"enum": self.values}

    def _check(self, value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in self.values):
            raise refuse("is not supported; leave it out")
        return value


Unsupported = Annotated[Any, Neutral()]


def at_most(most: int, what: str) -> Callable[[Any], Any]:
    """Return what refuses a list or an object of more entries than `most`."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            raise refuse(f"has {len(value):,} {what}; at most {most:,} are allowed")
        return value

    return check


def _prompts(value: Any) -> list[str] | list[list[int]]:
    """Return prompts as a list. They are a text, texts, tokens or lists of tokens."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise refuse("must be a text, texts, tokens or lists of tokens, at least one")
    if all(_is_token(each) for each in value):
        value = [value]
    at_most(MOST_PROMPTS, "prompts")(value)
    if all(isinstance(each, str) for each in value):
        for text in value:
            _check_text(text)
        return value
    if all(isinstance(each, list) and all(map(_is_token, each)) for each in value):
        return value
    raise refuse("must be a text, texts, tokens or lists of tokens")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_text(text: str) -> str:
    """Refuse halves of surrogate pairs, which JSON can spell and UTF-8 can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise refuse("has half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_check_text)]
TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_PROMPTS},
        TOKENS,
        {"type": "array", "items": TOKENS, "minItems": 1, "maxItems": MOST_PROMPTS},
    ]
}
Prompts = Annotated[Any, BeforeValidator(_prompts), WithJsonSchema(PROMPT_SCHEMA)]


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stop = Annotated[Text, Field(min_length=1)]
Stops = Annotated[
    list[Stop],
    BeforeValidator(at_most(MOST_STOPS, "texts")),
    BeforeValidator(_stops),
    Field(max_length=MOST_STOPS),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "maxItems": MOST_STOPS,
                },
            ]
        }
    ),
]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Biases = Annotated[dict[TokenName, Bias] | None, BeforeValidator(at_most(MOST_BIASES, "tokens"))]
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class StreamOptions(BaseModel):
    """What a stream says beside the texts."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SamplingRequest(BaseModel):
    """The fields that completions and chats have in common."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    default_tokens: ClassVar[int] = 16

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Biases = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    stop: Stops | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None

    response_format: Annotated[Any, Neutral({"type": "text"})] = None
    tools: Unsupported = None
    tool_choice: Annotated[Any, Neutral("none", "auto")] = None
    functions: Unsupported = None
    function_call: Annotated[Any, Neutral("none", "auto")] = None
    use_beam_search: Annotated[Any, Neutral(False)] = None
    length_penalty: Annotated[Any, Neutral(1, 1.0)] = None
    min_tokens: Annotated[Any, Neutral(0)] = None
    stop_token_ids: Unsupported = None
    bad_words: Unsupported = None
    allowed_token_ids: Unsupported = None
    prompt_logprobs: Unsupported = None
    truncate_prompt_tokens: Unsupported = None
    guided_json: Unsupported = None
    guided_regex: Unsupported = None
    guided_choice: Unsupported = None
    guided_grammar: Unsupported = None
    structured_outputs: Unsupported = None
    grammar: Unsupported = None
    json_schema: Unsupported = None
    structural_tag: Unsupported = None
    logits_processors: Unsupported = None
    chat_template_kwargs: Unsupported = None
    include_stop_str_in_output: Annotated[Any, Neutral(False)] = None
    skip_special_tokens: Annotated[Any, Neutral(True)] = None
    return_tokens_as_token_ids: Annotated[Any, Neutral(False)] = None
    repeat_penalty: Annotated[Any, Neutral(1, 1.0)] = None
    typical_p: Annotated[Any, Neutral(1, 1.0)] = None
    tfs_z: Annotated[Any, Neutral(1, 1.0)] = None
    mirostat: Annotated[Any, Neutral(0)] = None
    xtc_probability: Annotated[Any, Neutral(0, 0.0)] = None
    dry_multiplier: Annotated[Any, Neutral(0, 0.0)] = None

    @model_validator(mode="after")
    def _streams(self) -> Self:
        options = self.stream_options or StreamOptions()
        if (options.include_usage or options.continuous_usage_stats) and not self.stream:
            raise refuse("stream_options: is for streams only; set stream")
        return self

    def settings(self, length: int, fresh_seed: Callable[[], int]) -> SamplingSettings:
        """Return how the texts are drawn.

        Args:
            length: The number of tokens of each text.
            fresh_seed: Gives the seed where the request has none.
        """
        optional = {
            name: value
            for name in ("top_p", "min_p", "repetition_penalty", *PENALTIES)
            if (value := getattr(self, name)) is not None
        }
        return SamplingSettings(
            length=max(1, length),
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=max(0, self.top_k or 0),
            seed=fresh_seed() if self.seed is None else self.seed,
            logit_bias=tuple((int(k), v) for k, v in (self.logit_bias or {}).items()),
            stop=tuple(self.stop or ()),
            ignore_ends=bool(self.ignore_eos),
            **optional,
        )


PENALTIES = "presence_penalty", "frequency_penalty"


class CompletionRequest(SamplingRequest):
    """The body of POST /v1/completions."""

    prompt: Prompts
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: int | None = None
    suffix: Unsupported = None
    max_completion_tokens: Unsupported = None

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise refuse("best_of: is not supported, unless it equals n")
        if self.max_tokens == 0 and not self.echo:
            raise refuse("max_tokens: 0 is for echo only")
        return self


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: Text


Content = Annotated[Text | list[TextPart] | None, BeforeValidator(at_most(MOST_PARTS, "parts"))]


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(strict=True, extra="ignore")
    role: Literal["system", "user", "assistant", "developer"]
    content: Content = None
    name: Text | None = None
    tool_calls: Unsupported = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise refuse(f"content: is missing in a message of the role {self.role}")
        return self

    def as_template_sees_it(self) -> dict[str, str]:
        """Return the message with its whole text."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "\n".join(part.text for part in parts)
        name = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": text, **name}


class ChatRequest(SamplingRequest):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000, fail_fast=True)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    modalities: Annotated[Any, Neutral(["text"])] = None
    audio: Unsupported = None
    echo: Annotated[Any, Neutral(False)] = None
    best_of: Annotated[Any, Neutral(1)] = None
    prediction: Unsupported = None
    add_generation_prompt: Annotated[Any, Neutral(True)] = None
    continue_final_message: Annotated[Any, Neutral(False)] = None
    chat_template: Unsupported = None
    documents: Unsupported = None

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse("top_logprobs: needs logprobs = true")
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise refuse("max_tokens: contradicts max_completion_tokens; give one of them")
        if limits == {0}:
            raise refuse("max_tokens: must be at least 1")
        return self

    @property
    def most_tokens(self) -> int | None:
        """The most tokens that were asked for, or None."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens
