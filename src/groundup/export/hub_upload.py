"""Uploads a model's files to Hugging Face's hub in one commit, by huggingface_hub."""

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from groundup.checkpoints.adapter_folder import is_adapter
from groundup.checkpoints.find import HUB_NAME
from groundup.checkpoints.model_folder import LoadedModel
from groundup.errors import ExportError
from groundup.evaluation.task import TITLES
from groundup.export.destination import appearing_whole
from groundup.export.model_card import (
    CARD_FILE,
    CURVE_FILE,
    model_card,
    origin_of,
    public_origin,
    without_folders,
)
from groundup.hub import api as hub
from groundup.hub.api import Repository
from groundup.hub.http import network_timeout
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RECIPE_FILE
from groundup.runs.plot import RunCurves, plot_losses

logger = logging.getLogger(__name__)

OF_A_MODEL = (  # all else in a checkpoint is for going on with the training
    *("config.json", "generation_config.json", "model*.safetensors"),
    *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "chat_template.jinja", "vocab.json", "merges.txt"),
)

Files = dict[str, Path | bytes]  # path in the repository -> the file to copy, or its content


def check_repository(repository: str) -> None:
    """Check that a text can be a repository's name.

    Raises:
        ExportError: The text isn't OWNER/NAME in the letters that the hub allows.
    """
    if not HUB_NAME.fullmatch(repository):
        raise ExportError(
            f"{repository!r} is no repository of the hub: OWNER/NAME, in letters, digits, '-', "
            "'_' and '.'"
        )


@contextmanager
def whole_folder(loaded: LoadedModel) -> Iterator[Path]:
    """Give the folder of a model; for adapters, a temporary folder with the merged model.

    Raises:
        ExportError: There is no room for the merged model.
    """
    if not is_adapter(loaded.folder):
        yield loaded.folder
        return
    with tempfile.TemporaryDirectory(prefix="groundup-export-") as name:
        try:
            loaded.save(Path(name))
        except OSError as error:
            raise ExportError(f"no room to merge {loaded.folder} in {name}: {error}") from error
        yield Path(name)


def files_to_upload(loaded: LoadedModel, folder: Path, repository: str) -> Files:
    """Return the files that belong into a model's repository.

    Args:
        loaded: The model.
        folder: The folder of the whole model.
        repository: OWNER/NAME that the files are for.

    Returns:
        The model card, the model's files, and of its run the recipe and the picture of the losses.
    """
    files: Files = {path.name: path for glob in OF_A_MODEL for path in sorted(folder.glob(glob))}
    if run := loaded.run:
        recipe = run.read_recipe()
        public = _public(recipe, origin_of(run, recipe) or "")
        files[RECIPE_FILE] = public.to_toml().encode("utf-8")
        with tempfile.TemporaryDirectory() as temporary:
            picture = Path(temporary) / CURVE_FILE
            plot_losses(RunCurves(TITLES).add(run.read_metrics()), picture, run.name)
            if picture.is_file():
                files[CURVE_FILE] = picture.read_bytes()
    card = model_card(loaded, repository, has_curve=CURVE_FILE in files)
    return {CARD_FILE: card.encode("utf-8"), **files}


def _public(recipe: Recipe, origin: str) -> Recipe:
    """The recipe, whose files and origin are named without the folders that they lie in."""
    data, train, evaluated = recipe.data, recipe.train, recipe.eval
    return replace(
        recipe,
        data=replace(
            data,
            corpus=without_folders(data.corpus),
            tokenizer=without_folders(data.tokenizer),
            validation_corpus=without_folders(data.validation_corpus),
        ),
        train=replace(train, init=public_origin(origin) if origin else ""),
        eval=replace(evaluated, task_file=without_folders(evaluated.task_file)),
    )


def write_folder(files: Files, out: Path) -> None:
    """Write the files into a new folder.

    Raises:
        ExportError: A file can't be written. Then nothing is written.
    """
    with appearing_whole(out) as path:
        path.mkdir()
        for name, content in files.items():
            if isinstance(content, bytes):
                (path / name).write_bytes(content)
            else:
                shutil.copyfile(content, path / name)


def upload(files: Files, repository: str, *, public: bool, force: bool, card: bool = False) -> str:
    """Make a repository on the hub, and commit the files to it.

    Of a repository that exists, the files of a model that aren't among the new ones are deleted.

    Args:
        files: What `files_to_upload` returned.
        repository: OWNER/NAME.
        public: Whether everybody sees a new repository.
        force: Whether the repository may exist already.
        card: Whether a card that is there is replaced, too.

    Returns:
        A line that names what was uploaded and deleted, and the repository's address.

    Raises:
        ExportError: There is no token, or the hub refuses.
    """
    endpoint, token = hub.endpoint(), hub.token()  # a broken one keeps the package unimported
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationDelete,
        HfApi,
        constants,
        get_session,
    )
    from huggingface_hub.utils import disable_progress_bars

    if token is None:
        raise ExportError(
            f"an upload to {endpoint} needs an account's token: `hf auth login` or set HF_TOKEN"
        )
    api = HfApi(endpoint=endpoint, token=token)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        get_session().timeout = network_timeout()  # left to itself, huggingface_hub waits for ever
        constants.HF_HUB_DISABLE_XET = True  # and hf_xet too, on a network stack of its own
        api.create_repo(repository, private=not public, exist_ok=force)
        listed = hub.files_below(Repository("models", repository, "main")) if force else ()
        there = {file.path for file in listed}
        files, old = _changes(files, there, card)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        operations += [CommitOperationDelete(name) for name in old]
        api.create_commit(repository, operations, commit_message="Upload a model of groundup")
    # of huggingface_hub, of its HTTP library or of hf_xet: they share no class
    except Exception as error:
        raise _complaint(error, repository, endpoint) from error
    deleted = f", and deleted {', '.join(old)}" if old else ""
    return f"uploaded {', '.join(files)} to {endpoint}/{repository}{deleted}"


def _changes(files: Files, there: set[str], card: bool) -> tuple[Files, list[str]]:
    """What to add to a repository with those files, and what of its old model to delete."""
    old = {name for name in there - files.keys() if any(fnmatch(name, glob) for glob in OF_A_MODEL)}
    if CARD_FILE in there and not card:
        logger.warning(f"{CARD_FILE} of the repository stays as it is: --card replaces it")
        files = {name: content for name, content in files.items() if name != CARD_FILE}
    return files, sorted(old)


def _complaint(error: Exception, repository: str, endpoint: str) -> ExportError:
    """One line for what huggingface_hub raised, with what can be done."""
    # The upload of a single file wraps its reason.
    failed = (error.__cause__ or error) if isinstance(error, RuntimeError) else error
    response = getattr(failed, "response", None)
    status = getattr(response, "status_code", None)
    if status == 409:
        return ExportError(
            f"{repository} exists on {endpoint} already. Choose another name, or add to it with "
            "--force"
        )
    if status in (401, 403):
        return ExportError(
            f"{endpoint} refuses (HTTP {status}): HF_TOKEN's account may not write to {repository}"
        )
    said = getattr(failed, "server_message", None) or (str(failed) if status is None else "")
    words = said.split() if status is None else ["HTTP", str(status), *said.split()]
    reason = " ".join(words) or type(failed).__name__
    return ExportError(
        f"{repository} can't be uploaded to {endpoint}: {reason[:300]}. Run again, with --force "
        "if it exists by now"
    )
