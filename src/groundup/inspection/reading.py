"""What a model computes while it reads a text, kept: attention, the residual stream, predictions.

The model reads by its own modules, as it reads a prompt. Beside that, the queries of all layers and
what each block adds to the residual stream are kept, so that any part can be looked at later.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.errors import GenerationError
from groundup.generation.engine import NOT_FINITE, Engine
from groundup.generation.slots import Slots
from groundup.generation.writer import evaluating, gpt2_twin
from groundup.inspection.parts import Recorder, parts_of
from groundup.machine.kinds import to_device
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model
from groundup.models.sampling import precise, token_logprobs

MOST_ALTERNATIVES = 20
ROWS = 64  # whose logits are computed at once: in a large vocabulary each needs much memory


@dataclass(frozen=True)
class Prediction:
    """What a model says of the token after one position, or would say there.

    Args:
        entropy: Of its probabilities, in nats.
        logprob: The log-probability of the token that follows, or None where none does.
        top: The most probable tokens with their log-probabilities, the most probable first.
    """

    entropy: float
    logprob: float | None
    top: tuple[tuple[int, float], ...]


class Inspection:
    """A text as one model reads it.

    It is read piece by piece, so that others wait for one piece at most; `read_all` reads it all.
    A readable model is looked at through the GPT-2 that computes the same.

    Args:
        model: Any model, packed or not.
        tokens: The tokens of the text, from 1 to block_size.
        piece: The number of tokens that are read at once; 0 reads all.
        known: The number of tokens that stand for something; 0 takes the whole vocabulary.
        piece_dtype: The dtype of attention's products while a piece is read.

    Attributes:
        stream: [2 n_layer + 1, time, n_embd], the residual stream after the embedding and after
            each attention and MLP.
        queries: [n_layer, n_head, time, head_dim], as attention takes them.
        keys: [n_layer, n_kv_head, time, head_dim], as attention takes them.
        values: [n_layer, n_kv_head, time, head_dim].
        hidden: [time, width], what the head reads.
        predictions: What the model says after each token.

    Raises:
        GenerationError: There are no tokens, or too many, or one isn't the model's.
    """

    def __init__(
        self,
        model: Model,
        tokens: Sequence[int],
        *,
        piece: int = 0,
        known: int = 0,
        piece_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = gpt2_twin(model) if isinstance(model, ReadableGPT) else model
        self.tokens = [int(token) for token in tokens]
        self.known = known or self.model.config.vocab_size
        _check(self.tokens, self.model.block_size, self.known)
        self.piece = piece or len(self.tokens)
        self.length = 0  # the tokens that are read
        self.predictions = list[Prediction]()
        # nobody else may read by the same modules meanwhile
        self._lock: AbstractContextManager[Any] = nullcontext()
        self.parts = parts_of(self.model)
        weight = next(self.model.parameters())
        self.device = weight.device
        width = self.model.config.n_embd if self.parts else self.model.config.vocab_size
        shape = len(self.tokens), width
        self.hidden = torch.empty(shape, dtype=weight.dtype, device=self.device)
        self.stream = self.hidden.new_empty((2 * self.n_layer + 1 if self.parts else 0, *shape))
        self._slot: Slots | None = None
        if isinstance(self.model, GPT2 | Modern):
            self._slot = Slots(
                self.model, 1, len(self.tokens), self.device, piece_dtype=piece_dtype
            )
            heads, size = self.n_head, self._slot.memory.size(-1)
            shape = self.n_layer, heads, len(self.tokens), size
            self.queries = self._slot.memory.new_empty(shape)

    @classmethod
    def by_engine(cls, engine: Engine, tokens: Sequence[int]) -> "Inspection":
        """Return a text, still to be read, by an engine's own model and as it reads prompts.

        Raises:
            GenerationError: There are no tokens, or too many, or one isn't the model's.
        """
        slots = engine.writer.slots
        found = cls(
            engine.writer.model,
            tokens,
            piece=engine.piece,
            known=engine.vocab_size,
            piece_dtype=torch.float32 if slots is None else slots.piece_dtype,
        )
        found._lock = engine.lock
        return found

    @property
    def n_layer(self) -> int:
        """The number of blocks; 0 for a bigram."""
        return len(self.parts.blocks) if self.parts else 0

    @property
    def n_head(self) -> int:
        """The number of heads of queries in a block; 0 for a bigram."""
        return self.model.config.n_head if self.parts else 0

    @property
    def keys(self) -> Tensor:
        return self._memory[:, 0, 0, :, : len(self.tokens)]

    @property
    def values(self) -> Tensor:
        return self._memory[:, 1, 0, :, : len(self.tokens)]

    @property
    def _memory(self) -> Tensor:
        assert self._slot is not None, "a bigram has no attention"
        return self._slot.memory

    @property
    def nbytes(self) -> int:
        """The memory that is kept."""
        kept = [self.hidden, self.stream]
        kept += [self.queries, self._memory] if self.parts else []
        return sum(tensor.nbytes for tensor in kept)

    @property
    def is_done(self) -> bool:
        """Whether all is read, and predictions are there."""
        return len(self.predictions) == len(self.tokens)

    @torch.inference_mode()
    def adopt(self, other: "Inspection") -> None:
        """Take over what is known of the same beginning, in whole pieces, instead of reading it.

        Args:
            other: Another text that the same model has read in pieces of the same size.
        """
        most = min(other.length, len(self.tokens)) // self.piece * self.piece
        ends = range(most, 0, -self.piece)
        whole = next((end for end in ends if other.tokens[:end] == self.tokens[:end]), 0)
        if whole <= self.length:
            return
        self.length = whole
        self.hidden[:whole], self.stream[:, :whole] = other.hidden[:whole], other.stream[:, :whole]
        if self.parts:
            self.queries[:, :, :whole] = other.queries[:, :, :whole]
            self.keys[:, :, :whole] = other.keys[:, :, :whole]
            self.values[:, :, :whole] = other.values[:, :, :whole]
        # the last one is about a token that may be another here; those of a group come together
        self.predictions = other.predictions[: (whole - 1) // ROWS * ROWS]

    def read_all(self) -> "Inspection":
        """Read what isn't read yet, and return the inspection itself."""
        while not self.is_done:
            self.read_piece()
        return self

    @torch.inference_mode()
    def read_piece(self) -> None:
        """Read a piece of the text, or, once all is read, predict after a few of its tokens."""
        if self.length < len(self.tokens):
            self._read(self.length, min(self.length + self.piece, len(self.tokens)))
        else:
            first, last = len(self.predictions), min(len(self.predictions) + ROWS, self.length)
            after = self.tokens[first + 1 : last + 1]
            self.predictions += self.predict(self.hidden[first:last], after, MOST_ALTERNATIVES)

    def predict(self, hidden: Tensor, after: Sequence[int], top: int) -> list[Prediction]:
        """Return what the model's head says of hidden states.

        Args:
            hidden: [rows, width], after the last norm.
            after: The token that follows each; fewer where nothing follows the last.
            top: The number of most probable tokens to list.
        """
        logits = self.model.logits(hidden)
        asked = torch.tensor([*after, *[0] * (len(hidden) - len(after))], device=logits.device)
        own, numbers, scores = token_logprobs(logits, asked, min(top, self.known), self.known)
        logits = _at_least_float32(logits)
        if not logits.max().isfinite():
            raise GenerationError(NOT_FINITE)
        expected = (logits.softmax(dim=-1) * logits).sum(dim=-1)
        entropies = logits.logsumexp(dim=-1) - expected
        rows = zip(*(each.tolist() for each in (entropies, own, numbers, scores)), strict=True)
        return [
            Prediction(entropy, own if row < len(after) else None, tuple(zip(n, s, strict=True)))
            for row, (entropy, own, n, s) in enumerate(rows)
        ]

    def logprobs(self, position: int) -> Tensor:
        """Return the log-probabilities of all tokens after a position: [vocab] float64."""
        with torch.inference_mode():
            logits = self.model.logits(self.hidden[position : position + 1])[0]
            return precise(logits).log_softmax(dim=-1)

    def scores(self, layer: int, head: int, first: int, last: int) -> Tensor:
        """Return queries times keys over the root of head_dim, of queries from `first` to `last`.

        Args:
            layer: The index of the layer.
            head: The index of the head of queries.
            first: The first query.
            last: The query after the last one.

        Returns:
            [last - first, last] in float32 at least; keys after a query are not masked.
        """
        query = _at_least_float32(self.queries[layer, head, first:last])
        keys = _at_least_float32(self.keys[layer, self.shared(head), :last])
        return query @ keys.mT / math.sqrt(query.size(-1))

    def attention(self, layer: int, head: int, first: int = 0, last: int | None = None) -> Tensor:
        """Return how much each token reads from each one up to itself.

        It is softmax(Q K^T / sqrt(head_dim)) with a causal mask (Vaswani et al. 2017, 3.2.1).

        Args:
            layer: The index of the layer.
            head: The index of the head of queries.
            first: The first token that reads.
            last: The token after the last one that reads; None stands for all.

        Returns:
            [last - first, last] in float32 at least, where each row sums to 1.
        """
        last = len(self.tokens) if last is None else last
        with torch.inference_mode():
            scores = self.scores(layer, head, first, last)
            future = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
            return scores.masked_fill(future.triu(1 + first), -math.inf).softmax(dim=-1)

    def shared(self, head: int) -> int:
        """Return the head of keys and values that a head of queries reads."""
        return head * self.keys.size(1) // self.n_head

    def lens(self, position: int, top: int) -> list[Prediction]:
        """Return what each point of the residual stream says of the token after a position.

        It is the logit lens (nostalgebraist 2020): the last norm and the head read the stream after
        the embedding and after each attention and MLP, in this order; the last one is the model's
        own prediction.

        Args:
            position: The index of the token.
            top: The number of most probable tokens to list.
        """
        assert self.parts is not None, "a bigram has no residual stream"
        with torch.inference_mode():
            hidden = self.parts.norm(self.stream[:, position])
            after = self.tokens[position + 1 : position + 2] * len(hidden)
            return self.predict(hidden, after, top)

    def norms(self) -> Tensor:
        """Return the length of what was added to the residual stream, and of the stream.

        Returns:
            [3 n_layer + 1, time]: of the embedding; then for each layer of what attention added, of
            what the MLP added, and of the stream after the block.
        """
        with torch.inference_mode():
            stream = _at_least_float32(self.stream)
            added = stream.diff(dim=0)
            rows = [stream[0]]
            for layer in range(self.n_layer):
                rows += [added[2 * layer], added[2 * layer + 1], stream[2 * layer + 2]]
            return torch.stack([row.norm(dim=-1) for row in rows])

    def _read(self, first: int, last: int) -> None:
        """Read the tokens from `first` to `last`."""
        tokens = to_device(torch.tensor([self.tokens[first:last]]), self.device)
        with self._lock, evaluating(self.model):
            if isinstance(self.model, GPT2 | Modern):
                assert self._slot is not None
                cache = Recorder(self._slot.reading(0, first), self.queries, first, last)
                with self._keeping(first, last):
                    found = self.model.hidden(tokens, cache)
            else:
                found = self.model.hidden(tokens)
        if not found.isfinite().all():
            raise GenerationError(NOT_FINITE)
        self.hidden[first:last] = found[0]
        self.length = last

    @contextmanager
    def _keeping(self, first: int, last: int) -> Iterator[None]:
        """Keep the residual stream while the model reads the tokens from `first` to `last`."""
        assert self.parts is not None
        stream = self.stream[:, first:last]

        def keep(point: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: Any, added: Tensor) -> None:
                torch.add(stream[point - 1], added[0], out=stream[point])

            return hook

        def begin(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            stream[0] = inputs[0][0]

        hooks = [self.parts.blocks[0].register_forward_pre_hook(begin)]
        for layer in range(self.n_layer):
            attention, mlp = self.parts.adding(layer)
            hooks.append(attention.register_forward_hook(keep(2 * layer + 1)))
            hooks.append(mlp.register_forward_hook(keep(2 * layer + 2)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def inspect(model: Model | Engine, tokens: Sequence[int]) -> Inspection:
    """Read a text, and keep what the model computes on the way.

        inspection = groundup.inspect(model, tokenizer.encode("Once upon a time"))
        inspection.attention(layer=0, head=3)  # [time, time]

    Args:
        model: A model; or an engine, for the numbers of the model as it writes, quantized perhaps.
        tokens: The tokens of the text, from 1 to block_size.

    Raises:
        GenerationError: There are no tokens, or too many, or one isn't the model's.
    """
    if isinstance(model, Engine):
        return Inspection.by_engine(model, tokens).read_all()
    return Inspection(model, tokens).read_all()


def _check(tokens: list[int], block_size: int, known: int) -> None:
    """Refuse what the model can't read whole. Raises GenerationError."""
    if not tokens:
        raise GenerationError("the text is empty; there is nothing to look at")
    if len(tokens) > block_size:
        problem = f"the text has {len(tokens):,} tokens, but the model's context is {block_size:,}"
        raise GenerationError(f"{problem}: look at fewer")
    for token in tokens:
        if not 0 <= token < known:
            raise GenerationError(f"token {token} of the text is none of the model's {known:,}")
