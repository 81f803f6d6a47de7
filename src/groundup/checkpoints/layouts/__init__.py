"""How models are spelled in Hugging Face's folders: a file for each family, with its names,
transposes and config.
"""

from groundup.checkpoints.layouts import gpt2, qwen3
from groundup.checkpoints.layouts.layout import Layout

LAYOUTS: dict[str, Layout] = {"gpt2": gpt2, "qwen3": qwen3}  # by the model_type of config.json


def layout_of(architecture: str) -> Layout:
    """The layout that writes models of that name."""
    return next(layout for layout in LAYOUTS.values() if architecture in layout.ARCHITECTURES)
