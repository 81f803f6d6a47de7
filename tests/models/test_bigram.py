"""The bigram has a closed form: trained, its table is the text's counts of what follows what."""

import math
from collections import Counter

import pytest
import torch

from groundup.models.bigram import Bigram
from groundup.models.config import GPTConfig

TEXT = "the cat sat on the mat; that hat, the cat thought, is at the cat's attic. "


def test_gradient_descent_finds_the_counts() -> None:
    characters = sorted(set(TEXT))
    ids = torch.tensor([characters.index(character) for character in TEXT])
    inputs, targets = ids[None, :-1], ids[None, 1:]
    torch.manual_seed(0)
    model = Bigram(GPTConfig(block_size=len(TEXT), vocab_size=len(characters)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    for _ in range(300):
        _, loss = model(inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    pairs = Counter(zip(inputs[0].tolist(), targets[0].tolist(), strict=True))
    firsts = Counter(inputs[0].tolist())
    pair_count = len(TEXT) - 1
    entropy = -sum(n / pair_count * math.log(n / firsts[first]) for (first, _), n in pairs.items())
    # nothing that sees one token can be better than the counts
    assert loss.item() >= entropy - 1e-6
    assert loss.item() == pytest.approx(entropy, abs=2e-3)
    probabilities = model(torch.arange(len(characters))[None])[0][0].softmax(dim=-1)
    for first in firsts:
        for second in range(len(characters)):
            expected = pairs[first, second] / firsts[first]
            assert probabilities[first, second].item() == pytest.approx(expected, abs=5e-3)
