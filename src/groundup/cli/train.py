"""The command `groundup train`. What it does is in training.py, which loads torch."""

from pathlib import Path

from groundup.cli.flags import Flags, given_fields, load_given


def train(
    recipe: str | None = None,
    /,
    *,
    config: Path | None = None,
    size: int | None = None,
    corpus: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    name: str | None = None,
    init: str | None = None,
    resume: str | None = None,
    accept_changed_data: bool = False,
    flags: Flags = None,
) -> None:
    """Train a model by a recipe, and write what it learned.

    Args:
        recipe: A packaged recipe (see `groundup recipes`); `quickstart` if neither it nor --config
            is given.
        config: A recipe file of your own; its values go over those of RECIPE.
        size: Layers: scales the recipe's width, heads, batch and learning rates with them.
        corpus: Short for --data.corpus: python-docs, shakespeare, a file or folder, or a mixture:
            a:0.7,b:0.3.
        steps: Short for --train.steps: the length in optimizer steps.
        seed: Short for --train.seed.
        name: The run's folder in runs/; RECIPE-N if left out.
        init: Short for --train.init: a run, folder, gpt2 or OWNER/NAME of the hub to start from.
        resume: Go on with this run, exactly. With it may be given --steps, to train longer, and
            --train.threads, device, compile and micro-batch-size, for another machine.
        accept_changed_data: Resume even though the corpus isn't the one that the run began with.
    """
    from groundup.cli.training import resume_training, start_training

    short = {"data": {"corpus": corpus}, "train": {"steps": steps, "seed": seed, "init": init}}
    given = given_fields(flags, short)
    if resume is not None:
        values = {"RECIPE": recipe, "--config": config, "--size": size, "--name": name}
        unwanted = [flag for flag, value in values.items() if value]
        raise SystemExit(resume_training(resume, given, unwanted, accept_changed_data))
    recipe_name = recipe or "quickstart"
    if config is not None:  # a run's own recipe.toml stands for the run
        recipe_name = config.stem if config.name != "recipe.toml" else config.resolve().parent.name
    raise SystemExit(start_training(load_given(recipe, config, size, given), recipe_name, name))
