"""What is said of an inspected text, in a form that JSON can write.

It is the answer of the server's `/v1/inspect`, and what `groundup look` puts into its page.
"""

import base64
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import GenerationError
from groundup.generation.settings import SamplingSettings
from groundup.inspection.reading import MOST_ALTERNATIVES, Inspection, Prediction
from groundup.inspection.stages import Place, Stage
from groundup.inspection.way import stages_of
from groundup.models.config import parameter_count
from groundup.models.modern import Modern
from groundup.models.registry import architecture_of
from groundup.tokenizers.texts import TokenTexts

LOWEST = -9999.0  # JSON has no infinity
THUMBNAIL = 64  # cells on a side, at most
NAMED = 64  # tokens of a distribution

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
        scores: Whether tokens get log-probabilities and alternatives; if not, and nothing else is
            wanted, the text isn't read at all.
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

    def check(self, inspection: Inspection) -> None:
        """Refuse what the text or the model doesn't have.

        Raises:
            GenerationError: A position, a layer or a head isn't there.
        """
        point = self.stages
        positions = [*self.lens, *([] if self.distribution is None else [self.distribution])]
        positions += [point.position] if point else []
        places = [*self.attention]
        if point and inspection.n_layer:
            places.append((point.layer, point.head))
        for name, numbers, count in (
            ("position", positions, len(inspection.tokens)),
            ("layer", [layer for layer, _ in places], inspection.n_layer),
            ("head", [head for _, head in places], inspection.n_head),
        ):
            for number in numbers:
                if not 0 <= number < count:
                    last = f"the last is {count - 1}" if count else "this model has none"
                    raise GenerationError(f"{name} {number} is not there: {last}")


class Answer:
    """Says what is wanted of a text.

    Args:
        inspection: The text, read or not.
        texts: What the model's tokens look like.
    """

    def __init__(self, inspection: Inspection, texts: TokenTexts) -> None:
        self.inspection, self.texts = inspection, texts
        self.special = frozenset(texts.tokenizer.special_tokens.values())

    def parts(self, wanted: Wanted) -> Generator[None, None, Json]:
        """Return all that is wanted, and yield wherever others may be served.

        Between two yields there is no more to do than for a piece of a prompt.

        Raises:
            GenerationError: A position, a layer or a head isn't there.
        """
        inspection = self.inspection
        wanted.check(inspection)
        found = self.tokens()
        if wanted == Wanted(scores=False, top=wanted.top):
            return found
        while not inspection.is_done:
            inspection.read_piece()
            yield
        if wanted.scores:
            found |= self.scores(wanted.top)
            yield
        if wanted.thumbnails and inspection.n_layer:
            size = min(wanted.thumbnails, THUMBNAIL, len(inspection.tokens))
            layers = []
            for layer in range(inspection.n_layer):
                layers.append(self.thumbnails(layer, size))
                yield
            maps, habits = zip(*layers, strict=True)
            found["thumbnails"] = {"size": size, "maps": [*maps], "habits": [*habits]}
        if wanted.attention:
            found["attention"] = []
            for layer, head in wanted.attention:
                found["attention"].append(self.attention(layer, head))
                yield
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

    def shape(self) -> Json:
        """Return the shape of the model."""
        model, config = self.inspection.model, self.inspection.model.config
        heads = self.inspection.n_head
        size = config.n_embd // config.n_head
        if isinstance(model, Modern):
            heads, size = model.config.n_kv_head, model.config.head_dim
        if not self.inspection.n_layer:
            heads = size = 0
        return {
            "architecture": architecture_of(model),
            "n_layer": self.inspection.n_layer,
            "n_head": self.inspection.n_head,
            "n_kv_head": heads,
            "n_embd": config.n_embd if self.inspection.n_layer else 0,
            "head_dim": size,
            "block_size": config.block_size,
            "vocab_size": config.vocab_size,
            "parameters": parameter_count(architecture_of(model), config),
        }

    def token(self, token: int, logprob: float | None = None) -> Json:
        """Return a token with its text, its bytes and its log-probability."""
        own = self.texts.bytes(token)
        return {
            "id": token,
            "text": own.decode("utf-8", "replace"),
            "bytes": list(own),
            "logprob": None if logprob is None else _finite(logprob),
            "special": token in self.special,
        }

    def tokens(self) -> Json:
        """Return the tokens alone."""
        tokens = [self.token(token) for token in self.inspection.tokens]
        return {"object": "inspection", "shape": self.shape(), "tokens": tokens}

    def scores(self, top: int) -> Json:
        """Return the tokens with their log-probabilities, and what the residual stream holds."""
        inspection = self.inspection
        predictions = inspection.predictions
        before = [None, *predictions[:-1]]
        tokens = []
        for token, prediction in zip(inspection.tokens, before, strict=True):
            alternatives = None if prediction is None else self._top(prediction, top)
            logprob = None if prediction is None else prediction.logprob
            tokens.append(self.token(token, logprob) | {"top": alternatives})
        last = predictions[-1]
        return {
            "tokens": tokens,
            "next": {"top": self._top(last, top), "entropy": _rounded(last.entropy)},
            "entropy": [None if each is None else _rounded(each.entropy) for each in before],
            "stream": self.stream() if inspection.n_layer else None,
        }

    def stream(self) -> Json:
        """Return the lengths of what is added to the residual stream, and of the stream."""
        first, *rest = [_numbers(row) for row in self.inspection.norms()]
        return {
            "embedding": first,
            "attention": rest[0::3],
            "mlp": rest[1::3],
            "after": rest[2::3],
        }

    def thumbnails(self, layer: int, size: int) -> tuple[list[str], list[list[float]]]:
        """Return the small map of each head of a layer, and the head's habits.

        A map is bytes in base64, row after row. Habits are three mean weights: on the token before
        the one that reads, on itself and on the first token.
        """
        maps, habits = list[str](), list[list[float]]()
        with torch.inference_mode():
            for head in range(self.inspection.n_head):
                weights = self.inspection.attention(layer, head)
                small = F.adaptive_max_pool2d(weights[None].float(), size)[0]
                maps.append(_base64((small * 255).round().to(torch.uint8)))
                others = max(len(weights) - 1, 1)  # the first token has none before it
                sums = weights.diagonal(-1).sum() / others, weights.diagonal().mean()
                habits.append(_numbers(torch.stack([*sums, weights[1:, 0].sum() / others])))
        return maps, habits

    def attention(self, layer: int, head: int) -> Json:
        """Return a head's map: the lower triangle, row after row, in float16 and base64."""
        weights = self.inspection.attention(layer, head)
        rows, columns = torch.tril_indices(*weights.shape)
        triangle = weights[rows, columns].to(torch.float16)
        return {"layer": layer, "head": head, "weights": _base64(triangle)}

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
        """Return the whole distribution of the token after a position, most probable first."""
        logprobs = self.inspection.logprobs(position)
        values, tokens = logprobs[: self.inspection.known].sort(descending=True, stable=True)
        values = values.clamp(min=LOWEST)
        named = zip(tokens[:NAMED].tolist(), values.tolist(), strict=False)
        return {
            "position": position,
            "logprobs": _base64(values.float()),
            "tokens": [self.token(token, logprob) for token, logprob in named],
        }

    def _top(self, prediction: Prediction, top: int) -> list[Json]:
        assert top <= MOST_ALTERNATIVES
        return [self.token(token, logprob) for token, logprob in prediction.top[:top]]

    def _stage(self, stage: Stage) -> Json:
        values = []
        for each in stage.values:
            numbers = _numbers(each.numbers)
            told = {"name": each.name, "shape": list(each.numbers.shape), "data": numbers}
            told |= {"kind": each.kind, "range": each.range}
            if each.kind == "vocabulary":
                told["tokens"] = [self.token(token) for token in each.tokens]
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
            "values": values,
            "code": lines,
        }


def _base64(numbers: Tensor) -> str:
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
