"""Finds the folder that a name means: a run's best checkpoint, any folder, or a hub's model."""

import logging
import os
import re
from functools import partial
from pathlib import Path

from groundup.checkpoints import conventions
from groundup.checkpoints import lifecycle as checkpoint
from groundup.checkpoints.layouts import weight_files
from groundup.checkpoints.layouts.config_json import CONFIG_FILE, read_config
from groundup.checkpoints.layouts.weight_files import INDEX_FILE, PICKLES, WEIGHTS_FILE
from groundup.errors import CheckpointError
from groundup.hub import api as hub
from groundup.hub import cache
from groundup.hub.api import Repository
from groundup.runs.folder import RECIPE_FILE, RunFolder, run_or_path
from groundup.tokenizers.load import OLDER_FILES

logger = logging.getLogger(__name__)

GPT2_SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
OPENAI = {name: f"openai-community/{name}" for name in GPT2_SIZES}
HUB_NAME = re.compile(r"([\w-][\w.-]*)/([\w-][\w.-]*)", re.ASCII)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def find_model(name: str | Path) -> Path:
    """Return the model folder that a name means, and download it if necessary.

    Damaged checkpoints that are passed over are named in warnings.

    Args:
        name: The first of these that there is: a run in `runs/` (its best intact checkpoint), the
            path of a run or of a model folder, and on the hub `gpt2`, `gpt2-medium`, `gpt2-large`,
            `gpt2-xl` or OWNER/NAME, each with @REVISION if another than main is meant.

    Raises:
        CheckpointError: There is no such model, or no intact checkpoint of it.
        CorpusError: The hub can't be reached, or doesn't have what was asked for.
    """
    path = run_or_path(str(name))
    if path.is_dir():
        return _in_folder(path)
    if path.suffix in PICKLES and path.is_file():
        raise weight_files.refuse_pickle(path)
    repository = None if os.path.lexists(path) else on_hub(str(name))
    if repository is None:
        raise CheckpointError(
            f"{path} is neither a run nor a model folder, nor a model of the hub as gpt2 and "
            "OWNER/NAME are. List the runs with: groundup runs"
        )
    return fetch(repository)


def on_hub(name: str) -> Repository | None:
    """Return the repository that a name means on the hub, or None if it can't be a repository.

    A name that begins with a folder on this machine, `runs/typo` for instance, is a path, and the
    hub is never asked for it.
    """
    short, at, revision = name.partition("@")
    match = HUB_NAME.fullmatch(OPENAI.get(short, short))
    is_revision = not at or re.fullmatch(r"[\w./-]+", revision, re.ASCII)
    is_file = Path(short).suffix in {*PICKLES, ".safetensors"}
    if match is None or is_file or not is_revision or Path(match[1]).exists():
        return None
    return Repository("models", match[0], revision or "main")


def fetch(repository: Repository) -> Path:
    """Return the folder of a repository in a cache, and download what isn't there.

    Only the config, the tokenizer's files and safetensors are downloaded.

    Raises:
        CheckpointError: The repository has no model that groundup loads, in which case its weights
            aren't downloaded; or the cache can't be written.
        CorpusError: The hub can't be reached, or doesn't have what was asked for.
    """
    try:
        found = cache.cached(repository) or _of_hugging_face(repository)
        return found or cache.fetch_repository(repository, partial(_bring, repository))
    except OSError as error:
        raise CheckpointError(
            f"{cache.place_of(repository).parent} can't be written: {error}. Make room, or name "
            "another GROUNDUP_CACHE"
        ) from error


def _of_hugging_face(repository: Repository) -> Path | None:
    """The folder in Hugging Face's cache, if all that groundup would fetch is there."""

    def kept(name: str) -> Path | bool:
        return cache.kept_by_hugging_face(repository, name)

    # that there is no such file is kept as well
    config, index = kept(CONFIG_FILE), kept(INDEX_FILE)
    if not isinstance(config, Path) or not all(map(kept, TOKENIZER_FILES)):
        return None
    weights = {WEIGHTS_FILE}
    if isinstance(index, Path) and not isinstance(kept(WEIGHTS_FILE), Path):
        weights = set(weight_files.read_index(index).values())
    return config.parent if all(isinstance(kept(name), Path) for name in weights) else None


def _bring(repository: Repository, pinned: Repository, folder: Path) -> None:
    """Download into a folder what makes a model of a repository, pinned to a commit."""
    files = {file.path: file for file in hub.files_below(pinned)}

    def get(name: str) -> Path:
        if name not in files:
            raise CheckpointError(f"{repository} has no {name}: groundup can't load it")
        return hub.download(pinned, files[name], folder / name)

    read_config(get(CONFIG_FILE))
    pickles = sorted(path for path in files if Path(path).suffix in PICKLES and "/" not in path)
    if WEIGHTS_FILE in files:
        weights = [WEIGHTS_FILE]
    elif INDEX_FILE in files:
        weights = sorted(set(weight_files.read_index(get(INDEX_FILE)).values()))
    elif pickles:
        raise weight_files.refuse_pickle(f"{repository}, {pickles[0]},")
    else:
        raise CheckpointError(f"{repository} has no {WEIGHTS_FILE}: groundup can't load it")
    older = () if TOKENIZER_FILES[0] in files else OLDER_FILES
    for name in filter(files.__contains__, (*TOKENIZER_FILES, *older, *conventions.FILES)):
        get(name)
    size = sum(files[name].size for name in weights if name in files)
    logger.info(f"downloading {pinned}: {size / 1e6:,.0f} MB to {cache.place_of(pinned)}")
    for name in weights:
        get(name)


def _in_folder(path: Path) -> Path:
    """A folder itself, or of a run its best intact checkpoint. Raises CheckpointError."""
    checkpoints = path / "checkpoints"
    if not checkpoints.is_dir():
        if (path / checkpoint.MANIFEST).is_file():
            checkpoint.verify(path)
        return path
    best = checkpoint.named_step(checkpoints, "best")
    candidates = [*([best] if best else []), *checkpoint.steps(checkpoints)]
    folder = checkpoint.newest_valid(candidates)
    if folder is not None:
        return folder
    run, remedy = RunFolder(path), "Restore one from a copy"
    if not candidates and (path / RECIPE_FILE).is_file():
        remedy = f"Train it: groundup train --resume {run.argument}"
    raise CheckpointError(f"{path} has no intact checkpoint to load. {remedy}")
