"""A model as a graph of any length: torch.jit.trace, which OpenVINO uses too, and torch.export."""

import warnings
from collections.abc import Callable

import pytest
import torch

from conftest import model_of, perturb
from groundup.export.onnx import Logits
from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.modern import Modern
from groundup.models.registry import MODELS, Model
from groundup.verification.differences import relative_of_norms

Graph = Callable[[torch.Tensor], torch.Tensor]

LENGTHS = (5, 127, 128, 300, 512, 600)  # a model in bfloat16 attends in another way from 128 to 512


def example(name: str, dtype: torch.dtype) -> Model:
    torch.manual_seed(0)
    if name == "grouped":
        model = Modern(ModernConfig(700, 11, 2, 4, 2, 8, 4, 16))
    else:
        model = model_of(name, GPTConfig(700, 11, n_layer=2, n_head=2, n_embd=8))
    perturb(model, scale=0.3)
    return model.eval().to(dtype)


def tokens(rows: int, time: int) -> torch.Tensor:
    return torch.randint(0, 11, (rows, time), generator=torch.Generator().manual_seed(time))


@pytest.mark.parametrize("name", [*MODELS, "grouped"])
def test_a_trace_holds_for_every_length(name: str) -> None:
    check(name, torch.float32, traced, 1e-6)


@pytest.mark.parametrize("name", ["gpt2", "grouped"])
@pytest.mark.parametrize("way", ["traced", "exported"])
def test_a_graph_in_bfloat16_holds_for_every_length(name: str, way: str) -> None:
    check(name, torch.bfloat16, {"traced": traced, "exported": exported}[way], 0.05)


def traced(logits: Logits) -> Graph:
    with warnings.catch_warnings(action="ignore"):  # that a length was looked at
        return torch.jit.trace(logits, (tokens(2, 200),))


def exported(logits: Logits) -> Graph:
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time", max=700)},)
    return torch.export.export(logits, (tokens(2, 9),), dynamic_shapes=shapes).module()


def check(name: str, dtype: torch.dtype, graph_of: Callable[[Logits], Graph], bound: float) -> None:
    model = example(name, dtype)
    graph = graph_of(Logits(model))
    for time in LENGTHS:
        found, expected = graph(tokens(3, time)), model(tokens(3, time))[0]
        assert relative_of_norms(found, expected) <= bound, time
