"""A text as a model reads it, whole: what the page shows where there is no server."""

import itertools
from collections.abc import Sequence
from typing import Any

from groundup.checkpoints.model_folder import LoadedModel
from groundup.errors import GenerationError
from groundup.generation.engine import Engine
from groundup.generation.stream import encode_prompt
from groundup.generation.writer import Precision
from groundup.inspection.answer import Answer, Point, Wanted, told_token
from groundup.inspection.comparison import compare, token_ends
from groundup.inspection.reading import Inspection
from groundup.page.story import run_story
from groundup.tokenizers.texts import TokenTexts

LENS_TOKENS = 3  # most probable tokens at each point of the lens
CELLS = 32  # of a small map, on a side


class Recorder:
    """Records one text as one model reads it.

    Args:
        loaded: The model.
        text: The text.
        precision: How the model computes.

    Raises:
        GenerationError: The text is empty, or longer than the model's context.
        TokenizerError: The vocabulary lacks a character of the text.
    """

    def __init__(self, loaded: LoadedModel, text: str, precision: Precision) -> None:
        self.loaded, self.tokenizer = loaded, loaded.require_tokenizer()
        if not text:
            raise GenerationError("the text is empty: there is nothing to look at")
        tokens = encode_prompt(text, self.tokenizer, loaded.document_start)[0].tolist()
        engine = Engine(loaded.model, self.tokenizer, slots=1, precision=precision)
        self.inspection = Inspection.by_engine(engine, tokens)
        self.fingerprint = engine.writer.path
        self.answer = Answer(self.inspection, TokenTexts(self.tokenizer))
        self.named = set[int]()  # tokens that stand in the recording by their numbers

    def place_of(self, position: int | None) -> int:
        """Return the index of a token.

        Args:
            position: Its index; negative ones count from the end, and None is the last but one.

        Raises:
            GenerationError: There is no such token.
        """
        count = len(self.inspection.tokens)
        found = max(-2, -count) if position is None else position
        if not -count <= found < count:
            limits = f"from {-count} to {count - 1}"
            raise GenerationError(f"position = {position} must be {limits}: the text's tokens")
        return found % count

    def place_at(self, end: int) -> int:
        """Return the index of the token that has the byte before `end`."""
        ends = token_ends(self.inspection, self.tokenizer)
        return next(at for at, found in enumerate(ends) if found >= end)

    def record(self, position: int, layers: Sequence[int] | None) -> dict[str, Any]:
        """Return all that the page shows of the text.

        Args:
            position: The token whose way is shown step by step.
            layers: The layers whose attention and steps are recorded, of those that there are;
                None for all.
        """
        inspection = self.inspection.read_all()
        n_layer = inspection.n_layer
        asked = range(n_layer) if layers is None else sorted({*layers})
        chosen = [layer for layer in asked if layer < n_layer]
        heads = [(layer, head) for layer in chosen for head in range(inspection.n_head)]
        wanted = Wanted(thumbnails=CELLS, attention=tuple(heads), distribution=position)
        found = self.answer.whole(wanted)
        found |= {"model": self.loaded.title, "system_fingerprint": self.fingerprint}
        return {
            "inspection": found,
            "lens": self._lens() if n_layer else None,
            "stages": self._stages(position, heads),
            "distributions": [found.pop("distribution")],
            "run": run_story(self.loaded),
            "layers": list(chosen),
        }

    def _lens(self) -> dict[str, Any]:
        """Return the lens of all positions, a list of numbers for each point of each.

        The numbers are entropy, loss, and then each token with its log-probability.
        """
        points, columns = list[dict[str, Any]](), list[list[list[Any]]]()
        for position in range(len(self.inspection.tokens)):
            found = self.answer.lens(position, LENS_TOKENS)["points"]
            columns.append([])
            for point in found:
                pairs = [(each["id"], each["logprob"]) for each in point["top"]]
                self.named.update(token for token, _ in pairs)
                numbers = [point["entropy"], point["loss"], *itertools.chain(*pairs)]
                columns[-1].append([_short(number) for number in numbers])
            points = [
                {key: each[key] for key in each.keys() & {"after", "layer"}} for each in found
            ]
        return {"points": points, "columns": columns}

    def _stages(self, position: int, heads: list[tuple[int, int]]) -> dict[str, Any]:
        """Return the stages of all heads, and once what heads or layers have in common."""
        whole: dict[str, Any] = {"position": position, "order": [], "model": [], "layers": {}}
        for layer, head in heads or [(0, 0)]:
            stages = self.answer.stages(Point(position, layer, head))["stages"]
            for values in (values for stage in stages for values in stage["values"]):
                values["data"] = [_short(number) for number in values["data"]]
            whole["order"] = [stage["name"] for stage in stages]
            of = {
                scope: [stage for stage in stages if stage["scope"] == scope]
                for scope in ("model", "block", "head")
            }
            whole["model"] = of["model"]
            whole["told"] = {each["name"]: _without_values(each) for each in of["head"]}
            found = whole["layers"].setdefault(str(layer), {"heads": {}})
            found["block"] = of["block"]
            found["heads"][str(head)] = {each["name"]: each["values"] for each in of["head"]}
        return whole


def _without_values(stage: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of a stage in all heads."""
    return {name: value for name, value in stage.items() if name != "values"}


def _short(number: float | None) -> float | None:
    """Round to five digits, more than the page shows."""
    if number is None or number == int(number):
        return number if number is None else int(number)
    return float(f"{number:.5g}")


def recording(
    recorders: Sequence[Recorder], position: int | None, layers: Sequence[int] | None
) -> Any:
    """Return what a page shows of one text as one or two models read it.

    Args:
        recorders: One for each model.
        position: The token of the first model whose way is shown step by step, as
            `Recorder.place_of` takes it; of the second it is the token at the same place.
        layers: The layers whose attention and steps are recorded; None for all.

    Raises:
        GenerationError: There is no such token or layer, or the two can't be compared.
    """
    most = max(recorder.inspection.n_layer for recorder in recorders)
    if wrong := [layer for layer in layers or () if layer >= most]:
        last = f"the last is {most - 1}" if most else "there are none"
        raise GenerationError(f"layer {wrong[0]} is not there: {last}")
    first = recorders[0]
    places = [first.place_of(position)]
    comparison = None
    if len(recorders) == 2:  # the same place of the text, whatever the tokens
        ends = token_ends(first.inspection, first.tokenizer)
        places.append(recorders[1].place_at(ends[places[0]]))
    models = [each.record(place, layers) for each, place in zip(recorders, places, strict=True)]
    if len(recorders) == 2:
        comparison = compare(*((each.inspection, each.tokenizer) for each in recorders))
    for recorder, model in zip(recorders, models, strict=True):
        known = {
            str(token): told_token(recorder.answer.texts, token) for token in sorted(recorder.named)
        }
        _shorten(model, known)
        model["vocabulary"] = known
    return {"kind": "recording", "models": models, "comparison": comparison}


def _shorten(value: Any, vocabulary: dict[str, Any]) -> None:
    """Replace what is known of each token by its number, and list that once."""
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict) and "bytes" in each and "id" in each:
            token = each.pop("id")
            kept = {name: each.pop(name) for name in ("text", "bytes", "special")}
            vocabulary[str(token)] = {"id": token, **kept}
            each["token"] = token
        if isinstance(each, dict | list):
            _shorten(each, vocabulary)
