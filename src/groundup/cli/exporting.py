"""`groundup export`: load, refuse what can't be, write or upload, say what was done."""

import sys
from pathlib import Path
from typing import Literal

from groundup.checkpoints.adapter_folder import is_adapter
from groundup.checkpoints.find import find_model
from groundup.checkpoints.model_folder import LoadedModel, load_folder
from groundup.errors import ExportError
from groundup.export.destination import appearing_whole, refuse_existing
from groundup.export.gguf import Kind, export_gguf
from groundup.export.hub_upload import (
    check_repository,
    files_to_upload,
    upload,
    whole_folder,
    write_folder,
)
from groundup.export.onnx import export_onnx, too_large_for_one_file, weights_file

Format = Literal["folder", "gguf", "onnx", "hub"]


def export_model(
    name: str,
    to: Format,
    repository: str | None,
    *,
    kind: Kind | None,
    out: Path | None,
    force: bool,
    public: bool,
) -> None:
    """Write a model for other programs, or upload it. Raises GroundupError, before anything is
    written.
    """
    _check_flags(to, repository, kind, public)
    loaded = load_folder(find_model(name).resolve())
    if repository is not None:
        summary = _to_hub(loaded, repository, out, force=force, public=public)
    elif to == "folder":
        out = out or Path(f"{loaded.title}-model")
        refuse_existing(out, force)
        summary = f"{out}: {_to_folder(loaded, out)}"
    elif to == "gguf":
        out = out or Path(f"{loaded.title}-{kind or 'f32'}.gguf")
        refuse_existing(out, force)
        summary = (
            f"{out}: "
            f"{export_gguf(loaded.model, loaded.tokenizer, out, kind or 'f32', loaded.title)}"
        )
    else:
        out = out or Path(f"{loaded.title}.onnx")
        refuse_existing(out, force)
        if too_large_for_one_file(loaded.model):
            refuse_existing(weights_file(out), force)
        summary = f"{out}: {export_onnx(loaded.model, out)}"
    sys.stdout.write(f"{summary}\n")


def _check_flags(to: Format, repository: str | None, kind: Kind | None, public: bool) -> None:
    """Raise ExportError for flags that another format takes."""
    if to == "hub":
        if repository is None:
            raise ExportError("--to hub needs the repository's name after it: --to hub OWNER/NAME")
        check_repository(repository)
    elif repository is not None:
        raise ExportError(f"{repository!r} is a name for --to hub. Where a file goes says --out")
    if to != "gguf" and kind is not None:
        others = (
            "ONNX is written in float32" if to == "onnx" else "elsewhere the weights go as they are"
        )
        raise ExportError(f"--type {kind} is for --to gguf: {others}")
    if to != "hub" and public:
        raise ExportError("--public is for --to hub")


def _to_folder(loaded: LoadedModel, out: Path) -> str:
    """A whole model as transformers loads it; what was written."""
    with appearing_whole(out) as path:
        loaded.save(path)
    merged = ", its adapters merged" if is_adapter(loaded.folder) else ""
    tokenizer = (
        "" if loaded.tokenizer else ", without a tokenizer: it has none that groundup writes"
    )
    return f"{loaded.description}{merged}{tokenizer}"


def _to_hub(
    loaded: LoadedModel, repository: str, out: Path | None, *, force: bool, public: bool
) -> str:
    """The upload, or with `out` the folder that would be uploaded."""
    if out is not None:
        refuse_existing(out, force)
    with whole_folder(loaded) as folder:
        files = files_to_upload(loaded, folder, repository)
        if out is not None:
            write_folder(files, out)
            return f"{out}: what would be uploaded to {repository}; nothing was: {', '.join(files)}"
        return (
            f"uploaded {', '.join(files)} to "
            f"{upload(files, repository, public=public, force=force)}"
        )
