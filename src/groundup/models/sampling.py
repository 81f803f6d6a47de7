"""Sampling as pure functions: logits and a uniform number in, a token out."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.machine.kinds import kind_of


class LanguageModel(Protocol):
    """What `generate` needs of a model."""

    block_size: int

    def hidden(self, tokens: Tensor) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


def uniform_of(seed: int, choice: int, position: int) -> float:
    """Return the random number in [0, 1) by which a token is drawn, which depends on nothing else.

    It is u * 2^-53, where u is the first 8 bytes, little endian, of the 64 of the BLAKE2b digest
    (RFC 7693) of the text "SEED CHOICE POSITION", shifted right by 11 bits. The text is ASCII:
    decimal numbers with a space between them.

    Args:
        seed: The seed of the request.
        choice: The index of the text, of several that are drawn for one request.
        position: The number of tokens that were written to this text before.
    """
    digest = hashlib.blake2b(f"{seed} {choice} {position}".encode("ascii")).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) * 2.0**-53


def uniforms_of(seed: int, choice: int, count: int) -> Tensor:
    """Return the numbers by which the first tokens of a text are drawn, as `generate` takes them.

    Returns:
        [1, count] float64: `uniform_of` each position.
    """
    numbers = [uniform_of(seed, choice, position) for position in range(count)]
    return torch.tensor([numbers], dtype=torch.float64)


def penalise_repetition(logits: Tensor, text: Tensor, penalty: float) -> Tensor:
    """Make the tokens of a text less likely, as CTRL does (Keskar et al. 2019, section 4.1).

        z_i <- z_i / penalty if z_i > 0, else z_i penalty

    The logit of each token that occurs, however often, is divided by the penalty if it is positive,
    and else multiplied by it. It comes before all other changes of the logits.

    Args:
        logits: [vocab], of one row.
        text: [time] int64, the whole text: the prompt and what was written.
        penalty: Above 0; 1 returns `logits` themselves.

    Returns:
        [vocab].
    """
    if penalty == 1.0:
        return logits
    found = logits[text]
    return logits.scatter(0, text, torch.where(found > 0, found / penalty, found * penalty))


def penalise_written(logits: Tensor, written: Tensor, presence: float, frequency: float) -> Tensor:
    """Make tokens that were written less likely, as the interface of OpenAI defines it.

        z_i <- z_i - presence - frequency count_i

    The logit of each token that occurs falls by `presence`, and by `frequency` for each time. It
    comes after `penalise_repetition`.

    Args:
        logits: [vocab], of one row.
        written: [time] int64, what was written after the prompt.
        presence: Any number; negative ones make the tokens more likely.
        frequency: Any number. If both are 0, `logits` themselves are returned.

    Returns:
        [vocab].
    """
    if presence == frequency == 0.0:
        return logits
    tokens, counts = written.unique(return_counts=True)
    return logits.scatter(0, tokens, logits[tokens] - presence - frequency * counts.to(logits))


def add_bias(logits: Tensor, bias: Sequence[tuple[int, float]]) -> Tensor:
    """Add a number to the logits of given tokens. It comes after both penalties.

    Args:
        logits: [vocab], of one row.
        bias: Tokens, each once, and what is added; if there are none, `logits` themselves are
            returned.

    Returns:
        [vocab].
    """
    if not bias:
        return logits
    tokens = torch.tensor([token for token, _ in bias], device=logits.device)
    return logits.scatter(0, tokens, logits[tokens] + logits.new_tensor([add for _, add in bias]))


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` largest logits of each row, and make all others -inf (Fan et al. 2018).

        z_i <- -inf if z_i < largest(z, top_k)

    Args:
        logits: [batch, vocab].
        top_k: The number of logits to keep; others that equal the smallest kept one stay too. 0
            keeps all.

    Returns:
        [batch, vocab].
    """
    if top_k == 0 or top_k >= logits.size(-1):
        return logits
    smallest_kept = logits.topk(top_k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the fewest tokens whose probabilities reach `top_p` together (Holtzman et al. 2020).

        z_i <- -inf if sum_j p_j >= top_p,  p_j > p_i

    The tokens kept are the most probable ones, the nucleus (section 3.1).

    Args:
        logits: [batch, vocab].
        top_p: The probability to reach, above 0; 1 keeps all.

    Returns:
        [batch, vocab].
    """
    if top_p >= 1.0:
        return logits
    sorted_logits = _descending(logits)
    probabilities = sorted_logits.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # of all more probable tokens
    count = logits.size(-1) - (before >= top_p).sum(dim=-1, keepdim=True)
    smallest_kept = sorted_logits.gather(-1, count - 1)
    equal = logits == smallest_kept  # of these the first in the vocabulary are kept
    places = count - (sorted_logits > smallest_kept).sum(dim=-1, keepdim=True)
    surplus = (logits < smallest_kept) | (equal & (equal.cumsum(dim=-1) > places))
    return logits.masked_fill(surplus, -math.inf)


def _descending(logits: Tensor) -> Tensor:
    """Sort each row, the largest first."""
    if kind_of(logits.device).is_gpu:
        return logits.sort(dim=-1, descending=True).values
    negated = -precise(logits.detach())
    negated.numpy().sort(
        axis=-1
    )  # in place; torch's sort makes indices too, which takes far longer
    return -negated.to(logits.dtype)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least `min_p` times as probable as the most probable (Nguyen et al. 2024).

        z_i <- -inf if z_i < max(z) + log(min_p)

    Args:
        logits: [batch, vocab].
        min_p: The share of the greatest probability to reach, at most 1; 0 keeps all.

    Returns:
        [batch, vocab], where the logits of all other tokens are -inf.
    """
    if min_p == 0.0:
        return logits
    smallest_kept = logits.amax(dim=-1, keepdim=True) + math.log(min_p)
    return logits.masked_fill(logits < smallest_kept, -math.inf)


def precise(values: Tensor) -> Tensor:
    """Return the values in float64 where the device has it, else in float32."""
    return values.double() if kind_of(values.device).has_float64 else values.float()


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the token at which the cumulative probability passes `uniform` (inverse transform).

        token = min(i),  p_1 + ... + p_i > u (p_1 + ... + p_V)

    The source is Devroye (1986, chapter III, section 2).

    Args:
        probabilities: [batch, vocab]; a row may sum to another number than 1.
        uniform: [batch] in [0, 1), on any device. float64 isn't rounded where the device of the
            probabilities has it: all 53 bits decide.

    Returns:
        [batch] int64.
    """
    cumulative = precise(probabilities).cumsum(dim=-1)
    threshold = uniform.to(cumulative) * cumulative[:, -1]
    token = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
    last_possible = (probabilities > 0).long().cumsum(dim=-1).argmax(dim=-1)
    return torch.minimum(token, last_possible)  # rounding must not pass it


def next_token(
    logits: Tensor,
    uniform: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    *,
    min_p: float = 0.0,
) -> Tensor:
    """Draw the next token of each row.

    Args:
        logits: [batch, vocab].
        uniform: [batch] in [0, 1), a random number for each row, as `draw` takes it.
        temperature: Divides the logits; 0 takes the most probable token.
        top_k: The number of most probable tokens to draw from; 0 keeps all.
        top_p: Draw from the most probable tokens that reach this probability together; 1 keeps all.
        min_p: Of these, draw from tokens at least this many times as probable as the most probable.

    Returns:
        [batch] int64.
    """
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    return draw(probabilities_of(logits, temperature, top_k, top_p, min_p), uniform)


def probabilities_of(
    logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> Tensor:
    """Return the probabilities by which tokens are drawn (Hinton et al. 2015, equation 1).

        p = softmax(z / tau)

    Args:
        logits: [batch, vocab].
        temperature: Divides the logits, above 0.
        top_k: The number of most probable tokens to draw from; 0 keeps all.
        top_p: Draw from the most probable tokens that reach this probability together; 1 keeps all.
        min_p: Of these, draw from tokens at least this many times as probable as the most probable.

    Returns:
        [batch, vocab] in float64 where the device has it; 0 for tokens that are never drawn.
    """
    logits = precise(logits)
    # a tiny temperature can't make inf - inf
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    kept = keep_min_p(keep_top_p(keep_top_k(scaled, top_k), top_p), min_p)
    return F.softmax(kept, dim=-1)


def token_logprobs(
    logits: Tensor, token: Tensor, top: int = 0, known: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the model's own log-probabilities of a token and of the most probable ones.

        log(p_i) = z_i - log(sum_j exp(z_j))

    It is the logarithm of softmax (Bridle 1990).

    Args:
        logits: [batch, vocab], before any penalty, bias or temperature.
        token: [batch] int64.
        top: The number of most probable tokens, at most vocab.
        known: The number of tokens that stand for something, where a model has more outputs; only
            these are listed. Probabilities are those among all outputs.

    Returns:
        The log-probability of `token` [batch], the most probable tokens [batch, top] int64, and
        their log-probabilities [batch, top]. The most probable token comes first, and of equal ones
        the one with the lower number. Log-probabilities are in nats, in float64 where the device
        has it.
    """
    logprobs = precise(logits).log_softmax(dim=-1)
    most = _most_probable(logits[:, :known], top)
    return logprobs.gather(-1, token[:, None])[:, 0], most, logprobs.gather(-1, most)


def _most_probable(logits: Tensor, count: int) -> Tensor:
    """Return the tokens of the largest logits, [batch, count], of equal ones the first."""
    if count < logits.size(-1):
        values, tokens = logits.topk(count + 1, dim=-1)
        if count == 0 or (values[:, count - 1] > values[:, count]).all():  # no others are equal
            tokens = tokens[:, :count].sort(dim=-1).values
            order = logits.gather(-1, tokens).sort(dim=-1, descending=True, stable=True).indices
            return tokens.gather(-1, order)
    return logits.sort(dim=-1, descending=True, stable=True).indices[:, :count]


def window_start(length: int, block_size: int) -> int:
    """Return where the part of a text begins that a model reads to predict its next token.

    A text that fits is read whole. When the context is full, its newest half is kept, and grows
    until the context is full again, so that a cache has to be filled anew only then.

    Args:
        length: The number of tokens of the text so far.
        block_size: The largest number of tokens that the model reads.

    Returns:
        The index of the first token that is read: at most `block_size` follow from there.
    """
    dropped = block_size - block_size // 2  # whenever the context is full
    return dropped * max(0, -(-(length - block_size) // dropped))


@torch.no_grad()
def generate(
    model: LanguageModel,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
    sliding: bool = False,
) -> Tensor:
    """Append sampled tokens, each drawn after those from `window_start` on, without a cache.

    Of a prompt that is longer than block_size the newest block_size tokens count. The tests compare
    faster ways to generate with this plain loop.

    Args:
        model: The model, whose mode (training or eval) stays as it is.
        tokens: [batch, time] int64, time >= 1.
        max_new_tokens: The number of tokens that are appended to each row.
        temperature: Divides the logits; 0 takes the most probable token.
        top_k: The number of most probable tokens to draw from; 0 keeps all.
        top_p: Draw from the most probable tokens that reach this probability together; 1 keeps all.
        generator: Where random numbers come from, on the CPU; torch's default one if left out.
        uniforms: [batch, max_new_tokens] float64 in [0, 1), on the CPU: the numbers to draw by, to
            the last of their 53 bits where the device has float64. No generator is asked then.
        sliding: Whether each token is drawn after the newest block_size ones instead.

    Returns:
        [batch, time + max_new_tokens] int64.
    """
    first = max(0, tokens.size(1) - model.block_size)  # of the prompt
    for number in range(max_new_tokens):
        start = first + window_start(tokens.size(1) - first, model.block_size)
        context = tokens[:, -model.block_size :] if sliding else tokens[:, start:]
        logits = model.logits(model.hidden(context)[:, -1])  # [batch, vocab]
        if uniforms is None:
            uniform = torch.rand(tokens.size(0), generator=generator).to(tokens.device)
        else:
            uniform = uniforms[:, number]  # `draw` takes it to the device
        newest = next_token(logits, uniform, temperature, top_k, top_p)
        tokens = torch.cat([tokens, newest[:, None]], dim=1)
    return tokens
