"""What clients may ask of a text that is inspected, and what they get."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from groundup.generation.settings import SamplingSettings
from groundup.inspection.answer import THUMBNAIL, Point, Wanted
from groundup.inspection.reading import MOST_ALTERNATIVES
from groundup.serving.answers import ApiError
from groundup.serving.protocol import TOKENS, Text, at_most, refuse

MOST_MAPS, MOST_LENSES = 64, 64  # of one request
MOST_MAP_BYTES = 32 * 2**20

Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
Place = Annotated[list[Number], Field(min_length=2, max_length=2)]


def _one_prompt(value: Any) -> Any:
    """Take a text or tokens, and refuse all else in one sentence."""
    is_tokens = isinstance(value, list) and all(type(each) is int for each in value)
    if not value or not (isinstance(value, str) or is_tokens):
        raise refuse("must be a text or tokens, at least one")
    return value


Prompt = Annotated[
    Text | list[int],
    BeforeValidator(_one_prompt),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, TOKENS]}),
]


class DrawRequest(BaseModel):
    """How the next token of a text is drawn."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    written: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    def settings(self) -> SamplingSettings:
        """Return them as the engine takes them."""
        return SamplingSettings(
            temperature=self.temperature,
            top_k=max(0, self.top_k),
            top_p=self.top_p,
            min_p=self.min_p,
            seed=self.seed,
        )


class StagesRequest(BaseModel):
    """The token, layer and head whose stages are wanted."""

    model_config = ConfigDict(strict=True, extra="ignore")

    position: Number
    layer: Number = 0
    head: Number = 0
    draw: DrawRequest = Field(default_factory=DrawRequest)


class InspectRequest(BaseModel):
    """The body of POST /v1/inspect."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    prompt: Prompt
    scores: bool = True
    top: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] = 5
    thumbnails: Annotated[int, Field(ge=0, le=THUMBNAIL)] = 0
    attention: Annotated[list[Place], BeforeValidator(at_most(MOST_MAPS, "heads"))] = []
    lens: Annotated[list[Number], BeforeValidator(at_most(MOST_LENSES, "positions"))] = []
    stages: StagesRequest | None = None
    distribution: Number | None = None

    def wanted(self) -> Wanted:
        """Return what is asked of the text."""
        point = None
        if (asked := self.stages) is not None:
            draw = asked.draw
            settings = draw.settings()
            point = Point(asked.position, asked.layer, asked.head, settings, draw.written)
        return Wanted(
            self.scores,
            self.top,
            self.thumbnails,
            tuple((layer, head) for layer, head in self.attention),
            tuple(self.lens),
            point,
            self.distribution,
        )


def check_size(body: InspectRequest, tokens: int) -> None:
    """Refuse an answer that would be too large.

    Raises:
        ApiError: It asks for the whole maps of too many heads of so long a text.
    """
    size = len(body.attention) * tokens * (tokens + 1)  # two bytes for each pair of tokens
    if size > MOST_MAP_BYTES:
        most = MOST_MAP_BYTES // (tokens * (tokens + 1))
        problem = f"{len(body.attention)} whole maps of {tokens:,} tokens are too much"
        raise ApiError(400, f"{problem}: ask for at most {most} at once", "attention")


class InspectedToken(BaseModel):
    """A token, and its log-probability where there is one."""

    id: int
    text: str
    bytes: list[int]
    logprob: float | None
    special: bool


class ReadToken(InspectedToken):
    """A token of the text, with the most probable tokens at its place."""

    top: list[InspectedToken] | None = None


class Shape(BaseModel):
    """The shape of a model. A bigram has no layers."""

    architecture: str
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    head_dim: int
    block_size: int
    vocab_size: int
    parameters: int


class NextToken(BaseModel):
    """What follows the last token of the text."""

    top: list[InspectedToken]
    entropy: float


class ResidualStream(BaseModel):
    """Lengths of what is added to the residual stream, of each token, and of the stream."""

    embedding: list[float]
    attention: list[list[float]]
    mlp: list[list[float]]
    after: list[list[float]]


class Thumbnails(BaseModel):
    """The small map of each head, size x size bytes in base64, and its habits.

    Each byte is the largest weight in its cell, times 255. Habits are mean weights on the token
    before the one that reads, on itself and on the first token.
    """

    size: int
    maps: list[list[str]]
    habits: list[list[list[float]]]


class HeadMap(BaseModel):
    """How much each token reads from each: the lower triangle in float16 and base64."""

    layer: int
    head: int
    weights: str


class LensPoint(BaseModel):
    """What the residual stream says of the next token at one point."""

    after: str
    layer: int | None = None
    entropy: float
    loss: float | None
    top: list[InspectedToken]


class LensColumn(BaseModel):
    """The logit lens at one position."""

    position: int
    target: int | None
    points: list[LensPoint]


class StageValues(BaseModel):
    """Numbers of a stage."""

    name: str
    shape: list[int]
    data: list[float]
    kind: str
    range: str
    tokens: list[InspectedToken] | None = None


class CodeLines(BaseModel):
    """Lines of groundup's own source."""

    file: str
    first: int
    lines: list[str]


class InspectedStage(BaseModel):
    """A stage of one token's way through the model."""

    name: str
    scope: str
    title: str
    sentence: str
    formula: str
    shape: str
    learned: str
    values: list[StageValues]
    code: list[CodeLines]


class Stages(BaseModel):
    """The stages of one token's way, in one layer and head."""

    position: int
    layer: int
    head: int
    stages: list[InspectedStage]


class Distribution(BaseModel):
    """The log-probabilities of all tokens, the greatest first: float32 in base64."""

    position: int
    logprobs: str
    tokens: list[InspectedToken]


class Inspected(BaseModel):
    """The answer of POST /v1/inspect; what wasn't asked for isn't there."""

    object: str
    model: str
    system_fingerprint: str
    shape: Shape
    tokens: list[ReadToken]
    next: NextToken | None = None
    entropy: list[float | None] | None = None
    stream: ResidualStream | None = None
    thumbnails: Thumbnails | None = None
    attention: list[HeadMap] | None = None
    lens: list[LensColumn] | None = None
    stages: Stages | None = None
    distribution: Distribution | None = None
