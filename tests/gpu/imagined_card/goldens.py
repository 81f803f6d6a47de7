"""Reads the goldens of the imagined card."""

import ast
import json
import re
from typing import Any

from imagined_card.sources import GOLDEN

READ = ["read float64[4]"]  # loss, hash, request to stop and norm
HEAD = "torch_nn::_linear_cross_entropy_batch_chunked_no_reduction"
FLASH = "aten::_scaled_dot_product_flash_attention"
# operation: which of its tensors are the factors
PRODUCTS = {
    "aten::mm": slice(0, 2),
    "aten::bmm": slice(0, 2),
    "aten::addmm": slice(1, 3),
    "aten::baddbmm": slice(1, 3),
    FLASH: slice(0, 3),
    f"{FLASH}_backward": slice(0, 5),
    HEAD: slice(0, 2),
}


def golden(name: str) -> dict[str, Any]:
    """What was recorded of a model."""
    return json.loads((GOLDEN / f"imagined-card-{name}.json").read_text("utf-8"))


def plain(operation: str) -> str:
    """An operation's name without its overload and the sign that it works in place."""
    return operation.partition(".")[0].removesuffix("_")


def tensors(said: str) -> list[tuple[str, list[int]]]:
    """Dtypes and shapes of tensors."""
    return [
        (dtype, ast.literal_eval(shape)) for dtype, shape in re.findall(r"(\w+)(\[.*?\])", said)
    ]
