"""A model as an ONNX graph from tokens to logits, of any batch and any length up to its context."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from groundup.export.destination import appearing_whole, require
from groundup.models.registry import Model, count_parameters

# bytes of weights: protobuf ends at 2 GiB, graph and names included
LARGEST_IN_ONE_FILE = 1_900_000_000


class Logits(nn.Module):
    """A model without its loss: tokens [batch, time] -> logits [batch, time, vocab] float32."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)[0]


def weights_file(out: Path) -> Path:
    """Return the path of the weights' own file, for weights too large for the graph's file."""
    return out.with_name(f"{out.name}.data")


def too_large_for_one_file(model: Model) -> bool:
    """Return whether the weights, in float32, need a file of their own."""
    return 4 * count_parameters(model) > LARGEST_IN_ONE_FILE


def export_onnx(model: Model, out: Path) -> str:
    """Write a model as an ONNX graph, with large weights in a file of their own.

    The graph computes in float32, whatever the precision of the model is.

    Args:
        model: The model, on the CPU.
        out: Where to write.

    Returns:
        A line that says what the graph takes and gives.

    Raises:
        MachineError: The packages onnx and onnxscript aren't installed.
        ExportError: A file can't be written. Then nothing is written.
    """
    require("onnx", "onnx", "onnxscript")
    logits = Logits(model).float().eval()
    tokens = torch.zeros(2, min(3, model.block_size), dtype=torch.int64)
    length = torch.export.Dim("time", max=model.block_size) if model.block_size > 1 else None
    with appearing_whole(out) as path, _quietly():
        torch.onnx.export(
            logits,
            (tokens,),
            path,
            dynamo=True,
            verbose=False,
            input_names=["tokens"],
            output_names=["logits"],
            dynamic_shapes={"tokens": {0: torch.export.Dim("batch"), 1: length}},
            external_data=too_large_for_one_file(model),
        )
    given = f"logits [batch, time, {model.config.vocab_size:,}] float32"
    return f"tokens [batch, time] int64, time up to {model.block_size:,} -> {given}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter tells its own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
