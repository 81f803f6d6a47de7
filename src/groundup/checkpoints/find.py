"""From a name to a model folder: a run's best checkpoint, any folder, or a model of the hub.

What comes from Hugging Face's hub lies in the cache under its commit, and has that place only when
all of it is there and verified. From then on the name means that commit, and nobody is asked any
more. What other programs have put into Hugging Face's own cache is used where it is.
"""

import logging
import os
import re
import shutil
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from groundup.checkpoints import publish as checkpoint
from groundup.checkpoints.layouts import weight_files
from groundup.checkpoints.layouts.config_json import CONFIG_FILE, read_config
from groundup.checkpoints.layouts.weight_files import INDEX_FILE, PICKLES, WEIGHTS_FILE
from groundup.errors import CheckpointError
from groundup.files import write_whole
from groundup.hub import api as hub
from groundup.hub.api import COMMIT, Repository
from groundup.hub.download import cache_folder
from groundup.runs.folder import run_or_path

logger = logging.getLogger(__name__)

GPT2_SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
OPENAI = {name: f"openai-community/{name}" for name in GPT2_SIZES}
HUB_NAME = re.compile(r"([\w-][\w.-]*)/([\w-][\w.-]*)", re.ASCII)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
UNFINISHED = ".fetching-"


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
    """Return the repository that a name means on the hub, None for one that can't be there.

    What begins with a folder that is here, `runs/typo` for instance, is a path and never asked for
    elsewhere.
    """
    short, at, revision = name.partition("@")
    match = HUB_NAME.fullmatch(OPENAI.get(short, short))
    is_revision = not at or re.fullmatch(r"[\w./-]+", revision, re.ASCII)
    is_file = Path(short).suffix in {*PICKLES, ".safetensors"}
    if match is None or is_file or not is_revision or Path(match[1]).exists():
        return None
    return Repository("models", match[0], revision or "main")


def repository_of(folder: Path) -> str | None:
    """Return OWNER/NAME of a model folder in our cache or in Hugging Face's; None for any other."""
    folder, home = folder.resolve(), cache_folder().resolve() / "hub"
    theirs = re.fullmatch(r"models--(.+?)--(.+)", folder.parent.parent.name)
    if theirs and folder.parent.name == "snapshots":
        return f"{theirs[1]}/{theirs[2]}"
    parts = folder.relative_to(home).parts if folder.is_relative_to(home) else ()
    return "/".join(parts[:2]) if len(parts) == 3 else None


def fetch(repository: Repository) -> Path:
    """Return the folder of a repository in the cache, and download what isn't there.

    Only the config, the tokenizer's files and safetensors are downloaded.

    Raises:
        CheckpointError: It isn't a model that groundup loads, which is found out before its weights
            are asked for; or the cache can't be written.
        CorpusError: The hub can't be reached, or doesn't have what was asked for.
    """
    home = cache_folder() / "hub" / repository.name
    known = home / "revisions" / quote(repository.revision, safe="")
    try:
        if (folder := _cached(home, known) or _of_hugging_face(repository)) is not None:
            return folder
        hub.refuse_offline(repository)
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):  # of several processes, one fetches
            if (folder := _cached(home, known)) is not None:
                return folder
            try:
                folder = _bring(repository, home)
            except CheckpointError:  # no model for us: what came of it is of no use
                _forget_unfinished(home)
                raise
            known.parent.mkdir(exist_ok=True)
            write_whole(known, folder.name)
            _forget_unfinished(home)
            return folder
    except OSError as error:
        raise CheckpointError(
            f"{home} can't be written: {error}. Make room, or name another GROUNDUP_CACHE"
        ) from error


def _forget_unfinished(home: Path) -> None:
    """Remove what has come of commits that are no longer, or never were, of use."""
    for unfinished in home.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _cached(home: Path, known: Path) -> Path | None:
    """The folder that a revision was when it was fetched, if it is still there."""
    commit = known.name  # of a revision that is a commit itself
    if known.is_file():
        commit = known.read_text("ascii", errors="replace").strip()
    folder = home / commit
    return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None


def _of_hugging_face(repository: Repository) -> Path | None:
    """The folder in Hugging Face's cache, if all that groundup would fetch is there."""
    from huggingface_hub import try_to_load_from_cache  # takes 0.1 s

    def kept(name: str) -> object:
        try:
            return try_to_load_from_cache(repository.name, name, revision=repository.revision)
        except ValueError:  # a name that the hub has none of
            return None

    def known(name: str) -> Path | None:
        return Path(found) if isinstance(found := kept(name), str) else None

    # that there is no such file is kept as well
    settled = all(kept(name) is not None for name in TOKENIZER_FILES)
    if (config := known(CONFIG_FILE)) is None or not settled:
        return None
    index = None if known(WEIGHTS_FILE) else known(INDEX_FILE)
    weights = set(weight_files.read_index(index).values()) if index else {WEIGHTS_FILE}
    return config.parent if all(map(known, weights)) else None


def _bring(repository: Repository, home: Path) -> Path:
    """What the revision is now, whole, under its commit.

    What came before a failure waits for the next try.
    """
    pinned = Repository("models", repository.name, hub.commit_of(repository))
    folder, unfinished = home / pinned.revision, home / f"{UNFINISHED}{pinned.revision}"
    if folder.is_dir():  # another name for the same commit
        return folder
    files = {file.path: file for file in hub.files_below(pinned)}

    def get(name: str) -> Path:
        if name not in files:
            raise CheckpointError(f"{repository} has no {name}: groundup can't load it")
        return hub.download(pinned, files[name], unfinished / name)

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
    for name in filter(files.__contains__, TOKENIZER_FILES):
        get(name)
    size = sum(files[name].size for name in weights if name in files)
    logger.info(f"downloading {pinned}: {size / 1e6:,.0f} MB to {folder}")
    for name in weights:
        get(name)
    unfinished.replace(folder)
    return folder


def _in_folder(path: Path) -> Path:
    """A folder itself, or of a run its best intact checkpoint. Raises CheckpointError."""
    checkpoints = path / "checkpoints"
    if not checkpoints.is_dir():
        if (path / checkpoint.MANIFEST).is_file():
            checkpoint.verify(path)
        return path
    best = [(checkpoints / "best").resolve()] if (checkpoints / "best").is_symlink() else []
    folder = checkpoint.newest_valid([*best, *checkpoint.steps(checkpoints)])
    if folder is not None:
        return folder
    raise CheckpointError(
        f"{path} has no intact checkpoint to load. Train on with: groundup train --resume {path}"
    )
