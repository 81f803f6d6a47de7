"""What is exported: a model, its tokenizer, and the run that it came from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundup.model_folder import load
from groundup.models.catalogue import Model
from groundup.pretrained import find_model, repository_of
from groundup.tokenizers.base import Tokenizer
from groundup.training.record import RECIPE_FILE, RunFolder


@dataclass(frozen=True)
class Source:
    """A model that was loaded from `folder`, on the CPU; `run` is where its training is on record, if it is."""

    folder: Path
    model: Model
    tokenizer: Tokenizer | None
    run: RunFolder | None

    @property
    def title(self) -> str:
        """What people call the model: its run's name, its repository's on the hub, or its folder's."""
        if self.run:
            return self.run.name
        repository = repository_of(self.folder)
        return repository.partition("/")[2] if repository else self.folder.name


def open_source(name: str, report: Callable[[str], None]) -> Source:
    """The model that a name means, as `find_model` reads it. Raises CheckpointError."""
    folder = find_model(name, report).resolve()
    run = RunFolder(folder.parent.parent)
    is_checkpoint = folder.parent == run.checkpoints and (run.path / RECIPE_FILE).is_file()
    return Source(folder, *load(folder, report), run if is_checkpoint else None)
