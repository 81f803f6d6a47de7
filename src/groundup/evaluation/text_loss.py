"""The task `loss`: how well a model predicts a text, and which of two predicts it better."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from groundup.data.corpora import Corpus, open_corpora
from groundup.data.dataset import check_tokenizer
from groundup.data.tokens import Tokens, check_range
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
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class TextLoss(Result):
    """The loss over all tokens of a text but each stream's first.

    Args:
        model: The model's name.
        corpus: The text's name.
        part: Which part of the text was read, in words.
        tokens: How many tokens were predicted.
        size: Their bytes as text.
        loss: The mean loss, in nats a token.
        stride: The tokens from one window to the next. Each token was predicted from at least
            block_size - stride + 1 tokens before it, where there are as many.
        block_size: The tokens of a window.
        seconds: How long it took.
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
        """Bits a byte, which compare over tokenizers; NaN where the tokens stand for no text."""
        return bits_per_byte(self.loss, self.size / self.tokens) if self.size else math.nan

    def to_json(self) -> dict[str, Any]:
        """State all of it, and what follows; None for a unit that there is no number in."""
        derived = {"bits_per_byte": self.bits_per_byte, "perplexity": perplexity(self.loss)}
        stated = {unit: value if math.isfinite(value) else None for unit, value in derived.items()}
        speed = {"tokens_per_second": self.tokens / self.seconds}
        return {"task": "loss"} | asdict(self) | stated | speed

    def report(self) -> Iterator[str | Table]:
        """Say the loss in its units, how it was measured, and the passages at both ends."""
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


@dataclass(frozen=True)
class LossComparison(Finding):
    """The losses of two models on the same text, over the same passages."""

    models: tuple[str, str]
    corpus: str
    part: str
    passages: Passages
    block_size: tuple[int, int]
    stride: tuple[int, int]
    seconds: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """State both losses over all passages, and their difference in bits a byte."""
        passages = self.passages
        bits = passages.nats / math.log(2)
        return {
            "task": "loss",
            "models": list(self.models),
            "corpus": self.corpus,
            "part": self.part,
            "bytes": int(passages.sizes.sum()),
            "passages": len(passages),
            "tokens": passages.tokens.tolist(),
            "loss": (passages.nats.sum(axis=1) / passages.tokens).tolist(),
            "bits_per_byte": (bits.sum(axis=1) / passages.sizes.sum()).tolist(),
            **paired_rate(bits[1] - bits[0], passages.sizes).to_json(),
            "lower_in": [int((bits[0] < bits[1]).sum()), int((bits[1] < bits[0]).sum())],
            "block_size": list(self.block_size),
            "stride": list(self.stride),
            "seconds": list(self.seconds),
        }

    def report(self) -> Iterator[str | Table]:
        """Say a row for each model, the difference, and how it was measured."""
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
            f"{result['bytes']:,} bytes: {self.part} of {self.corpus}, in passages of {SIZE:,} "
            "bytes or more, cut where a token of both ends. What a model was trained on says "
            "nothing about new text"
        )


class Scope(NamedTuple):
    """What a model reads of a text: which part, in words, its tokens, and the windows' stride."""

    part: str
    tokens: Tokens
    stride: int

    @property
    def targets(self) -> int:
        """How many tokens are predicted: all but each stream's first."""
        return sum(max(0, len(stream) - 1) for stream in self.tokens.streams)


@dataclass(frozen=True)
class TextLossTask(Task):
    """The loss on a text, or on the validation split of shards."""

    name: ClassVar = "loss"
    flags: ClassVar = ("corpus", "stride")
    corpus: Corpus
    settings: Settings

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the text that the settings name."""
        if settings.corpus is None:
            raise EvaluationError("--task loss needs a text: --corpus FILE, or a folder of shards")
        return cls(only_corpus(settings.corpus), settings)

    def evaluate(self, named: NamedModel, progress: Progress) -> TextLoss:
        """Measure the loss on the text, or on its first tokens."""
        stride, limit = self._stride(named.model), self.settings.limit
        part, tokens = self._read(named)
        if limit is not None and limit < len(tokens):
            part, tokens = f"the first {limit:,} tokens of {part}", first_tokens(tokens, limit)
        if not any(len(stream) > 1 for stream in tokens.streams):
            raise EvaluationError(
                f"corpus {self.corpus.name} has {len(tokens)} tokens: a loss needs 2. Give more "
                "text"
            )
        scope = Scope(part, tokens, stride)
        tell = progress("tokens", scope.targets)
        return text_loss(named, self.corpus.name, scope, self.settings.batch_size, tell)

    def compare(self, first: NamedModel, second: NamedModel, progress: Progress) -> LossComparison:
        """Measure both models on the same bytes, and pair them passage by passage."""
        both, readings, seconds = (first, second), [], []
        scopes = self._scopes(both)
        for named, scope in zip(both, scopes, strict=True):
            started = time.perf_counter()
            tell = progress(f"{named.name}, tokens", scope.targets)
            with naming(named.name):
                readings.append(read_streams(named, scope, self.settings.batch_size, tell))
            seconds.append(time.perf_counter() - started)
        found = [common_passages(pair) for pair in zip(*readings, strict=True)]
        found = [passages for passages in found if len(passages)]
        if sum(map(len, found)) < 2:
            raise EvaluationError(
                f"corpus {self.corpus.name} is too short: a comparison needs 2 passages of "
                f"{SIZE:,} bytes at least. Give more text"
            )
        return LossComparison(
            (first.name, second.name),
            *(self.corpus.name, scopes[0].part, Passages.joined(found)),
            (first.model.block_size, second.model.block_size),
            (scopes[0].stride, scopes[1].stride),
            (seconds[0], seconds[1]),
        )

    def _stride(self, model: Model) -> int:
        """The tokens from one window to the next: as given, or half of the context."""
        stride = self.settings.stride
        stride = max(1, model.block_size // 2) if stride is None else stride
        if not 1 <= stride <= model.block_size:
            raise EvaluationError(
                f"--stride {stride} must be from 1 to the model's context, {model.block_size}: "
                "windows further apart would leave tokens out"
            )
        return stride

    def _read(self, named: NamedModel) -> tuple[str, Tokens]:
        """Which part of the corpus is scored, in words, and its tokens."""
        if self.corpus.shards is not None:
            return "the validation split", shard_tokens(self.corpus, named)
        tokens = named.tokenizer.encode(self.corpus.text)
        return "the whole text", Tokens.of(tokens, self.corpus.name)

    def _scopes(self, both: tuple[NamedModel, NamedModel]) -> list[Scope]:
        """What each model reads: the same bytes, of which `limit` counts characters, or tokens."""
        strides, limit, tokens = [], self.settings.limit, []
        for named in both:
            with naming(named.name):
                strides.append(self._stride(named.model))
        if self.corpus.shards is not None:
            if both[0].tokenizer.identity != both[1].tokenizer.identity:
                raise EvaluationError(
                    f"{both[0].name} and {both[1].name} have different tokenizers, and the shards "
                    f"in {self.corpus.name} were made by one at most. Compare them on a text"
                )
            part, tokens = "the validation split", [shard_tokens(self.corpus, one) for one in both]
            if limit is not None and limit < len(tokens[0]):
                part = f"the first {limit:,} tokens of {part}"
                tokens = [first_tokens(some, limit) for some in tokens]
        else:
            text = self.corpus.text[:limit]
            for named in both:
                with naming(named.name):
                    stream = encode_unchanged(text, named.tokenizer)
                tokens.append(Tokens.of(stream, self.corpus.name))
            whole = len(text) == len(self.corpus.text)
            part = "the whole text" if whole else f"the first {len(text):,} characters"
        return [Scope(part, some, stride) for some, stride in zip(tokens, strides, strict=True)]


def only_corpus(name: str) -> Corpus:
    """Open the one corpus that a name means.

    Raises:
        CorpusError: There is none.
        EvaluationError: The name means a mixture.
    """
    corpora = open_corpora(name)
    if len(corpora) != 1:
        raise EvaluationError(
            f"--corpus {name} is a mixture: evaluate its {len(corpora)} corpora one by one"
        )
    return corpora[0]


def shard_tokens(corpus: Corpus, named: NamedModel) -> Tokens:
    """Read the validation split of shards.

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
    """Encode a text whose bytes the tokens must stand for exactly. Raises EvaluationError."""
    stream = tokenizer.encode(text)
    if tokenizer.decode_bytes(stream) != text.encode("utf-8"):
        raise EvaluationError(
            "its tokenizer changes the text before it reads it, so the bytes of the two can't be "
            "paired. Compare on a text in Unicode's form NFC"
        )
    return stream


def first_tokens(tokens: Tokens, limit: int) -> Tokens:
    """Keep the first `limit` tokens, over the streams in their order."""
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
    """Score every token of every stream but its first; no stream sees another.

    Raises:
        EvaluationError: The model gives no number.
    """
    started, passages = time.perf_counter(), []
    byte_counts = bytes_of_tokens(named.tokenizer, named.model.config.vocab_size)
    total, count, size = 0.0, 0, 0
    for name, stream in zip(scope.tokens.names, scope.tokens.streams, strict=True):
        losses = losses_of(
            *(named.model, stream, scope.stride, batch_size),
            lambda done, before=count: progress(before + done),
        )
        total += float(losses.sum(dtype=np.float64))
        size += int(byte_counts[stream[1:]].sum())
        count += len(losses)
        passages += passages_of(name, stream, losses, named.tokenizer)
    passages.sort(key=lambda passage: passage.loss)
    return TextLoss(
        *(named.name, corpus, scope.part, count, size, total / count),
        *(scope.stride, named.model.block_size, time.perf_counter() - started),
        worst=passages[: -SHOWN - 1 : -1],
        best=passages[:SHOWN],
    )


def read_streams(
    named: NamedModel, scope: Scope, batch_size: int, progress: Callable[[int], None]
) -> list[Reading]:
    """Read each stream that has a token. Raises EvaluationError where the model gives no number."""
    counts, done = bytes_of_tokens(named.tokenizer, named.model.config.vocab_size), 0
    readings = []
    for stream in filter(len, scope.tokens.streams):
        losses = losses_of(
            *(named.model, stream, scope.stride, batch_size),
            lambda some, before=done: progress(before + some),
        )
        readings.append(Reading(counts[stream], losses))
        done += len(losses)
    return readings
