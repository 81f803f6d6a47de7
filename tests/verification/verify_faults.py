"""Faults that `groundup verify` has to name: how each is made, and the row of the table that must
be red.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.checkpoints import model_folder
from groundup.checkpoints.layouts import gpt2 as gpt2_layout
from groundup.checkpoints.layouts import qwen3 as qwen3_layout
from groundup.generation import engine, sampler, stream, texts
from groundup.generation.engine import Engine
from groundup.generation.packed import Matrix
from groundup.generation.pool import Pool
from groundup.generation.settings import SamplingSettings
from groundup.generation.texts import Scored
from groundup.generation.writer import Writer
from groundup.models import attention, cache, correspondence, gpt2, modern, sampling
from groundup.models.bigram import Bigram
from groundup.models.cache import KVCache
from groundup.models.sampling import uniform_of
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.training import objective

Patch = Callable[[pytest.MonkeyPatch], None]


def replacing(where: Any, name: str, broken: Any) -> Patch:
    """One definition replaced by a broken one."""
    return lambda monkeypatch: monkeypatch.setattr(where, name, broken)


def after(where: Any, name: str, change: Callable[..., object]) -> Patch:
    """A function or an initialiser whose result, or whose object, is changed when it is done."""
    original = getattr(where, name)

    def changed(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        return change(args[0]) if name == "__init__" else change(result)

    return lambda monkeypatch: monkeypatch.setattr(where, name, changed)


def attend(distances: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Attention with a mask of allowed distances: the query's position minus the key's."""

    def attention_of(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        positions = torch.arange(query.size(-2))
        mask = distances(positions[:, None] - positions[None, :])
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)

    return attention_of


def products_with_late_mask(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """`attention_by_products` whose mask begins one token too late."""
    time, sharing = query.size(-2), query.size(1) // key.size(1)
    key, value = (
        key.repeat_interleave(sharing, 1).float(),
        value.repeat_interleave(sharing, 1).float(),
    )
    scores = query.float() @ key.mT / math.sqrt(query.size(-1))
    scores = scores.masked_fill(torch.ones(time, time, dtype=torch.bool).triu(2), -math.inf)
    return (scores.softmax(dim=-1) @ value).to(torch.bfloat16)


def swapped_keys_and_values(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    return attention.causal_attention(query, value, key, dropout)


def gelu_by_erf(mlp: gpt2.MLP, hidden: Tensor) -> Tensor:
    return mlp.dropout(mlp.c_proj(F.gelu(mlp.c_fc(hidden))))


def rotate_neighbours(vectors: Tensor, rotation: modern.Rotation) -> Tensor:
    """RoPE as its paper has it: dimension 2i with 2i + 1, instead of i with i + head_dim / 2."""
    half = vectors.size(-1) // 2
    cosine, sine = (table[..., :half].repeat_interleave(2, -1).to(vectors) for table in rotation)
    turned = torch.stack([-vectors[..., 1::2], vectors[..., ::2]], dim=-1).flatten(-2)
    return vectors * cosine + turned * sine


def another_epsilon(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.eps = 1e-5 if isinstance(module, nn.RMSNorm) else 1e-6


def untie(model: gpt2.GPT2 | modern.Modern) -> None:
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


def norm_in_bfloat16(norm: modern.RMSNorm, x: Tensor) -> Tensor:
    rounded = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
    return F.rms_norm(x.to(rounded), norm.normalized_shape, norm.weight.to(rounded), norm.eps)


def shifted_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight), targets.roll(1))


def forward_with_shifted_targets(
    model: gpt2.GPT2, tokens: Tensor, targets: Tensor | None = None
) -> tuple[Tensor, Any]:
    logits = model.lm_head(model.hidden(tokens))
    return logits, None if targets is None else F.cross_entropy(
        logits.flatten(0, 1), targets.roll(1, 1).flatten()
    )


def mlp_that_looks_beside(mlp: gpt2.MLP, hidden: Tensor) -> Tensor:
    hidden = hidden - 1e-3 * hidden.mean(dim=0, keepdim=True)
    return mlp.c_proj(F.gelu(mlp.c_fc(hidden), approximate="tanh"))


def mlp_that_sees_the_batch_size(mlp: gpt2.MLP, hidden: Tensor) -> Tensor:
    hidden = hidden * (1.0 + 1e-3 * hidden.size(0))
    return mlp.c_proj(F.gelu(mlp.c_fc(hidden), approximate="tanh"))


def mlp_in_half_precision(mlp: gpt2.MLP, hidden: Tensor) -> Tensor:
    if hidden.dtype == torch.float32:
        hidden = hidden.bfloat16().float()
    return mlp.c_proj(F.gelu(mlp.c_fc(hidden), approximate="tanh"))


def table_otherwise_compiled(model: Bigram, tokens: Tensor) -> Tensor:
    found = F.one_hot(tokens, model.head.in_features).to(model.head.weight.dtype)
    return found * 1.001 if torch.compiler.is_compiling() else found


def quantised(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half().to(tensor.dtype) for name, tensor in weights.items()}


def stale_window(model: Any, tokens: Tensor, settings: SamplingSettings) -> Iterator[int]:
    """Streaming whose context lags a token behind once the window slides."""
    for _ in range(settings.length):
        seen = (
            tokens if tokens.size(1) <= model.block_size else tokens[:, -model.block_size - 1 : -1]
        )
        token = model.eval().logits(model.hidden(seen)[:, -1]).argmax(dim=-1)
        tokens = torch.cat([tokens, token[:, None]], dim=1)
        yield int(token)


ROTATE, POSITIONS, COPY_ROWS = modern.Rotary.forward, KVCache.positions, KVCache.rows


def positions_from_zero(kept: KVCache, tokens: Tensor, block_size: int) -> Tensor:
    positions = POSITIONS(kept, tokens, block_size)
    return positions - positions[:, :1]


def rotate_from_zero(rotary: modern.Rotary, positions: Tensor) -> modern.Rotation:
    return ROTATE(rotary, positions - positions[:, :1])


def rows_of_others(kept: KVCache, numbers: Tensor, room: int = 0) -> KVCache:
    return COPY_ROWS(kept, numbers.roll(1), room)


def window_one_off(length: int, block_size: int) -> int:
    start = sampling.window_start(length, block_size)
    return start + 1 if start else 0


RELEASE = Pool.release
COPY, WRITE, WRITE_TEXTS, SCORED = Writer.copy, Writer.write, Engine._write, engine.scored
Numbers = Sequence[int]


def copy_from_the_next(writer: Writer, source: int, target: int, length: int) -> None:
    assert writer.slots is not None
    COPY(writer, (source + 1) % writer.slots.count, target, length)


def released_unless_something_failed(pool: Pool, slot: int) -> None:
    if sys.exc_info()[0] is None:
        RELEASE(pool, slot)


def write_too_far(writer: Writer, newest: Tensor, slots: Numbers, lengths: Numbers) -> Tensor:
    return WRITE(writer, newest, slots, [min(each + 1, writer.block_size) for each in lengths])


def write_with_others_length(
    writer: Writer, newest: Tensor, slots: Numbers, lengths: Numbers
) -> Tensor:
    return WRITE(writer, newest, slots, [*lengths[1:], lengths[0]])


def write_and_hold(writing: Engine) -> None:
    """Hold the beginnings of texts with tokens that were written one by one."""
    WRITE_TEXTS(writing)
    for choice in writing._running:
        whole = choice.read // writing.pool.piece * writing.pool.piece
        writing.pool.hold(choice.slot, choice.window[:whole])


def draw_by_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform numbers by a position that is counted for the whole engine."""
    positions = count()
    monkeypatch.setattr(
        sampler, "uniform_of", lambda seed, choice, _: uniform_of(seed, choice, next(positions))
    )


def scale_of_the_next_row(matrix: Matrix) -> None:
    matrix.scale = None if matrix.scale is None else matrix.scale.roll(1)


def scored_after_temperature(logits: Tensor, tokens: Numbers, top: int, known: int) -> list[Scored]:
    return SCORED(logits / 0.8, tokens, top, known)


def another_base(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {
        "rope_theta": 1e4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }


# The fault: (how it is made, the random model that has it, the row of the table that must be red).
FAULTS: dict[str, tuple[Patch, str, str]] = {
    "mask shows the next token": (
        replacing(cache, "causal_attention", attend(lambda d: d >= -1)),
        *("gpt2", "causality: in float32"),
    ),
    "mask shows the next token, modern": (
        replacing(cache, "causal_attention", attend(lambda d: d >= -1)),
        *("modern", "causality: in float32"),
    ),
    "mask shows the next token, in bfloat16 alone": (
        replacing(attention, "attention_by_products", products_with_late_mask),
        *("gpt2", "causality: in bfloat16"),
    ),
    "mask hides the token itself": (
        replacing(cache, "causal_attention", attend(lambda d: d >= 1)),
        *("gpt2", "readable = fused: logits"),
    ),
    "GELU by erf": (
        replacing(gpt2.MLP, "forward", gelu_by_erf),
        "gpt2",
        "readable = fused: logits",
    ),
    "a Conv1D not transposed, the square one": (
        replacing(gpt2_layout, "TRANSPOSED", ("c_attn.weight", "c_fc.weight", "mlp.c_proj.weight")),
        *("gpt2", "ours = transformers"),
    ),
    "keys and values swapped": (
        replacing(cache, "causal_attention", swapped_keys_and_values),
        *("gpt2", "readable = fused: logits"),
    ),
    "keys and values swapped, modern": (
        replacing(cache, "causal_attention", swapped_keys_and_values),
        *("modern", "ours = transformers"),
    ),
    "keys and values swapped in the map": (
        replacing(correspondence, "STACKED", ("query", "value", "key")),
        *("readable", "readable = fused: logits"),
    ),
    "RoPE pairs swapped": (
        replacing(modern, "rotate", rotate_neighbours),
        "modern",
        "ours = transformers",
    ),
    "RoPE base lost in the folder": (
        after(qwen3_layout.Qwen3Layout, "settings_of", another_base),
        *("modern", "saved = loaded: logits"),
    ),
    "norm epsilon": (
        after(gpt2.GPT2, "__init__", another_epsilon),
        "gpt2",
        "readable = fused: logits",
    ),
    "norm epsilon, modern": (
        after(modern.Modern, "__init__", another_epsilon),
        "modern",
        "ours = transformers",
    ),
    "tied head untied": (
        after(gpt2.GPT2, "__init__", untie),
        "gpt2",
        "readable = fused: gradients",
    ),
    "tied head untied, modern": (
        after(modern.Modern, "__init__", untie),
        "modern",
        "saved = loaded: logits",
    ),
    "dropout left on": (
        replacing(nn.Dropout, "forward", lambda self, x: F.dropout(x, self.p, training=True)),
        *("gpt2", "readable = fused: logits"),
    ),
    "dropout left on after loading": (
        after(model_folder, "load_model", lambda loaded: (loaded.model.train(), loaded)[1]),
        *("modern", "saved = loaded: logits"),
    ),
    "dropout left on in generation": (
        replacing(modern.Modern, "eval", lambda self: self),
        *("modern", "cached = uncached: greedy, tokens"),
    ),
    "norm in bfloat16": (
        replacing(modern.RMSNorm, "forward", norm_in_bfloat16),
        *("modern", "bfloat16 within bound: norms"),
    ),
    "shifted target in training": (
        replacing(objective, "linear_cross_entropy", shifted_loss),
        *("gpt2", "loss = definition: of training"),
    ),
    "shifted target in the model": (
        replacing(gpt2.GPT2, "forward", forward_with_shifted_targets),
        *("gpt2", "loss = definition: of the model"),
    ),
    "a result that depends on its neighbours": (
        replacing(gpt2.MLP, "forward", mlp_that_looks_beside),
        *("gpt2", "batch = alone: other neighbours"),
    ),
    "a result that depends on the batch's size": (
        replacing(gpt2.MLP, "forward", mlp_that_sees_the_batch_size),
        *("gpt2", "batch = alone: no neighbours"),
    ),
    "a context that lags behind": (
        replacing(stream, "stream_tokens", stale_window),
        *("gpt2", "cached = uncached: greedy, tokens"),
    ),
    "a window that begins one token late": (
        replacing(texts, "window_start", window_one_off),
        *("gpt2", "engine = plain loop: logits"),
    ),
    "a slot that is read one token too far": (
        replacing(Writer, "write", write_too_far),
        *("modern", "engine = plain loop: logits"),
    ),
    "log-probabilities after temperature": (
        replacing(engine, "scored", scored_after_temperature),
        *("gpt2", "engine = plain loop: log-probabilities"),
    ),
    "a text that takes another one's length": (
        replacing(Writer, "write", write_with_others_length),
        *("gpt2", "written alone = in company: side by side"),
    ),
    "a choice that goes on from another slot": (
        replacing(Writer, "copy", copy_from_the_next),
        *("modern", "written alone = in company: side by side"),
    ),
    "a slot that is lost by an error": (
        replacing(Pool, "release", released_unless_something_failed),
        *("gpt2", "written alone = in company: after an error"),
    ),
    "a number drawn by what others write": (
        draw_by_company,
        *("gpt2", "written alone = in company: joined midway"),
    ),
    "a beginning that was written, not read": (
        replacing(Engine, "_write", write_and_hold),
        *("gpt2", "written alone = in company: after a hit"),
    ),
    "an int8 scale of another row": (
        after(Matrix, "__init__", scale_of_the_next_row),
        *("gpt2", "int8 within bound"),
    ),
    "stale cache position": (
        replacing(KVCache, "positions", positions_from_zero),
        *("gpt2", "cached = uncached: logits"),
    ),
    "stale cache position, modern": (
        replacing(modern.Rotary, "forward", rotate_from_zero),
        *("modern", "cached = uncached: logits"),
    ),
    "a cache that confuses its rows": (
        replacing(KVCache, "rows", rows_of_others),
        *("gpt2", "cached = uncached: logits"),
    ),
    "half precision in secret": (
        replacing(gpt2.MLP, "forward", mlp_in_half_precision),
        *("gpt2", "device = CPU float64: logits"),
    ),
    "another result when compiled": (
        replacing(Bigram, "hidden", table_otherwise_compiled),
        *("bigram", "compiled = eager: gradients"),
    ),
    "weights saved in half precision": (
        after(model_folder, "to_hugging_face", quantised),
        *("gpt2", "saved = loaded: tensors"),
    ),
    "a tokenizer that tidies line ends": (
        after(CharacterTokenizer, "decode", lambda text: text.replace("\r\n", "\n")),
        *("bigram", "tokenizer round trip: characters"),
    ),
    "a tokenizer that loses bytes": (
        after(BytePairTokenizer, "decode_bytes", lambda found: found.replace(b"\0", b"")),
        *("gpt2", "tokenizer round trip: pieces"),
    ),
}
