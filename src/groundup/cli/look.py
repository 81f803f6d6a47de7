"""`groundup look`: a page that shows what happens inside a model, as one file."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.cli.flags import WriterFlags
from groundup.errors import ExportError, GroundupError

if TYPE_CHECKING:
    from groundup.page.recording import Recorder

logger = logging.getLogger(__name__)

LARGE = 5_000_000  # bytes: more is written only where layers were chosen
ALL = "all"


def look(
    model: str,
    other: str | None = None,
    /,
    *,
    text: str | None = None,
    file: Path | None = None,
    out: Path | None = None,
    position: int | None = None,
    layers: str | None = None,
    device: str = "auto",
    force: bool = False,
    weights: WriterFlags = WriterFlags(),
) -> None:
    """Write a page that shows what happens inside a model while it reads a text.

    The page is one file, which opens in any browser without a server.

    Args:
        model: A run, the path of a run or model folder, gpt2, or OWNER/NAME of the hub.
        other: A second model, to be compared on the same text.
        text: The text.
        file: A file with the text, in place of --text.
        out: Where to write; MODEL.html if left out.
        position: The token whose way is shown step by step, from 0; -1 is the last one. If left
            out it is the last but one, whose next token the text knows.
        layers: The layers that are shown whole, as 0,5,11, or all; left out, all are if the page
            is below 5 MB then. They count from 0, and on the page from 1.
        device: auto, cpu, cuda, cuda:1 or mps.
        force: Replace a file that exists.
        weights: The weights that the model computes with, and what multiplies them.
    """
    import sys

    from groundup.export.destination import appearing_whole, refuse_existing

    shown, chosen = _text(text, file), _layers(layers)
    recorders = [_recorder(name, shown, device, weights) for name in (model, other) if name]
    out = out or Path(f"{recorders[0].loaded.title}.html")
    refuse_existing(out, force)
    page = _page(recorders, position, chosen)
    size = len(page.encode("utf-8"))
    if size > LARGE and layers is None:
        several = "--layers 0,1 for some layers, or --layers all for all of them"
        raise ExportError(f"the page would have {size / 1e6:.1f} MB: give {several}")
    with appearing_whole(out) as path:
        path.write_text(page, "utf-8")
    read = [f"{len(each.inspection.tokens):,} of {each.loaded.title}" for each in recorders]
    sys.stdout.write(f"{out}: tokens: {' and '.join(read)}; {size / 1e6:.2f} MB\n")


def _page(recorders: list["Recorder"], position: int | None, layers: list[int] | None) -> str:
    """Record how the models read the text, and put that into a page."""
    from groundup.page.files import one_file
    from groundup.page.recording import recording

    return one_file(recording(recorders, position, layers), f"{_names(recorders)} · groundup")


def _names(recorders: list["Recorder"]) -> str:
    return " and ".join(each.loaded.title for each in recorders)


def _text(text: str | None, file: Path | None) -> str:
    """Return the text that was given. Raises GroundupError."""
    if (text is None) == (file is None):
        raise GroundupError("what is to be read? Give --text TEXT or --file FILE, one of them")
    if file is None:
        assert text is not None
        return text
    try:
        return file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise GroundupError(f"{file} can't be read as a text in UTF-8: {error}") from error


def _layers(layers: str | None) -> list[int] | None:
    """Return the numbers of the layers that were given, None for all. Raises GroundupError."""
    if layers is None or layers == ALL:
        return None
    numbers = [each.strip() for each in layers.split(",")]
    if not all(each.isascii() and each.isdigit() for each in numbers):
        raise GroundupError(f"layers = {layers!r} must be numbers as 0,5,11, or all")
    return [int(each) for each in numbers]


def _recorder(name: str, text: str, device: str, weights: WriterFlags) -> "Recorder":
    """Load a model, and return what records how it reads the text."""
    from groundup.checkpoints.model_folder import load_model
    from groundup.page.recording import Recorder

    loaded = load_model(name, device=device)
    try:
        return Recorder(loaded, text, weights.precision())
    except GroundupError as error:
        raise GroundupError(f"{loaded.title}: {error}") from error
