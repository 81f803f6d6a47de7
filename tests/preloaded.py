"""What the processes of commands.py find ready: modules that commands import, a plot's fonts.

A server imports this file once and forks the processes. Nothing here may read the environment that
tests change, as huggingface_hub does on import, nor start a thread.
"""

import importlib
from io import BytesIO

# torch._inductor belongs to torch's deterministic mode, torch._dynamo to whatever is compiled or
# counted. commands.py is where a process begins.
MODULES = [
    *(
        "groundup.cli.main",
        "groundup.cli.training",
        "groundup.cli.generate",
        "groundup.cli.evaluate",
    ),
    *("torch._inductor", "torch._dynamo", "torch.distributed", "rich.table", "rich.progress"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.PngImagePlugin"),
    *("commands", "hypothesis", "regex", "tiktoken", "tokenizers", "pyarrow.parquet", "gguf"),
]


def draw() -> None:
    """A first picture, which finds the fonts for all."""
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="loss")
    axes.set_title("loss")
    axes.legend()
    figure.savefig(BytesIO(), format="png")


for name in MODULES:
    importlib.import_module(name)
draw()
