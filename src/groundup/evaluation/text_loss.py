"""The task `loss`: how well a model predicts a text, and which of two predicts it better."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from groundup.data.corpora import WHOLE, Corpus, open_corpora
from groundup.data.dataset import check_tokenizer
from groundup.data.splits import Tokens, check_range
from groundup.errors import EvaluationError
from groundup.evaluation.passages import SIZE, Passages, Reading, common_passages
from groundup.evaluation.sliding_window import (
    SHOWN,
    Passage,
    bytes_of_tokens,
    losses_of,
    passages_of,
)
from groundup.evaluation.statistics import p_text, paired_rate
from groundup.evaluation.task import (
    Finding,
    NamedModel,
    Progress,
    Result,
    Settings,
    Table,
    Task,
    naming,
)
from groundup.evaluation.units import bits_per_byte, loss_in_units, perplexity
from groundup.models.registry import Model
from groundup.tokenizers.agreement import disagreement
from groundup.tokenizers.base import Tokenizer

# tokens at most, unless --window says more: a context of 40,960 needs 20 times as much
WINDOW = 2048


@dataclass(frozen=True)
class TextLoss(Result):
    """The mean loss of a model over the tokens of a text.

    A text is one stream of tokens, or one for each of its shards. The first token of a stream isn't
    predicted.

    Args:
        model: The model's name.
        corpus: The text's name.
        part: Which part of the text was read, in words.
        tokens: How many tokens were predicted.
        size: The number of bytes of these tokens as text.
        loss: The mean loss, in nats a token.
        stride: The number of tokens from one window to the next. Each token was predicted from at
            least block_size - stride + 1 tokens before it, where there are as many.
        block_size: The number of tokens of a window.
        seconds: How many seconds the measurement took.
        worst: The passages with the highest loss, the highest first.
        best: The passages with the lowest loss, the lowest first.
    """

    identity: ClassVar = ("task", "corpus", "part", "tokens", "size", "stride", "block_size")
    model: str
    corpus: str
    part: str
    tokens: int
    size: int
    loss: float
    stride: int
    block_size: int
    seconds: float
    worst: list[Passage]
    best: list[Passage]

    @property
    def bits_per_byte(self) -> float:
        """The loss in bits a byte, comparable over tokenizers; NaN if the tokens have no text."""
        return bits_per_byte(self.loss, self.size / self.tokens) if self.size else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return all fields, the loss in other units, and the speed.

        A unit in which the loss is no finite number is None.
        """
        derived = {"bits_per_byte": self.bits_per_byte, "perplexity": perplexity(self.loss)}
        stated = {unit: value if math.isfinite(value) else None for unit, value in derived.items()}
        speed = {"tokens_per_second": self.tokens / self.seconds}
        return {"task": "loss"} | asdict(self) | stated | speed

    def report(self) -> Iterator[str | Table]:
        """Yield lines: the loss in its units, how it was measured, the worst and best passages."""
        yield ", ".join(loss_in_units(self.to_json()))
        yield (
            f"{self.tokens:,} tokens, {self.size:,} bytes: {self.part} of {self.corpus}. What the "
            "model was trained on says nothing about new text"
        )
        yield (
            f"windows of {self.block_size:,} tokens, stride {self.stride:,}: each token but the "
            f"first ones is predicted from at least {self.block_size - self.stride + 1:,} before "
            f"it; {self.tokens / self.seconds:,.0f} tokens/s"
        )
        for name, passages in (("worst", self.worst), ("best", self.best)):
            yield f"{name} passages:"
            for passage in passages:
                text = " ".join(passage.text.split())[:200]
                where = f"{passage.loss:.4f} at token {passage.place:,} of {passage.stream}"
                yield f"  {where}: {text!r}"


class Scope(NamedTuple):
    """What a model reads of a text: which part, in words, its tokens, and stride and window."""

    part: str
    tokens: Tokens
    stride: int
    window: int

    @property
    def targets(self) -> int:
        """The number of tokens that are predicted: all but the first of each stream of tokens."""
        return sum(max(0, len(stream) - 1) for stream in self.tokens.streams)


@dataclass(frozen=True)
class LossComparison(Finding):
    """The losses of two models on the same text, over the same passages."""

    models: tuple[NamedModel, NamedModel]
    corpus: str
    scopes: list[Scope]
    passages: Passages
    seconds: list[float]

    def to_json(self) -> dict[str, Any]:
        """Return both models' losses over all passages, and the difference in bits a byte."""
        passages = self.passages
        bits = passages.nats / math.log(2)
        return {
            "task": "loss",
            "models": [named.name for named in self.models],
            "corpus": self.corpus,
            "part": self.scopes[0].part,
            "bytes": int(passages.sizes.sum()),
            "passages": len(passages),
            "tokens": passages.tokens.tolist(),
            "loss": (passages.nats.sum(axis=1) / passages.tokens).tolist(),
            "bits_per_byte": (bits.sum(axis=1) / passages.sizes.sum()).tolist(),
            **paired_rate(bits[1] - bits[0], passages.sizes).to_json(),
            "lower_in": [int((bits[0] < bits[1]).sum()), int((bits[1] < bits[0]).sum())],
            "block_size": [scope.window for scope in self.scopes],
            "stride": [scope.stride for scope in self.scopes],
            "seconds": self.seconds,
        }

    def report(self) -> Iterator[str | Table]:
        """Yield a table with a row for each model, then the difference and how it was measured."""
        result = self.to_json()
        columns = ("bits a byte", "nats a token", "tokens", "context", "stride", "better in")
        table = Table(("",), columns)
        for place, letter in enumerate("AB"):
            table.rows.append(
                (
                    letter,
                    *(f"{result[unit][place]:.4f}" for unit in ("bits_per_byte", "loss")),
                    *(f"{result[count][place]:,}" for count in ("tokens", "block_size", "stride")),
                    f"{result['lower_in'][place]:,} passages",
                )
            )
        yield table
        low, high = result["interval"]
        yield (
            f"B - A: {result['difference']:+.4f} bits a byte, 95% interval {low:+.4f} to "
            f"{high:+.4f}, p {p_text(result['p_value'], '= ')} (paired t-test over "
            f"{len(self.passages):,} passages)"
        )
        yield (
            f"{result['bytes']:,} bytes: {result['part']} of {self.corpus}, in passages of "
            f"{SIZE:,} bytes or more, cut where a token of both ends. What a model was trained on "
            "says nothing about new text"
        )


@dataclass(frozen=True)
class TextLossTask(Task):
    """The task that measures the loss on a text, or on the validation split of shards."""

    name: ClassVar = "loss"
    flags: ClassVar = ("corpus", "column", "stride", "window")
    corpus: Corpus
    settings: Settings

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the text that the settings name."""
        if settings.corpus is None:
            raise EvaluationError("--task loss needs a text: --corpus FILE, or a folder of shards")
        return cls(only_corpus(settings.corpus, settings.column), settings)

    def evaluate(self, named: NamedModel, progress: Progress) -> TextLoss:
        """Measure a model's loss on the text, or on its first tokens if the settings limit them."""
        scope = self._scope(named)
        if not scope.targets:
            raise EvaluationError(
                f"{scope.part} of {self.corpus.name} has {len(scope.tokens)} tokens: a loss needs "
                f"2. {'Raise --limit' if self.settings.limit else 'Give more text'}"
            )
        tell = progress("tokens", scope.targets)
        return text_loss(named, self.corpus.name, scope, self.settings.batch_size, tell)

    def compare(self, first: NamedModel, second: NamedModel, progress: Progress) -> LossComparison:
        """Measure both models on the same bytes, and pair their losses passage by passage."""
        both, scopes, readings, seconds = (first, second), [], [], []
        differ = self.corpus.shards and disagreement(first.tokenizer, second.tokenizer)
        if differ:
            raise EvaluationError(
                f"{first.name} and {second.name} have different tokenizers, and the shards in "
                f"{self.corpus.name} were made by one at most. Compare them on a text. Of the "
                f"two, {differ}"
            )
        for named in both:
            with naming(named.name):
                scopes.append(self._scope(named, paired=True))
        for named, scope in zip(both, scopes, strict=True):
            started = time.perf_counter()
            tell = progress(f"{named.name}, tokens", scope.targets)
            with naming(named.name):
                readings.append(list(read_streams(named, scope, self.settings.batch_size, tell)))
            seconds.append(time.perf_counter() - started)
        found = [
            common_passages(pair) for pair in zip(*readings, strict=True) if len(pair[0].sizes)
        ]
        found = [passages for passages in found if len(passages)]
        if sum(map(len, found)) < 2:
            raise EvaluationError(
                f"corpus {self.corpus.name} is too short: a comparison needs 2 passages of "
                f"{SIZE:,} bytes at least. "
                f"{'Raise --limit' if self.settings.limit else 'Give more text'}"
            )
        return LossComparison(both, self.corpus.name, scopes, Passages.joined(found), seconds)

    def _windows(self, model: Model) -> tuple[int, int]:
        """The tokens from one window to the next, and those of a window."""
        window, stride = self.settings.window, self.settings.stride
        window = min(model.block_size, WINDOW) if window is None else window
        if not 1 <= window <= model.block_size:
            raise EvaluationError(
                f"--window {window} must be from 1 to the model's context, {model.block_size}"
            )
        stride = max(1, window // 2) if stride is None else stride
        if not 1 <= stride <= window:
            raise EvaluationError(
                f"--stride {stride} must be from 1 to the windows' {window} tokens: windows "
                "further apart would leave tokens out"
            )
        return stride, window

    def _scope(self, named: NamedModel, paired: bool = False) -> Scope:
        """What the model reads; of a text for two tokenizers, `limit` counts characters."""
        windows, limit, corpus = self._windows(named.model), self.settings.limit, self.corpus
        if corpus.shards is not None:
            part, tokens = "the validation split", shard_tokens(corpus, named)
        elif paired:
            text, part = corpus.text[:limit], "the whole text"
            if len(text) < len(corpus.text):
                part = f"the first {len(text):,} characters"
            stream = encode_unchanged(text, named.tokenizer)
            return Scope(part, Tokens.of(stream, corpus.name), *windows)
        else:
            stream = encode_unchanged(corpus.text, named.tokenizer)
            part, tokens = "the whole text", Tokens.of(stream, corpus.name)
        if limit is not None and limit < len(tokens):
            part, tokens = f"the first {limit:,} tokens of {part}", first_tokens(tokens, limit)
        return Scope(part, tokens, *windows)


def only_corpus(name: str, column: str | None = None) -> Corpus:
    """Open the one corpus that a name means.

    Args:
        name: The name.
        column: The column of rows that holds the text; None takes `text`.

    Raises:
        CorpusError: There is no such corpus.
        EvaluationError: The name means a mixture.
    """
    corpora = open_corpora(name, reading=replace(WHOLE, column=column or WHOLE.column))
    if len(corpora) != 1:
        raise EvaluationError(
            f"--corpus {name} is a mixture: evaluate its {len(corpora)} corpora one by one"
        )
    corpus = corpora[0]
    # where names say which texts are for validation, these count, as of shards
    return replace(corpus, text=corpus.validation or corpus.text, validation="")


def shard_tokens(corpus: Corpus, named: NamedModel) -> Tokens:
    """Return the tokens of the validation split of a corpus that is stored in shards.

    Raises:
        CorpusError: A shard is damaged, or has a token that the model doesn't know.
        RecipeError: The shards were made by another tokenizer than the model's.
    """
    assert corpus.shards is not None
    check_tokenizer([corpus], named.tokenizer, f"the model {named.name}")
    tokens = corpus.shards.tokens("validation", named.model.config.vocab_size)
    if tokens.limit is not None:  # of a corpus so large that training looks at what it reads alone
        for stream, shard in zip(tokens.streams, tokens.names, strict=True):
            check_range(stream, shard, tokens.limit)
    return tokens


def encode_unchanged(text: str, tokenizer: Tokenizer) -> np.ndarray:
    """Encode a text, and check that the tokens stand for exactly the bytes of the text.

    Raises:
        EvaluationError: The tokenizer changes the text.
    """
    stream = tokenizer.encode(text)
    if tokenizer.decode_bytes(stream) != text.encode("utf-8"):
        raise EvaluationError(
            "the model's tokenizer changes the text before it reads it, so its losses aren't those "
            "of the text's bytes. Give a text in Unicode's form NFC"
        )
    return stream


def first_tokens(tokens: Tokens, limit: int) -> Tokens:
    """Return the first `limit` tokens of a text, whose streams are counted one after the other."""
    streams = []
    for stream in tokens.streams:
        streams.append(stream[:limit])
        limit -= len(streams[-1])
    return Tokens(tuple(streams), tokens.names, tokens.limit)


def text_loss(
    named: NamedModel,
    corpus: str,
    scope: Scope,
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> TextLoss:
    """Measure a model's loss on all tokens but the first of every stream of a text.

    Args:
        named: The model and its tokenizer.
        corpus: The name of the text.
        scope: What the model reads of the text; each stream is read separately.
        batch_size: How many windows are computed together.
        progress: Is told how many tokens are done in all.

    Raises:
        EvaluationError: A loss isn't finite.
    """
    started, passages = time.perf_counter(), []
    total, count, size = 0.0, 0, 0
    readings = read_streams(named, scope, batch_size, progress)
    for name, stream, reading in zip(
        scope.tokens.names, scope.tokens.streams, readings, strict=True
    ):
        total += float(reading.losses.sum(dtype=np.float64))
        size += int(reading.sizes[1:].sum())
        count += len(reading.losses)
        passages += passages_of(name, stream, reading.losses, named.tokenizer)
    passages.sort(key=lambda passage: passage.loss)
    return TextLoss(
        *(named.name, corpus, scope.part, count, size, total / count),
        *(scope.stride, scope.window, time.perf_counter() - started),
        worst=passages[: -SHOWN - 1 : -1],
        best=passages[:SHOWN],
    )


def read_streams(
    named: NamedModel, scope: Scope, batch_size: int, progress: Callable[[int], None]
) -> Iterator[Reading]:
    """Yield how a model reads each stream of a text; `progress` is told how many tokens are done.

    Raises:
        EvaluationError: A loss isn't finite.
    """
    counts, done = bytes_of_tokens(named.tokenizer, named.model.config.vocab_size), 0
    for stream in scope.tokens.streams:
        losses = losses_of(
            *(named.model, stream, scope.stride, batch_size),
            lambda some, before=done: progress(before + some),
            window=scope.window,
        )
        yield Reading(counts[stream], losses)
        done += len(losses)
