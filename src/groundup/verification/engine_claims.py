"""The claims about the engine: a function for each measures how far it is from true here."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from groundup.generation.engine import Engine
from groundup.generation.pool import Pool
from groundup.generation.sampler import Sampler
from groundup.generation.settings import SamplingSettings
from groundup.generation.texts import Choice
from groundup.generation.writer import Precision
from groundup.machine.kinds import kind_of
from groundup.models.registry import Model
from groundup.models.sampling import generate, uniform_of, uniforms_of
from groundup.verification.claims import NEW_TOKENS, prompt_for
from groundup.verification.differences import relative, relative_of_norms
from groundup.verification.model_under_test import Measurement, ModelUnderTest, Skipped

# of logits less their mean, which says nothing: the norm of the difference over their norm
IN_FLOAT32, IN_BFLOAT16, IN_INT8 = 1e-5, 0.05, 0.1


class Recorder:
    """A model for the plain loop, which keeps the logits: [1, vocab] for each token."""

    def __init__(self, model: Model) -> None:
        self.model, self.block_size, self.kept = model, model.block_size, list[Tensor]()

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the model's hidden states."""
        return self.model.hidden(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """Keep and return the model's logits."""
        self.kept.append(self.model.logits(hidden))
        return self.kept[-1]


class Follower(Sampler):
    """Draws as the engine does, but lets the text go on as it is told, to compare all of it."""

    def __init__(self, choice: Choice, text: Sequence[int]) -> None:
        super().__init__(choice.request.settings, choice.number, choice.request.prompt)
        self.text, self.drawn, self.kept = text, list[int](), list[Tensor]()
        self.logprobs = list[float]()  # of the text's tokens

    def draw(self, logits: Tensor, written: Sequence[int]) -> Tensor:
        """Note the token that the engine would draw, and return that of the text."""
        self.kept.append(logits)
        self.drawn.append(int(super().draw(logits, written)))
        return torch.tensor([self.text[len(written)]], device=logits.device)


def engine_is_plain_loop(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare the engine, as `groundup generate` has it, with the plain loop in float32.

    The engine follows the plain loop's text, so that each token can be compared. A token counts
    where no logits within the bound would draw another one. Log-probabilities are the model's own,
    whatever the temperature.
    """
    model, prompt = _plain(tested), prompt_for(tested)[0].tolist()
    engine = _engine(tested, prompt, Precision())
    bound = IN_FLOAT32 if engine.writer.dtype in (torch.float32, torch.float64) else IN_BFLOAT16
    errors, errors_of_logprobs = [], []
    for name, temperature in {"greedy": 0.0, "sampled": 0.8}.items():
        settings = SamplingSettings(length=NEW_TOKENS, temperature=temperature, seed=1)
        text, expected = _plain_text(model, prompt, settings)
        follower = _followed(engine, prompt, settings, text)
        unequal = sum(
            one != other and _is_certain(logits, number, other, settings, bound)
            for number, (one, other, logits) in enumerate(
                zip(follower.drawn, text, expected, strict=True)
            )
        )
        yield Measurement(f"{name}, tokens", unequal, 0.0)
        errors.append(_error(follower.kept, expected))
        logprobs = torch.cat(expected).cpu().double().log_softmax(dim=-1)
        own = logprobs.gather(-1, torch.tensor(text)[:, None])[:, 0]
        errors_of_logprobs.append(relative(torch.tensor(follower.logprobs), own))
    yield Measurement("logits", torch.tensor(errors).max().item(), bound)
    yield Measurement("log-probabilities", torch.tensor(errors_of_logprobs).max().item(), bound)


def int8_is_within_its_bound(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Compare logits by int8 weights, as `groundup generate --quantize int8` has them."""
    prompt, settings = (
        prompt_for(tested)[0].tolist(),
        SamplingSettings(length=NEW_TOKENS, temperature=0.0),
    )
    text, expected = _plain_text(_plain(tested), prompt, settings)
    engine = _engine(tested, prompt, Precision(quantize="int8"))
    yield Measurement("", _error(_followed(engine, prompt, settings, text).kept, expected), IN_INT8)


def _plain(tested: ModelUnderTest) -> Model:
    """Return the model for the plain loop: in float32, or in float64 where that is its own."""
    return tested.copied(torch.float64 if tested.dtype == torch.float64 else torch.float32)


def _engine(tested: ModelUnderTest, prompt: Sequence[int], precision: Precision) -> Engine:
    model, room = tested.copied(tested.dtype), len(prompt) + NEW_TOKENS
    return Engine(model, slots=1, room=room, precision=precision)


def _plain_text(
    model: Model, prompt: Sequence[int], settings: SamplingSettings
) -> tuple[list[int], list[Tensor]]:
    """Return what the plain loop writes, and its logits for each token."""
    recorder, device = Recorder(model), next(model.parameters()).device
    found = generate(
        recorder,
        torch.tensor([prompt], device=device),
        settings.length,
        temperature=settings.temperature,
        uniforms=uniforms_of(settings.seed, 0, settings.length),
    )
    return found[0, len(prompt) :].tolist(), recorder.kept


def _followed(
    engine: Engine, prompt: Sequence[int], settings: SamplingSettings, text: Sequence[int]
) -> Follower:
    """Let the engine write along a text, and return what it would have drawn."""
    choice = engine.submit(prompt, settings, logprobs=0).choices[0]
    choice.sampler = follower = Follower(choice, text)
    follower.logprobs += [written.score.logprob for written in choice if written.score]
    return follower


def _error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the error of the logits of all tokens, [1, vocab] each."""
    return relative_of_norms(_centred(torch.cat([*found])), _centred(torch.cat([*expected])))


def _centred(logits: Tensor) -> Tensor:
    logits = logits.detach().cpu().double()
    return logits - logits.mean(dim=-1, keepdim=True)


def _is_certain(
    logits: Tensor, position: int, token: int, settings: SamplingSettings, bound: float
) -> bool:
    """Return whether logits within the bound of these draw this token, and no other."""
    centred = _centred(logits)[0]
    distance = bound * centred.norm().item()  # so far can each of them be off
    if settings.temperature == 0.0:
        others = centred.clone()
        others[token] = -torch.inf
        return (centred[token] - others.max()).item() > 2 * distance
    # odds change by a factor of e^(2 distance / temperature) at most, and a probability by a
    # quarter of the exponent
    cumulative = (centred / settings.temperature).softmax(dim=-1).cumsum(dim=-1)
    uniform = uniform_of(settings.seed, 0, position)
    low = cumulative[token - 1].item() if token else -torch.inf
    high = cumulative[token].item() if token < len(centred) - 1 else torch.inf
    return min(uniform - low, high - uniform) > distance / (2 * settings.temperature)


@dataclass(frozen=True)
class Asked:
    """A request, and what was written for it in company.

    Args:
        prompt: The tokens of the prompt.
        settings: How the texts are drawn.
        choices: The texts.
    """

    prompt: list[int]
    settings: SamplingSettings
    choices: tuple[Choice, ...]


def alone_is_in_company(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Count the tokens that differ, or whose log-probabilities do in a bit, beside other texts.

    Requests are written together, of which one is cancelled. Another one joins them, and one begins
    with all that the first one has read and written. At last an error ends a step, after which no
    slot may be in use.
    """
    if kind_of(tested.device).is_gpu:
        raise Skipped("a GPU adds in another order for more texts: their last bits may differ")
    model, block_size = tested.copied(tested.dtype), tested.model.block_size
    engine = Engine(model, slots=5, room=min(512, max(64, block_size // 2)) + 3 * NEW_TOKENS)
    beside, joined, after_hit = _written_together(engine, tested)
    for name, asked in (
        ("side by side", beside),
        ("joined midway", joined),
        ("after a hit", after_hit),
    ):
        unequal = sum(_count_unequal(engine, each) for each in asked)
        yield Measurement(name, unequal, 0.0)
    yield Measurement("after an error", _after_an_error(engine, beside[0]), 0.0)


def _written_together(engine: Engine, tested: ModelUnderTest) -> tuple[list[Asked], ...]:
    """Write texts beside others: together from the beginning, later, and after a hit."""

    def ask(prompt: list[int], choices: int = 1, **change: Any) -> Asked:
        settings = replace(mixed, **change)
        request = engine.submit(prompt, settings, choices, logprobs=1)
        return Asked(prompt, settings, request.choices)

    mixed = SamplingSettings(length=NEW_TOKENS, temperature=0.8, top_k=9, seed=1)
    piece = engine.pool.piece
    # some steps later the first text's second piece is whole, but it wasn't read at once
    text = tested.tokens(rows=1, time=2 * piece - 3)[0, 1:].tolist()
    first = ask(text, temperature=0.0)
    several = ask(text[: piece + 1], 2, frequency_penalty=0.5, min_p=0.01)
    cancelled = ask(text[:2])
    for _ in range(4):
        engine.step()
    joined = ask(text[:3], temperature=1.2, top_p=0.9, top_k=0)
    for _ in range(6):
        engine.step()
    engine.cancel(cancelled.choices[0])
    after_hit = ask([*first.choices[0].window], seed=2, repetition_penalty=1.2)
    while engine.step():
        pass
    return [first, several, cancelled], [joined], [after_hit]


def _count_unequal(engine: Engine, asked: Asked) -> int:
    """Count the tokens that differ from those that are written alone, or their scores.

    Of a cancelled text the beginning counts.
    """
    unequal = 0
    for choice in asked.choices:
        engine.pool = Pool(engine.pool.slots, engine.pool.room, engine.pool.piece)  # no hits
        expected = engine.submit(
            asked.prompt, asked.settings, logprobs=1, first_choice=choice.number
        )
        written, others = list(choice), list(expected)
        unequal += sum(one != other for one, other in zip(written, others, strict=False))
        unequal += choice.finish != "cancelled" and len(written) != len(others)
    return unequal


def _after_an_error(engine: Engine, asked: Asked) -> int:
    """Let a step fail, and count the slots that stay in use and the tokens that differ then."""

    def fail(_hidden: Tensor) -> Tensor:
        raise FloatingPointError("an error that is made to see what follows")

    vars(engine.writer)["logits"] = fail
    engine.submit(asked.prompt, asked.settings, 2)
    with suppress(FloatingPointError):
        while engine.step():
            pass
    del vars(engine.writer)["logits"]
    again = engine.submit(asked.prompt, asked.settings).choices[0]
    for _ in again:
        continue
    unequal = again.tokens != asked.choices[0].tokens
    return engine.pool.slots - engine.pool.free + unequal
