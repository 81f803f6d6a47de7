"""The command `groundup train`. What it does is in training.py, which loads torch."""

import os
import sys
from typing import Annotated, NoReturn

from cyclopts import Parameter

from groundup.cli.flags import (
    ConfigFile,
    CorpusName,
    RecipeFlags,
    RecipeName,
    Size,
    Steps,
    given_fields,
    load_given,
)

INIT = "Short for --train.init: a run, folder, gpt2 or OWNER/NAME of the hub to start from."
RESUME = "Go on with this run, exactly. Only --steps may be given with it, to train longer."
ACCEPT_CHANGED_DATA = "Resume even though the corpus isn't the one that the run began with."


def train(
    recipe: RecipeName = None,
    /,
    *,
    config: ConfigFile = None,
    size: Size = None,
    corpus: CorpusName = None,
    steps: Steps = None,
    seed: Annotated[int | None, Parameter(help="Short for --train.seed.")] = None,
    name: Annotated[
        str | None, Parameter(help="The run's folder in runs/; RECIPE-N if left out.")
    ] = None,
    init: Annotated[str | None, Parameter(help=INIT)] = None,
    resume: Annotated[str | None, Parameter(help=RESUME)] = None,
    accept_changed_data: Annotated[bool, Parameter(help=ACCEPT_CHANGED_DATA, negative=())] = False,
    flags: Annotated[RecipeFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
) -> None:
    """Train a model by a recipe, and write what it learned."""
    from groundup.cli.training import resume_training, start_training

    short = {"data": {"corpus": corpus}, "train": {"steps": steps, "seed": seed, "init": init}}
    given = given_fields(flags, short)
    if resume is not None:
        values = {"RECIPE": recipe, "--config": config, "--size": size, "--name": name}
        unwanted = [flag for flag, value in values.items() if value]
        _finish(resume_training(resume, given, unwanted, accept_changed_data))
    recipe_name = recipe or "quickstart"
    if config is not None:  # a run's own recipe.toml stands for the run
        recipe_name = config.stem if config.name != "recipe.toml" else config.resolve().parent.name
    _finish(start_training(load_given(recipe, config, size, given), recipe_name, name))


def _finish(status: int) -> NoReturn:
    """Leave with a training's status; one of several processes at once, before gloo aborts it."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)
