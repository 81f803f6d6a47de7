"""`groundup evaluate`: load a model, put it to a task, print what came out."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.data.hellaswag import OFFICIAL, read_items
from groundup.data.shard_folder import ShardFolder
from groundup.data.sources import Sources, check_maker, open_sources
from groundup.data.tokens import Tokens
from groundup.download import fetch
from groundup.errors import EvaluationError
from groundup.evaluation.conventions import CONVENTIONS
from groundup.evaluation.hellaswag import Sitting, ask
from groundup.evaluation.kept import keep
from groundup.evaluation.report import hellaswag_json, print_hellaswag, print_loss
from groundup.evaluation.sliding import text_loss
from groundup.model_folder import described, load_to_work
from groundup.notices import report
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
    path = fetch(OFFICIAL) if file is None else file
    items = read_items(path)
    official = hashlib.sha256(path.read_bytes()).hexdigest() == OFFICIAL.sha256
    chosen = items[:limit]
    folder, model, tokenizer = load_to_work(name, report, device)
    report(described(model, folder))
    if per_item is not None:  # a folder that doesn't exist is found out before the work, not after it
        _write(per_item, "")
    ways = list(CONVENTIONS) if convention == "both" else [convention]
    sittings = [
        ask(model, tokenizer, chosen, way, batch_size=batch_size, tell=_progress(f"{way}, items", len(chosen)))
        for way in ways
    ]
    if per_item is not None:
        _write(per_item, _lines(sittings))
    result = hellaswag_json(name, path, official, len(items), sittings)
    if as_json:
        _print_json(result)
    else:
        print_hellaswag(result)
    _keep(result, folder)


def evaluate_loss(
    name: str, *, corpus: str, limit: int | None, stride: int | None, batch_size: int, device: str, as_json: bool
) -> None:
    """Measure a model's loss on a text, or on the validation split of shards, and print it. Raises GroundupError."""
    folder, model, tokenizer = load_to_work(name, report, device)
    report(described(model, folder))
    stride = max(1, model.block_size // 2) if stride is None else stride
    if not 1 <= stride <= model.block_size:
        raise EvaluationError(
            f"--stride {stride} must be from 1 to the model's context, {model.block_size}: windows further apart would "
            "leave tokens out"
        )
    part, tokens = _read(corpus, tokenizer, model.config.vocab_size, name)
    tokens = _first(tokens, limit)
    if not any(len(stream) > 1 for stream in tokens.streams):
        raise EvaluationError(f"corpus {corpus} has {len(tokens)} tokens: a loss needs 2. Give more text")
    count = sum(max(0, len(stream) - 1) for stream in tokens.streams)
    found = text_loss(model, tokenizer, tokens, stride=stride, batch_size=batch_size, tell=_progress("tokens", count))
    result = {"task": "loss", "model": name, "corpus": corpus, "part": part, **found.to_json()}
    if as_json:
        _print_json(result)
    else:
        print_loss(result)
    _keep(result, folder)


def _keep(result: dict[str, Any], folder: Path) -> None:
    """Leave the result with the run that the model is of, if it is of one, and say where."""
    if (file := keep(result, folder)) is not None:
        report(f"kept in {file}")


def _read(corpus: str, tokenizer: Tokenizer, vocab_size: int, name: str) -> tuple[str, Tokens]:
    """Which part of a corpus is scored, in words, and its tokens. Raises CorpusError, EvaluationError."""
    sources = open_sources(corpus, Path())
    if len(sources.parts) != 1:
        raise EvaluationError(f"--corpus {corpus} is a mixture: evaluate its {len(sources.parts)} corpora one by one")
    content = sources.parts[0].content
    if isinstance(content, ShardFolder):
        check_maker(Sources(corpus, sources.parts), tokenizer, f"the model {name}")
        return "the validation split", content.tokens("validation", vocab_size)
    return "the whole text", Tokens.of(tokenizer.encode(content.text), corpus)


def _first(tokens: Tokens, limit: int | None) -> Tokens:
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


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise EvaluationError(f"--per-item {path} can't be written: {error.strerror}") from error


def _print_json(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=2) + "\n")


def _progress(what: str, total: int) -> Callable[[int], None]:
    """Shows how far it is on one line of a terminal; nothing anywhere else."""
    if not sys.stderr.isatty():
        return lambda _: None

    def show(done: int) -> None:
        sys.stderr.write(f"\r{what}: {done:,} of {total:,}" + ("\n" if done >= total else ""))
        sys.stderr.flush()

    return show
