"""`groundup export`: load, refuse what can't be, write or upload, say what was done."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from groundup.checkpoints.model_folder import LoadedModel

Format = Literal["folder", "gguf", "onnx", "hub"]
Kind = Literal["f32", "f16", "bf16", "q8_0"]


def export(
    model: str,
    repository: str | None = None,
    /,
    *,
    to: Format,
    kind: Annotated[Kind | None, Parameter(name="--type")] = None,
    out: Path | None = None,
    force: bool = False,
    public: bool = False,
    card: bool = False,
) -> None:
    """Hand a model to transformers (folder), to llama.cpp and Ollama (gguf), to ONNX, to the hub.

    Args:
        model: A run's name, the path of a run or a model folder, or a model of the hub: gpt2,
            OWNER/NAME.
        repository: With --to hub: OWNER/NAME.
        to: Hugging Face's folder, adapters merged; llama.cpp's file, a graph, or Hugging Face's
            hub.
        kind: Of GGUF's matrices: f32 if left out; q8_0 is a quarter as large.
        out: Where to write. With --to hub: a folder to look at, and nothing is uploaded.
        force: Replace a file that exists, or add to a repository that does.
        public: With --to hub: a new repository is for everybody.
        card: With --to hub --force: replace the repository's README.md too.
    """
    import sys

    from groundup.checkpoints.find import find_model
    from groundup.checkpoints.model_folder import load_folder

    _check_flags(to, repository, kind, public or card)
    loaded = load_folder(find_model(model).resolve())
    if repository is not None:
        how = {"public": public, "force": force, "card": card}
        summary = _to_hub(loaded, repository, out, how)
    else:
        summary = _to_file(loaded, to, kind or "f32", out, force)
    sys.stdout.write(f"{summary}\n")


def _check_flags(to: Format, repository: str | None, kind: Kind | None, of_hub: bool) -> None:
    """Raise ExportError for flags that another format takes."""
    from groundup.errors import ExportError
    from groundup.export.hub_upload import check_repository

    if to == "hub":
        if repository is None:
            raise ExportError("--to hub needs the repository's name after it: --to hub OWNER/NAME")
        check_repository(repository)
    elif repository is not None:
        raise ExportError(f"{repository!r} is a name for --to hub. Where a file goes says --out")
    if to != "gguf" and kind is not None:
        onnx, others = "ONNX is written in float32", "elsewhere the weights go as they are"
        raise ExportError(f"--type {kind} is for --to gguf: {onnx if to == 'onnx' else others}")
    if to != "hub" and of_hub:
        raise ExportError("--public and --card are for --to hub")


def _to_file(loaded: "LoadedModel", to: Format, kind: Kind, out: Path | None, force: bool) -> str:
    """A folder or a file for other programs; what was written, in a line."""
    from groundup.export.destination import export_folder, refuse_existing
    from groundup.export.gguf import export_gguf
    from groundup.export.onnx import export_onnx, too_large_for_one_file, weights_file

    endings = {"folder": "-model", "gguf": f"-{kind}.gguf", "onnx": ".onnx"}
    out = out or Path(f"{loaded.title}{endings[to]}")
    refuse_existing(out, force)
    if to == "folder":
        return f"{out}: {export_folder(loaded, out)}"
    if to == "gguf":
        what = loaded.model, loaded.tokenizer, out, kind, loaded.title
        return f"{out}: {export_gguf(*what, conventions=loaded.conventions)}"
    if too_large_for_one_file(loaded.model):
        refuse_existing(weights_file(out), force)
    return f"{out}: {export_onnx(loaded.model, out)}"


def _to_hub(loaded: "LoadedModel", repository: str, out: Path | None, how: dict[str, bool]) -> str:
    """The upload, or with `out` the folder that would be uploaded."""
    from groundup.export.destination import refuse_existing
    from groundup.export.hub_upload import files_to_upload, upload, whole_folder, write_folder

    if out is not None:
        refuse_existing(out, how["force"])
    with whole_folder(loaded) as folder:
        files = files_to_upload(loaded, folder, repository)
        if out is not None:
            write_folder(files, out)
            return f"{out}: what would be uploaded to {repository}; nothing was: {', '.join(files)}"
        return upload(files, repository, **how)
