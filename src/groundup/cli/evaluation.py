"""`groundup evaluate`: load a model, put it to a task, print what came out."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from groundup.checkpoints.model_folder import described, load_to_work
from groundup.cli.evaluation_report import hellaswag_json, print_hellaswag, print_loss
from groundup.console import print_json, report
from groundup.data.corpora import Corpus, open_corpora
from groundup.data.dataset import check_tokenizer
from groundup.data.hellaswag_items import Item, open_items, spread
from groundup.data.tokens import Tokens, check_range
from groundup.errors import EvaluationError
from groundup.evaluation.conventions import ways_of
from groundup.evaluation.hellaswag import Sitting, ask
from groundup.evaluation.results import keep
from groundup.evaluation.text_loss import text_loss
from groundup.files import write_whole
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer


def evaluate_hellaswag(
    name: str,
    *,
    file: Path | None,
    limit: int | None,
    convention: str,
    per_item: Path | None,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Ask a model HellaSwag's items and print its accuracies. Raises GroundupError."""
    source = open_items(file, "--file")
    folder, model, tokenizer = load_to_work(name, report, device)
    report(described(model, folder))
    if per_item is not None:
        _check_writable(per_item)
    sittings = sit(model, tokenizer, spread(source.items, limit), convention, batch_size=batch_size)
    if per_item is not None:
        _write(per_item, _lines(sittings))
    result = hellaswag_json(name, source, sittings)
    if as_json:
        print_json(result)
    else:
        print_hellaswag(result)
    _keep(result, folder)


def evaluate_loss(
    name: str,
    *,
    corpus: str,
    limit: int | None,
    stride: int | None,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure a model's loss on a text, or on the validation split of shards, and print it. Raises
    GroundupError.
    """
    folder, model, tokenizer = load_to_work(name, report, device)
    report(described(model, folder))
    stride = stride_of(model, stride)
    part, tokens = _read(corpus, tokenizer, model.config.vocab_size, name)
    if limit is not None and limit < len(tokens):
        part, tokens = f"the first {limit:,} tokens of {part}", first_tokens(tokens, limit)
    if not any(len(stream) > 1 for stream in tokens.streams):
        raise EvaluationError(
            f"corpus {corpus} has {len(tokens)} tokens: a loss needs 2. Give more text"
        )
    count = sum(max(0, len(stream) - 1) for stream in tokens.streams)
    found = text_loss(
        model,
        tokenizer,
        tokens,
        stride=stride,
        batch_size=batch_size,
        tell=progress("tokens", count),
    )
    result = {"task": "loss", "model": name, "corpus": corpus, "part": part, **found.to_json()}
    if as_json:
        print_json(result)
    else:
        print_loss(result)
    _keep(result, folder)


def _keep(result: dict[str, Any], folder: Path) -> None:
    """Leave the result with the run that the model is of, if it is of one, and say where."""
    if (file := keep(result, folder)) is not None:
        report(f"kept in {file}")


def sit(
    model: Model,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    convention: str,
    *,
    batch_size: int,
    who: str = "",
) -> list[Sitting]:
    """The items asked by one convention, or by `both`, in their order. who: for the progress, where
    there are several.

    Raises EvaluationError.
    """
    return [
        ask(
            model,
            tokenizer,
            items,
            way,
            batch_size=batch_size,
            tell=progress(f"{who}{way}, items", len(items)),
        )
        for way in ways_of(convention)
    ]


def stride_of(model: Model, given: int | None) -> int:
    """The tokens from one window to the next: as given, or half of the context. Raises
    EvaluationError.
    """
    stride = max(1, model.block_size // 2) if given is None else given
    if not 1 <= stride <= model.block_size:
        raise EvaluationError(
            f"--stride {stride} must be from 1 to the model's context, {model.block_size}: "
            "windows further apart would leave tokens out"
        )
    return stride


def only_corpus(name: str) -> Corpus:
    """The corpus to be scored. Raises CorpusError, and EvaluationError for a mixture."""
    corpora = open_corpora(name)
    if len(corpora) != 1:
        raise EvaluationError(
            f"--corpus {name} is a mixture: evaluate its {len(corpora)} corpora one by one"
        )
    return corpora[0]


def shard_tokens(corpus: Corpus, tokenizer: Tokenizer, vocab_size: int, name: str) -> Tokens:
    """The validation split of shards, which must be the model's. Raises CorpusError,
    RecipeError.
    """
    assert corpus.shards is not None
    check_tokenizer([corpus], tokenizer, f"the model {name}")
    tokens = corpus.shards.tokens("validation", vocab_size)
    if tokens.limit is not None:  # of a corpus so large that training looks at what it reads alone
        for stream, shard in zip(tokens.streams, tokens.names, strict=True):
            check_range(stream, shard, tokens.limit)
    return tokens


def _read(corpus: str, tokenizer: Tokenizer, vocab_size: int, name: str) -> tuple[str, Tokens]:
    """Which part of a corpus is scored, in words, and its tokens. Raises CorpusError,
    EvaluationError.
    """
    found = only_corpus(corpus)
    if found.shards is not None:
        return "the validation split", shard_tokens(found, tokenizer, vocab_size, name)
    return "the whole text", Tokens.of(tokenizer.encode(found.text), corpus)


def first_tokens(tokens: Tokens, limit: int | None) -> Tokens:
    """The first `limit` tokens, over the streams in their order."""
    if limit is None:
        return tokens
    streams = []
    for stream in tokens.streams:
        streams.append(stream[:limit])
        limit -= len(streams[-1])
    return Tokens(tuple(streams), tokens.names, tokens.limit)


def _lines(sittings: list[Sitting]) -> str:
    """An item a line, with what each convention made of it."""
    lines = []
    for place, first in enumerate(sittings[0].answers):
        item = first.question.item
        found = {sitting.convention: sitting.answers[place].to_json() for sitting in sittings}
        lines.append(json.dumps({"ind": item.number, "label": item.label} | found) + "\n")
    return "".join(lines)


def _check_writable(path: Path) -> None:
    """Find out before the work, not after it. Raises EvaluationError."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        reason = (
            "it is a folder"
            if path.is_dir()
            else f"{path.parent} is no folder that can be written to"
        )
        raise EvaluationError(f"--per-item {path} can't be written: {reason}")


def _write(path: Path, text: str) -> None:
    """In place of what is there, whole or not at all. Raises EvaluationError."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise EvaluationError(f"--per-item {path} can't be written: {error.strerror}") from error


def progress(what: str, total: int) -> Callable[[int], None]:
    """Shows how far it is on one line of a terminal; nothing anywhere else."""
    if not sys.stderr.isatty():
        return lambda _: None

    def show(done: int) -> None:
        sys.stderr.write(f"\r{what}: {done:,} of {total:,}" + ("\n" if done >= total else ""))
        sys.stderr.flush()

    return show
