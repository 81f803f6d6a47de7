"""`groundup compare --task`: two models put to the same task, paired item by item or passage by
passage.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.checkpoints.model_folder import described, load_to_work
from groundup.cli.comparison_report import print_hellaswag, print_loss
from groundup.cli.evaluation import (
    first_tokens,
    only_corpus,
    progress,
    shard_tokens,
    sit,
    stride_of,
)
from groundup.console import print_json, report
from groundup.data.corpora import Corpus
from groundup.data.hellaswag_items import Item, open_items, spread
from groundup.data.tokens import Tokens
from groundup.errors import EvaluationError, TokenizerError
from groundup.evaluation.conventions import ways_of
from groundup.evaluation.hellaswag import Sitting, questions_of
from groundup.evaluation.paired import PairedItems, paired_rate
from groundup.evaluation.passages import SIZE, Passages, Reading, common_passages
from groundup.evaluation.text_loss import bytes_of_tokens, losses_of
from groundup.models.registry import Model
from groundup.runs.compare_runs import recipe_differences
from groundup.tokenizers.base import Tokenizer

Names = tuple[str, str]


@dataclass(frozen=True)
class Loaded:
    """One of the two, under the name that its user gave."""

    name: str
    model: Model
    tokenizer: Tokenizer


def compare_hellaswag(
    names: Names,
    *,
    file: Path | None,
    limit: int | None,
    convention: str,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Ask both models the same items and print how their accuracies differ. Raises
    GroundupError.
    """
    source, differing = open_items(file, "--file"), recipe_differences(names)
    items, both = spread(source.items, limit), load_both(names, device)
    for one in both:
        check_askable(one, items, convention)
    sittings = []
    for one in both:
        with naming(one.name):
            who = f"{one.name}, "
            sittings.append(
                sit(one.model, one.tokenizer, items, convention, batch_size=batch_size, who=who)
            )
    result = {
        "task": "hellaswag",
        "models": list(names),
        "file": str(source.path),
        "official": source.is_official,
        "items": len(items),
        "of": len(source.items),
        "results": paired_results(*sittings),
        "cut": [{sitting.convention: sitting.cut for sitting in some} for some in sittings],
        "seconds": [sum(sitting.seconds for sitting in some) for some in sittings],
        "recipe_differences": differing,
    }
    if as_json:
        print_json(result)
    else:
        print_hellaswag(result)


def check_askable(one: Loaded, items: list[Item], convention: str) -> None:
    """Raises EvaluationError for an item that can't be put to a model: before the other has worked
    for an hour.
    """
    with naming(one.name):
        for way in ways_of(convention):
            questions_of(items, one.tokenizer, way, one.model.block_size)


def paired_results(first: list[Sitting], second: list[Sitting]) -> list[dict[str, Any]]:
    """Of each measure of each convention, the same items side by side."""
    return [
        {
            "convention": a.convention,
            "measure": measure,
            **PairedItems.of(a.right(measure), b.right(measure)).to_json(),
        }
        for a, b in zip(first, second, strict=True)
        for measure in a.measures
    ]


def compare_loss(
    names: Names,
    *,
    corpus: str,
    limit: int | None,
    stride: int | None,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure both models on the same text and print how their bits a byte differ. Raises
    GroundupError.
    """
    differing, both = recipe_differences(names), load_both(names, device)
    strides = []
    for one in both:
        with naming(one.name):
            strides.append(stride_of(one.model, stride))
    source = only_corpus(corpus)
    part, tokens = read_for_both(source, both, limit)
    readings, seconds = [], []
    for one, its_tokens, its_stride in zip(both, tokens, strides, strict=True):
        started = time.perf_counter()
        with naming(one.name):
            readings.append(read(one, its_tokens, its_stride, batch_size))
        seconds.append(time.perf_counter() - started)
    found = [common_passages(pair) for pair in zip(*readings, strict=True)]
    passages = (
        Passages.joined([some for some in found if len(some)]) if any(map(len, found)) else None
    )
    if passages is None or len(passages) < 2:
        raise EvaluationError(
            f"corpus {corpus} is too short: a comparison needs 2 passages of {SIZE:,} bytes at "
            "least. Give more text"
        )
    result = {
        "task": "loss",
        "models": list(names),
        "corpus": corpus,
        "part": part,
        **passages_json(passages),
        "block_size": [one.model.block_size for one in both],
        "stride": strides,
        "seconds": seconds,
        "recipe_differences": differing,
    }
    if as_json:
        print_json(result)
    else:
        print_loss(result)


def passages_json(passages: Passages) -> dict[str, Any]:
    """Both losses, over all passages, and their difference in bits a byte."""
    bits = passages.nats / math.log(2)
    found = paired_rate(bits[1] - bits[0], passages.sizes)
    return {
        "bytes": int(passages.sizes.sum()),
        "passages": len(passages),
        "tokens": passages.tokens.tolist(),
        "loss": (passages.nats.sum(axis=1) / passages.tokens).tolist(),
        "bits_per_byte": (bits.sum(axis=1) / passages.sizes.sum()).tolist(),
        **found.to_json(),
        "lower_in": [int((bits[0] < bits[1]).sum()), int((bits[1] < bits[0]).sum())],
    }


def read_for_both(
    source: Corpus, both: tuple[Loaded, Loaded], limit: int | None
) -> tuple[str, list[Tokens]]:
    """What is scored, in words, and its tokens by each tokenizer. Raises CorpusError, RecipeError,
    EvaluationError.

    limit: only the first characters of a text, or the first tokens of shards.
    """
    if source.shards is not None:
        if both[0].tokenizer.identity != both[1].tokenizer.identity:
            raise EvaluationError(
                f"{both[0].name} and {both[1].name} have different tokenizers, and the shards in "
                f"{source.name} were made by one at most. Compare them on a text"
            )
        tokens = [
            shard_tokens(source, one.tokenizer, one.model.config.vocab_size, one.name)
            for one in both
        ]
        if limit is not None and limit < len(tokens[0]):
            return f"the first {limit:,} tokens of the validation split", [
                first_tokens(some, limit) for some in tokens
            ]
        return "the validation split", tokens
    text, encoded = source.text[:limit], []
    for one in both:
        with naming(one.name):
            stream = one.tokenizer.encode(text)
            if one.tokenizer.decode_bytes(stream) != text.encode("utf-8"):
                raise EvaluationError(
                    "its tokenizer changes the text before it reads it, so the bytes of the two "
                    "can't be paired. Compare on a text in Unicode's form NFC"
                )
        encoded.append(Tokens.of(stream, source.name))
    whole = len(text) == len(source.text)
    return "the whole text" if whole else f"the first {len(text):,} characters", encoded


def read(one: Loaded, tokens: Tokens, stride: int, batch_size: int) -> list[Reading]:
    """A reading of each stream that has a token."""
    counts, done, readings = bytes_of_tokens(one.tokenizer, one.model.config.vocab_size), 0, []
    tell = progress(
        f"{one.name}, tokens", sum(max(0, len(stream) - 1) for stream in tokens.streams)
    )
    for stream in tokens.streams:
        if len(stream):
            losses = losses_of(
                one.model, stream, stride, batch_size, lambda some, before=done: tell(before + some)
            )
            readings.append(Reading(counts[stream], losses))
            done += len(losses)
    return readings


def load_both(names: Names, device: str) -> tuple[Loaded, Loaded]:
    """Both models, on one device. Raises GroundupError."""
    loaded = []
    for name in names:
        folder, model, tokenizer = load_to_work(name, report, device)
        report(described(model, folder))
        loaded.append(Loaded(name, model, tokenizer))
    return loaded[0], loaded[1]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Around what one of the two models can't do: its name goes before the complaint."""
    try:
        yield
    except (EvaluationError, TokenizerError) as error:
        raise EvaluationError(f"{name}: {error}") from error
