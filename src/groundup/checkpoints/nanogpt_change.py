"""Measures what a model of nanoGPT loses or gains in groundup's form of it.

Two things change. Rows of the vocabulary that stand for no token are cut, so that the softmax has
fewer terms; and GELU, which nanoGPT computes exactly since June 2023, follows its tanh formula, as
in GPT-2 and in nanoGPT before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.data.shard_file import open_shard
from groundup.data.splits import check_range
from groundup.models.gpt2 import GPT2, MLP
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer

MOST = 4096  # tokens that are predicted
ROWS = 128  # logits that are looked at at once
SENTENCE = "What is past is prologue, and what is to come is yours and mine to write.\n"


@dataclass(frozen=True)
class Text:
    """What the change is measured on.

    Args:
        name: The text in words.
        tokens: [tokens] int64.
        is_whole: Whether all of nanoGPT's validation tokens are known.
        has_ends: Whether these have the token that ends documents.
    """

    name: str
    tokens: Tensor
    is_whole: bool
    has_ends: bool


@dataclass(frozen=True)
class Change:
    """What groundup's form of a model changes, measured on a text.

    Args:
        text: The text in words.
        tokens: The number of tokens that were predicted.
        loss: The mean loss in nats a token, with all rows and the exact GELU.
        loss_by_tanh: With all rows and GELU's tanh formula.
        loss_after: With the rows of the tokenizer's tokens alone: the loss of the new model.
        cut_probability: The mean probability of all rows that are cut, by the tanh formula.
        largest_difference: By how much a logit differs at most between the two forms of GELU.
    """

    text: str
    tokens: int
    loss: float
    loss_by_tanh: float
    loss_after: float
    cut_probability: float
    largest_difference: float


def text_for(tokenizer: Tokenizer, validation: Path) -> Text:
    """Return the first tokens of nanoGPT's `val.bin`, or a sentence where there is no such file.

    Of the sentence the characters that the tokenizer knows are used, or else all of its characters.

    Raises:
        CorpusError: The file is damaged, or has a token that the tokenizer lacks.
    """
    if validation.is_file():
        tokens, end = open_shard(validation).tokens, tokenizer.end_of_text
        check_range(tokens, str(validation), tokenizer.vocab_size)
        has_ends = end is not None and bool((tokens == end).any())
        first = torch.from_numpy(tokens[: MOST + 1].astype(np.int64))
        return Text(f"{validation}", first, is_whole=True, has_ends=has_ends)
    text = SENTENCE
    if isinstance(tokenizer, CharacterTokenizer):
        known = set(tokenizer.characters)
        text = "".join(filter(known.__contains__, SENTENCE)) or "".join(tokenizer.characters)
    tokens = torch.from_numpy(tokenizer.encode(text).astype(np.int64))
    return Text("a sentence", tokens, is_whole=False, has_ends=False)


@torch.no_grad()
def change_of(model: GPT2, kept: int, text: Text) -> Change:
    """Measure what changes when a model keeps its first rows alone and GELU is the tanh formula.

    The loss with the kept rows is logsumexp(z[:kept]) - z[target] for logits z, the loss before
    logsumexp(z) - z[target]; the probability of the cut rows is 1 - exp of their difference.

    Args:
        model: The model in eval mode, with all of its rows.
        kept: The number of rows of the vocabulary that are kept, at least 1.
        text: The text, of 2 tokens or more.
    """
    time = min(model.block_size, len(text.tokens) - 1)
    count = (len(text.tokens) - 1) // time
    tokens = text.tokens[: count * time].view(count, time)
    targets = text.tokens[1 : count * time + 1]
    by_tanh = model.hidden(tokens).flatten(0, 1)
    with _exact_gelu(model):
        exactly = model.hidden(tokens).flatten(0, 1)
    sums, largest = torch.zeros(4, dtype=torch.float64), 0.0
    for rows in torch.arange(len(targets)).split(ROWS):
        logits, exact = (model.logits(hidden[rows]).double() for hidden in (by_tanh, exactly))
        target = targets[rows, None]
        every, some = logits.logsumexp(-1), logits[:, :kept].logsumexp(-1)
        right = logits.gather(-1, target)[:, 0]
        before = F.cross_entropy(exact, target[:, 0], reduction="none")
        found = [before, every - right, some - right, -torch.expm1(some - every)]
        sums += torch.stack([each.sum() for each in found])
        largest = max(largest, float((logits - exact)[:, :kept].abs().max()))
    loss, by_formula, after, probability = (sums / len(targets)).tolist()
    measured = loss, by_formula, after, probability, largest
    return Change(text.name, len(targets), *measured)


@contextmanager
def _exact_gelu(model: GPT2) -> Iterator[None]:
    """Let a model's MLPs compute x times the probability that a normal variable is below x."""

    def exactly(mlp: MLP, inputs: tuple[Any, ...], _output: Tensor) -> Tensor:
        return mlp.c_proj(F.gelu(mlp.c_fc(inputs[0])))

    networks = [module for module in model.modules() if isinstance(module, MLP)]
    hooks = [network.register_forward_hook(exactly) for network in networks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
