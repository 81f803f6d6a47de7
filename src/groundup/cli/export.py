"""`groundup export` on the command line: as thin and as lazy as the rest of it."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def export(
    model: Annotated[
        str,
        Parameter(
            help=(
                "A run's name, the path of a run or a model folder, or a model of the hub: gpt2, "
                "OWNER/NAME."
            )
        ),
    ],
    repository: Annotated[str | None, Parameter(help="With --to hub: OWNER/NAME.")] = None,
    /,
    *,
    to: Annotated[
        Literal["folder", "gguf", "onnx", "hub"],
        Parameter(
            help=(
                "Hugging Face's folder, adapters merged; llama.cpp's file, a graph, or Hugging "
                "Face's hub."
            )
        ),
    ],
    kind: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"] | None,
        Parameter(
            name="--type", help="Of GGUF's matrices: f32 if left out; q8_0 is a quarter as large."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(
            help="Where to write. With --to hub: a folder to look at, and nothing is uploaded."
        ),
    ] = None,
    force: Annotated[
        bool,
        Parameter(
            help="Replace a file that exists, or add to a repository that does.", negative=()
        ),
    ] = False,
    public: Annotated[
        bool, Parameter(help="With --to hub: a new repository is for everybody.", negative=())
    ] = False,
) -> None:
    """Hand a model to other programs: transformers (folder), llama.cpp and Ollama (gguf), ONNX, or
    the hub.
    """
    from groundup.cli.exporting import export_model

    export_model(model, to, repository, kind=kind, out=out, force=force, public=public)
