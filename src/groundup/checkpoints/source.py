"""What is exported: a model, its tokenizer, and the run that it came from."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from groundup.checkpoints.adapter_folder import config_file, is_adapter
from groundup.checkpoints.find import find_model, repository_of
from groundup.checkpoints.layouts.config_json import CONFIG_FILE, read_settings
from groundup.checkpoints.model_folder import document_start, load_found, save
from groundup.console import report
from groundup.errors import ExportError
from groundup.models.registry import Model
from groundup.runs.folder import RECIPE_FILE, RunFolder
from groundup.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Source:
    """A model that was loaded from `folder`, on the CPU; `run` is where its training is on record,
    if it is.
    """

    folder: Path
    model: Model
    tokenizer: Tokenizer | None
    run: RunFolder | None

    @property
    def title(self) -> str:
        """What people call the model: its run's name, its repository's on the hub, or its
        folder's.
        """
        if self.run:
            return self.run.name
        repository = repository_of(self.folder)
        return repository.partition("/")[2] if repository else self.folder.name


def open_source(name: str, report: Callable[[str], None]) -> Source:
    """The model that a name means, as `find_model` reads it. Raises CheckpointError."""
    folder = find_model(name, report).resolve()
    run = RunFolder(folder.parent.parent)
    is_checkpoint = folder.parent == run.checkpoints and (run.path / RECIPE_FILE).is_file()
    return Source(folder, *load_found(folder, report), run if is_checkpoint else None)


def save_whole(source: Source, folder: Path) -> None:
    """Write a model into a new folder that transformers loads; one of adapters is whole by now,
    with them merged.
    """
    tokenizer = source.tokenizer
    save(
        folder,
        source.model,
        tokenizer,
        document_start(source.folder, tokenizer) if tokenizer else None,
    )
    stated = read_settings(config_file(source.folder, report))
    # of chat models not end-of-text
    kept = {role: stated.get(role) for role in ("bos_token_id", "eos_token_id")}
    settings = read_settings(folder / CONFIG_FILE) | kept
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


@contextmanager
def whole_folder(source: Source) -> Iterator[Path]:
    """The folder of a model; of adapters a temporary one, with the merged model. Raises
    ExportError.
    """
    if not is_adapter(source.folder):
        yield source.folder
        return
    with TemporaryDirectory(prefix="groundup-export-") as name:
        try:
            save_whole(source, Path(name))
        except OSError as error:
            raise ExportError(f"no room to merge {source.folder} in {name}: {error}") from error
        yield Path(name)
