"""Two models on one text: where they differ, whatever their tokens."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from groundup.errors import GenerationError
from groundup.inspection.reading import Inspection
from groundup.tokenizers.base import Tokenizer

Read = tuple[Inspection, Tokenizer]


def compare(first: Read, second: Read) -> dict[str, Any]:
    """Return the log-probabilities that two models give to the same pieces of one text.

    The text is cut wherever a token of both models ends, so that each piece is the same bytes for
    both. The first piece is left out of the totals, because nothing predicts a text's first token.

    Args:
        first: The text as one model has read it, with the model's tokenizer.
        second: The same text as the other has.

    Raises:
        GenerationError: The tokens of the two stand for different bytes.
    """
    texts = [tokenizer.decode_bytes(inspection.tokens) for inspection, tokenizer in (first, second)]
    if texts[0] != texts[1]:
        raise GenerationError(
            "the two tokenizers don't keep this text as it is: they can't compare"
        )
    ends = [token_ends(*each) for each in (first, second)]
    spans, before, at = [], 0, [0, 0]
    for end in sorted({*ends[0]} & {*ends[1]}):
        until = [found.index(end) + 1 for found in ends]
        span: dict[str, Any] = {"bytes": [before, end]}
        span["text"] = _shown(texts[0][before:end])
        for name, (inspection, _), start, stop in zip(
            "ab", (first, second), at, until, strict=True
        ):
            span[name] = [start, stop]
            span[f"logprob_{name}"] = _logprob(inspection, start, stop)
        spans.append(span)
        before, at = end, until
    return {"spans": spans, "total": _total(spans)}


def _shown(some: bytes) -> str:
    """Return bytes as a text, or as figures where they are no whole characters."""
    try:
        return some.decode("utf-8")
    except UnicodeDecodeError:
        return f"⟨{some.hex(' ')}⟩"


def token_ends(inspection: Inspection, tokenizer: Tokenizer) -> list[int]:
    """Where each token ends, in bytes of the text."""
    return list(accumulate(len(tokenizer.decode_bytes([token])) for token in inspection.tokens))


def _logprob(inspection: Inspection, start: int, stop: int) -> float | None:
    """The log-probability of the tokens from `start` to `stop`; None with the text's first one."""
    found = [inspection.predictions[at - 1].logprob for at in range(start, stop) if at]
    return None if start == 0 else sum(each for each in found if each is not None)


def _total(spans: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    counted = [span for span in spans if span["logprob_a"] is not None]
    size = sum(span["bytes"][1] - span["bytes"][0] for span in counted)
    total: dict[str, float | None] = {}
    for name in "ab":
        loss = -sum(span[f"logprob_{name}"] for span in counted)
        total[name] = loss
        total[f"bits_per_byte_{name}"] = loss / math.log(2) / size if size else None
    return total
