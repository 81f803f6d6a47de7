"""What is said of an inspected text, in a form that JSON can write.

It is the answer of the server's `/v1/inspect`, and what `groundup look` puts into its page.
"""

import base64
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from groundup.errors import GenerationError
from groundup.generation.settings import SamplingSettings
from groundup.inspection.learned import in_words, learned_numbers
from groundup.inspection.maps import small_map, triangle
from groundup.inspection.reading import MOST_ALTERNATIVES, Inspection, Prediction
from groundup.inspection.stages import Place, Stage
from groundup.inspection.way import stages_of
from groundup.models.config import parameter_count
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.registry import Model, architecture_of
from groundup.tokenizers.texts import TokenTexts

LOWEST = -9999.0  # JSON has no infinity
THUMBNAIL = 64  # cells on a side, at most
NAMED = 64  # tokens of a distribution
TOLD_AT_ONCE = 256  # tokens, between two yields

# what a vector of a stage is as long as; the others are as wide as the residual stream
HEADS = "query", "key", "value", "query_norm", "key_norm", "rotary", "weighted_sum"
DIMENSIONS = dict.fromkeys(HEADS, "head_dim") | {
    "scores": "position + 1",
    "mask": "time",
    "softmax": "position + 1",
    "concatenate": "n_head · head_dim",
    **dict.fromkeys(("expand", "gelu"), "4 · n_embd"),
    **dict.fromkeys(("gate", "up", "swiglu"), "n_inner"),
}

Json = dict[str, Any]


class MissingError(GenerationError):
    """Something that is asked of a text isn't there.

    Args:
        field: What was asked for: attention, lens, stages or distribution.
        message: What is missing.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Point:
    """One token in one layer and head, and how the next token is drawn.

    Args:
        position: The index of the token.
        layer: The index of the layer.
        head: The index of the head of queries.
        settings: How the token after it is drawn.
        written: The number of tokens that were written before, which decides the random number.
    """

    position: int
    layer: int = 0
    head: int = 0
    settings: SamplingSettings = field(default_factory=lambda: SamplingSettings(temperature=1.0))
    written: int = 0


@dataclass(frozen=True)
class Wanted:
    """What is asked of a text, beside its tokens and their log-probabilities.

    Args:
        scores: Whether tokens get log-probabilities and alternatives.
        top: The number of alternatives of each token, at most 20.
        thumbnails: The number of cells on a side of each head's small map, at most 64; 0 for none.
        attention: Layers and heads whose whole maps are wanted.
        lens: Positions at which the logit lens is wanted.
        stages: The token, layer and head whose stages are wanted.
        distribution: The position whose whole distribution is wanted.
    """

    scores: bool = True
    top: int = 5
    thumbnails: int = 0
    attention: tuple[tuple[int, int], ...] = ()
    lens: tuple[int, ...] = ()
    stages: Point | None = None
    distribution: int | None = None

    @property
    def is_tokens_alone(self) -> bool:
        """Whether the text needs not be read for it."""
        return self == Wanted(scores=False, top=self.top)

    def check(self, inspection: Inspection) -> None:
        """Refuse what the text or the model doesn't have.

        Raises:
            MissingError: A position, a layer or a head isn't there.
        """
        point, counts = self.stages, {"position": len(inspection.tokens)}
        counts |= {"layer": inspection.n_layer, "head": inspection.n_head}
        asked = [("lens", "position", number) for number in self.lens]
        if self.distribution is not None:
            asked.append(("distribution", "position", self.distribution))
        for layer, head in self.attention:
            asked += [("attention", "layer", layer), ("attention", "head", head)]
        if point is not None:
            asked.append(("stages", "position", point.position))
            if inspection.n_layer:
                asked += [("stages", "layer", point.layer), ("stages", "head", point.head)]
        for field_name, what, number in asked:
            if not 0 <= number < (count := counts[what]):
                last = f"the last is {count - 1}" if count else "this model has none"
                raise MissingError(field_name, f"{what} {number} is not there: {last}")


def told_token(texts: TokenTexts, token: int, logprob: float | None = None) -> Json:
    """Return a token with its text, its bytes and its log-probability."""
    own = texts.bytes(token)
    return {
        "id": token,
        "text": own.decode("utf-8", "replace"),
        "bytes": list(own),
        "logprob": None if logprob is None else _finite(logprob),
        "special": token in texts.special,
    }


def tokens_alone(model: Model, texts: TokenTexts, tokens: Sequence[int]) -> Json:
    """Return the tokens of a text that nobody has read, and the shape of the model.

    Args:
        model: The model.
        texts: What its tokens look like.
        tokens: The tokens, however many.
    """
    return about(model) | {"tokens": [told_token(texts, token) for token in tokens]}


def about(model: Model) -> Json:
    """Return what every answer says of the model."""
    return {"object": "inspection", "shape": shape_of(model)}


def shape_of(model: Model) -> Json:
    """Return the shape of a model. A bigram has no layers."""
    config, has_layers = model.config, isinstance(model, GPT2 | Modern)
    heads, size = config.n_head, config.n_embd // config.n_head
    if isinstance(model, Modern):
        heads, size = model.config.n_kv_head, model.config.head_dim
    numbers = {
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_kv_head": heads,
        "n_embd": config.n_embd,
        "head_dim": size,
    }
    architecture = architecture_of(model)
    return {
        "architecture": architecture,
        **(numbers if has_layers else dict.fromkeys(numbers, 0)),
        "block_size": config.block_size,
        "vocab_size": config.vocab_size,
        "parameters": parameter_count(architecture, config),
    }


class Answer:
    """Says what is wanted of a text.

    Args:
        inspection: The text, read or not.
        texts: What the model's tokens look like.
    """

    def __init__(self, inspection: Inspection, texts: TokenTexts) -> None:
        self.inspection, self.texts = inspection, texts
        model = inspection.model
        self.learned = learned_numbers(architecture_of(model), model.config)

    def parts(self, wanted: Wanted) -> Generator[None, None, Json]:
        """Return all that is wanted, and yield wherever others may be served.

        Between two yields there is no more to do than for a piece of a prompt.

        Raises:
            MissingError: A position, a layer or a head isn't there.
        """
        inspection = self.inspection
        wanted.check(inspection)
        while not inspection.is_done:
            inspection.read_piece()
            yield
        if wanted.scores:
            found = about(inspection.model) | (yield from self.scores(wanted.top))
        else:
            found = tokens_alone(inspection.model, self.texts, inspection.tokens)
        if wanted.thumbnails and inspection.n_layer:
            size = min(wanted.thumbnails, THUMBNAIL, len(inspection.tokens))
            maps, habits = list[list[str]](), list[list[list[float]]]()
            for layer in range(inspection.n_layer):
                of_heads = []
                for head in range(inspection.n_head):
                    of_heads.append((yield from small_map(inspection, layer, head, size)))
                maps.append([base64_of(small) for small, _ in of_heads])
                habits.append([_numbers(shares) for _, shares in of_heads])
            found["thumbnails"] = {"size": size, "maps": maps, "habits": habits}
        if wanted.attention:
            found["attention"] = []
            for layer, head in wanted.attention:
                weights = base64_of((yield from triangle(inspection, layer, head)))
                whole = {"layer": layer, "head": head, "weights": weights}
                found["attention"].append(whole)
        if wanted.lens and inspection.n_layer:
            found["lens"] = []
            for position in wanted.lens:
                found["lens"].append(self.lens(position, wanted.top))
                yield
        if wanted.stages:
            found["stages"] = self.stages(wanted.stages)
            yield
        if wanted.distribution is not None:
            found["distribution"] = self.distribution(wanted.distribution)
        return found

    def whole(self, wanted: Wanted) -> Json:
        """Return all that is wanted, without a break."""
        parts = self.parts(wanted)
        while True:
            try:
                next(parts)
            except StopIteration as end:
                return end.value

    def scores(self, top: int) -> Generator[None, None, Json]:
        """Return the tokens with their log-probabilities, and what the residual stream holds."""
        inspection = self.inspection
        predictions = inspection.predictions
        before, tokens = [None, *predictions[:-1]], list[Json]()
        for number, (token, prediction) in enumerate(zip(inspection.tokens, before, strict=True)):
            alternatives = None if prediction is None else self._top(prediction, top)
            logprob = None if prediction is None else prediction.logprob
            tokens.append(told_token(self.texts, token, logprob) | {"top": alternatives})
            if number % TOLD_AT_ONCE == TOLD_AT_ONCE - 1:
                yield
        last = predictions[-1]
        found = {
            "tokens": tokens,
            "next": {"top": self._top(last, top), "entropy": _rounded(last.entropy)},
            "entropy": [None if each is None else _rounded(each.entropy) for each in before],
        }
        yield
        return found | {"stream": self.stream() if inspection.n_layer else None}

    def stream(self) -> Json:
        """Return the lengths of what is added to the residual stream, and of the stream."""
        first, *rest = [_numbers(row) for row in self.inspection.norms()]
        return {
            "embedding": first,
            "attention": rest[0::3],
            "mlp": rest[1::3],
            "after": rest[2::3],
        }

    def lens(self, position: int, top: int) -> Json:
        """Return what each point of the residual stream says of the token after a position."""
        tokens, points = self.inspection.tokens, []
        for number, prediction in enumerate(self.inspection.lens(position, top)):
            after = ("mlp", "attention")[number % 2] if number else "embedding"
            where = {"after": after} | ({"layer": (number - 1) // 2} if number else {})
            loss = None if prediction.logprob is None else -_finite(prediction.logprob)
            told = {"entropy": _rounded(prediction.entropy), "loss": loss}
            points.append(where | told | {"top": self._top(prediction, top)})
        following = tokens[position + 1] if position + 1 < len(tokens) else None
        return {"position": position, "target": following, "points": points}

    def stages(self, point: Point) -> Json:
        """Return every stage of one token's way, in one layer and head."""
        place = Place(self.inspection, point.position, point.layer, point.head)
        own = self.texts.bytes(self.inspection.tokens[point.position])
        stages = stages_of(place, own, point.settings, point.written)
        where = {"position": point.position, "layer": point.layer, "head": point.head}
        return where | {"stages": [self._stage(stage) for stage in stages]}

    def distribution(self, position: int) -> Json:
        """Return the whole distribution of the token after a position, most probable first.

        It is that of the tokens that can be drawn: outputs that stand for none are left out.
        """
        logprobs = self.inspection.logprobs(position)[: self.inspection.known].log_softmax(dim=-1)
        values, tokens = logprobs.sort(descending=True, stable=True)
        values = values.clamp(min=LOWEST)
        named = zip(tokens[:NAMED].tolist(), values.tolist(), strict=False)
        return {
            "position": position,
            "logprobs": base64_of(values.float()),
            "tokens": [told_token(self.texts, token, logprob) for token, logprob in named],
        }

    def _top(self, prediction: Prediction, top: int) -> list[Json]:
        assert top <= MOST_ALTERNATIVES
        return [told_token(self.texts, token, logprob) for token, logprob in prediction.top[:top]]

    def _stage(self, stage: Stage) -> Json:
        values = []
        for each in stage.values:
            numbers = _numbers(each.numbers)
            told = {"name": each.name, "shape": list(each.numbers.shape), "data": numbers}
            told |= {"kind": each.kind, "range": each.range}
            if each.kind == "vocabulary":
                told["tokens"] = [told_token(self.texts, token) for token in each.tokens]
            values.append(told)
        lines = [
            {"file": each.file, "first": each.first, "lines": list(each.lines)}
            for each in stage.code
        ]
        size = DIMENSIONS.get(stage.name, "n_embd")
        shape = stage.shape or f"[{size}] = [{stage.values[0].numbers.numel():,}]"
        return {
            "name": stage.name,
            "scope": stage.scope,
            "title": stage.title,
            "sentence": stage.sentence,
            "formula": stage.formula,
            "shape": shape,
            "learned": in_words(self.learned.get(stage.name, [])),
            "values": values,
            "code": lines,
        }


def base64_of(numbers: Tensor) -> str:
    """Write numbers in little endian, one after the other."""
    array = numbers.cpu().contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def _finite(logprob: float) -> float:
    return _rounded(max(logprob, LOWEST))


def _rounded(number: float) -> float:
    """Round to seven digits, which is what float32 holds."""
    return float(f"{number:.7g}")


def _numbers(values: Tensor | Iterable[float]) -> list[float]:
    listed = values.double().flatten().tolist() if isinstance(values, Tensor) else values
    return [_rounded(value) for value in listed]
