"""A step of all slots as one graph: the model's numbers, and only slots that write change."""

import pytest
import torch

from conftest import model_of, perturb
from groundup import GPTConfig
from groundup.generation.graph import StepGraph
from groundup.generation.slots import Slots
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern

CONFIG = GPTConfig(block_size=32, vocab_size=31, n_layer=2, n_head=4, n_embd=32)
CPU = torch.device("cpu")


def made(architecture: str) -> GPT2 | Modern:
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG)
    perturb(model, scale=0.3)
    assert isinstance(model, GPT2 | Modern)
    return model.double().eval()


def check(architecture: str, mode: str | None) -> None:
    """Write texts of several lengths, up to the whole context, beside slots that hold others."""
    model, tokens = made(architecture), torch.randint(31, (3, 32))
    slots = Slots(model, 5, 32, CPU, spare=True)
    with torch.inference_mode():
        for slot, text in enumerate(tokens):  # slot 1 waits, and is read before it writes
            model.hidden(text[None, :20], slots.reading(slot, 0))
        graph, before = StepGraph(model, slots, mode), slots.memory[:, :, 1, :, :32].clone()
        for length in range(21, 33):
            newest = tokens[[2, 0], length - 1]
            found = graph.step(newest, [2, 0], [length, length])
            expected = model(tokens[[2, 0], :length])[0][:, -1]
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert torch.equal(slots.memory[:, :, 1, :, :32], before)
        found = graph.step(tokens[[1, 2], [20, 31]], [1, 2], [21, 32])
        expected = torch.cat([model(tokens[None, 1, :21])[0], model(tokens[None, 2])[0]], dim=1)
        torch.testing.assert_close(found, expected[0, [20, 52]], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_it_writes_what_the_model_says(architecture: str) -> None:
    check(architecture, None)


@pytest.mark.long
def test_it_is_one_graph_that_compiles() -> None:
    check("modern", "default")


def test_the_spare_place_is_beyond_the_room() -> None:
    for room in (1, 31, 32):
        assert Slots(made("gpt2"), 1, room, CPU, spare=True).memory.size(-2) > room
