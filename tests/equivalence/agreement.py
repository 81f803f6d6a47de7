"""What `readable.py` and `gpt2.py` must agree on: shared by the proof, and by the tests that break
it on purpose.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conftest import perturb
from groundup.models import correspondence
from groundup.models.config import GPTConfig
from groundup.models.gpt2 import GPT2
from groundup.models.readable import ReadableGPT
from groundup.optim.groups import RULES, Rule, build_optimizers
from groundup.recipes.schema import OptimSection
from groundup.verification.model_under_test import gradients_of


@dataclass(frozen=True)
class Twins:
    """Two models that should compute the same, in float64."""

    readable: ReadableGPT
    gpt2: GPT2


def twins(config: GPTConfig, seed: int = 0) -> Twins:
    """A readable model with every tensor moved far from its initial value, and the GPT-2 that it
    maps to.
    """
    torch.manual_seed(seed)
    readable = ReadableGPT(config).double()
    perturb(readable, seed, scale=0.5)  # so large that attention is sharp
    gpt2 = GPT2(config).double()
    gpt2.load_state_dict(as_gpt2(readable.state_dict(), config))
    return Twins(readable, gpt2)


def as_gpt2(weights: correspondence.Weights, config: GPTConfig) -> correspondence.Weights:
    """Readable tensors under GPT-2's names; through the module, so that a test can break
    the map.
    """
    return correspondence.gpt2_from_readable(weights, config.n_layer, config.n_head)


def batch_for(config: GPTConfig, batch: int, time: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random tokens and targets: [batch, time] int64 each."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, config.vocab_size, (2, batch, time), generator=generator)
    return tokens[0], tokens[1]


def assert_close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Equal shapes, and no difference above `tolerance`; a NaN anywhere is a difference."""
    assert found.shape == expected.shape, (
        f"{what}: {list(found.shape)} against {list(expected.shape)}"
    )
    difference = (found - expected).abs().max().item()
    assert difference <= tolerance, f"{what} differ by {difference:.3g}, more than {tolerance:g}"


def assert_same_computation(
    pair: Twins, tokens: Tensor, targets: Tensor, tolerance: float = 1e-12
) -> None:
    """Logits, loss and every gradient, one that is large in relation to its size: a narrow layer
    norm makes it 30.
    """
    pair.readable.zero_grad()
    pair.gpt2.zero_grad()
    logits, loss = pair.readable(tokens, targets)
    fast_logits, fast_loss = pair.gpt2(tokens, targets)
    assert_close(fast_logits, logits, tolerance, "logits")
    assert_close(fast_loss, loss, tolerance, "losses")
    loss.backward()
    fast_loss.backward()
    expected = as_gpt2(gradients_of(pair.readable), pair.readable.config)
    found = gradients_of(pair.gpt2)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(1.0, gradient.abs().max().item())
        assert_close(found[name], gradient, tolerance * scale, f"gradients of {name}")


def assert_same_training(
    pair: Twins,
    section: OptimSection,
    *,
    rules: tuple[Rule, ...] = RULES["gpt2"],
    fast_clip_norm: float | None = None,
) -> None:
    """Every weight after 20 clipped steps, to 1e-10; what comes by keyword is there to be broken,
    for GPT-2.
    """
    config = pair.readable.config
    fast_clip_norm = section.clip_norm if fast_clip_norm is None else fast_clip_norm
    sides = [
        (
            pair.readable,
            build_optimizers(pair.readable, RULES["readable"], section, torch.float64),
            section.clip_norm,
        ),
        (pair.gpt2, build_optimizers(pair.gpt2, rules, section, torch.float64), fast_clip_norm),
    ]
    steps, clipped = 20, 0
    for step in range(steps):
        tokens, targets = batch_for(config, batch=3, time=config.block_size, seed=step)
        for model, optimizers, clip_norm in sides:
            _, loss = model(tokens, targets)
            loss.backward()
            clipped += int(
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm) > section.clip_norm
            )
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    assert clipped > steps, "clipping was never put to the test"
    found, expected = pair.gpt2.state_dict(), as_gpt2(pair.readable.state_dict(), config)
    for name, weight in expected.items():
        assert_close(found[name], weight, 1e-10, f"weights {name}")


def assert_same_text(pair: Twins, prompt: Tensor, length: int = 64) -> None:
    """The same greedy tokens, from models that don't repeat one for ever (random weights mostly do:
    choose a seed).
    """
    readable = pair.readable.generate(prompt, length, temperature=0.0)
    assert readable.shape == (prompt.size(0), prompt.size(1) + length)
    written = readable[:, prompt.size(1) :]
    assert (written[:, 1:] != written[:, :-1]).sum() > 50, "such monotonous text shows nothing"
    assert torch.equal(pair.gpt2.generate(prompt, length, temperature=0.0), readable), (
        "greedy tokens differ"
    )
