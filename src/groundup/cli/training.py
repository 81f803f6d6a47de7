"""What `groundup train` does, from the recipe to the text at the end."""

import logging
import shlex
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.checkpoints.lifecycle import step_folder, steps
from groundup.checkpoints.model_folder import load
from groundup.console import messages_to
from groundup.data.corpora import parse_mixture
from groundup.data.formats import NAMED
from groundup.errors import RecipeError, RunError
from groundup.evaluation.units import perplexity
from groundup.files import is_there, located
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import write_text
from groundup.machine.choice import choose_device
from groundup.machine.kinds import kind_of
from groundup.optim.schedules import Schedule
from groundup.parallel.world import World, described_world, join_world
from groundup.recipes.files import load_recipe, overrides
from groundup.recipes.schema import Recipe, Tables, differences
from groundup.runs.folder import RECIPE_FILE, RunFolder, find_run, run_or_path
from groundup.runs.lock import locked
from groundup.training import setup
from groundup.training.facts import OF_THE_MACHINE, may_change
from groundup.training.failures import explain_out_of_memory, explain_refusals
from groundup.training.journal import Journal, MainJournal
from groundup.training.session import Session
from groundup.training.stopping import stop_on_signals
from groundup.training.trainer import Trainer

logger = logging.getLogger(__name__)

FINAL_SAMPLE = 500  # tokens


def start_training(recipe: Recipe, recipe_name: str, name: str | None) -> int:
    """Train a new run.

    Args:
        recipe: What to train.
        recipe_name: The recipe's name, after which a run without a name is called.
        name: The name of the run, or None.

    Returns:
        The exit status.

    Raises:
        GroundupError: The recipe can't be trained, or training failed.
    """
    with open_session(recipe) as session:
        trainer, run = setup.start(recipe, recipe_name, name, session)
        with alone(run, session.world):
            return train(trainer, run, None)


def resume_training(
    run_name: str, given: Tables, unwanted: list[str], data_may_differ: bool
) -> int:
    """Resume a run.

    Args:
        run_name: The name or the path of the run.
        given: The fields of the recipe that were given on the command line.
        unwanted: The flags that were given, but don't go with a run to resume.
        data_may_differ: Whether the user accepts another text than the run began with.

    Returns:
        The exit status.

    Raises:
        GroundupError: The run can't be resumed as it began, or training failed.
    """
    run = find_run(run_name)
    recorded = run.read_recipe()
    recipe = resumed_recipe(recorded, given, unwanted, run)
    with open_session(recipe, resumes=True) as session, alone(run, session.world):
        trainer, checkpoint = setup.resume(
            recipe,
            run,
            session,
            data_may_differ=data_may_differ,
            length_is_given="steps" in given.get("train", {}),
        )
        if recipe.train.steps != recorded.train.steps:
            logger.info(describe_longer_schedule(recorded, recipe, trainer.progress.step))
        return train(trainer, run, checkpoint)


def train(trainer: Trainer, run: RunFolder, resumed_from: Path | None) -> int:
    """Train, with a description of the run before and of its result afterwards.

    Returns:
        The exit status.
    """
    done, recipe, session = trainer.progress.step, trainer.recipe, trainer.session
    logger.info(describe(trainer, run))
    if recipe.eval.patience and not recipe.eval.every:
        logger.warning(
            f"eval.patience = {recipe.eval.patience} stops nothing, because eval.every = 0 "
            "evaluates only at the end: give --eval.every"
        )
    with session.journal.open(
        run, done, recipe.train.steps, tensorboard=recipe.train.log == "tensorboard"
    ):
        trainer.train(run.checkpoints, resumed_from)
    if trainer.asked_to_stop and not trainer.is_complete():
        if trainer.progress.step:
            logger.info(f"saved {step_folder(run.checkpoints, trainer.progress.step)}")
        logger.info(f"go on with: {session.world.command} train --resume {run.argument}")
        # another process may have had the signal
        return 128 + (session.stop.signal or signal.SIGTERM)
    if session.world.is_main:
        logger.info(farewell(trainer, run))
    return 0


@contextmanager
def alone(run: RunFolder, world: World) -> Iterator[None]:
    """Keep a run for these processes while the body trains it.

    Raises:
        RunError: Another process trains the run.
    """
    refusal = ""
    with ExitStack() as held:
        if world.is_main:
            try:
                held.enter_context(locked(run.path))
            except RunError as error:
                refusal = str(error)
        if refusal := world.agree(refusal):
            raise RunError(refusal)
        yield


@contextmanager
def open_session(recipe: Recipe, resumes: bool = False) -> Iterator[Session]:
    """Open the session of a training: its messages go to the journal, and failures are explained.

    Args:
        recipe: The recipe, whose device decides how processes communicate.
        resumes: Whether a run goes on.
    """
    world = described_world()
    device = choose_device(recipe.train.device, world, "--train.device")
    with join_world(world, kind_of(device).meets_by), stop_on_signals() as stop:
        journal = MainJournal() if world.is_main else Journal()
        explained = explain_out_of_memory(recipe, world, resumes)
        with messages_to(journal.say), explained, explain_refusals():
            yield Session(world, journal, stop)


def resumed_recipe(recorded: Recipe, given: Tables, unwanted: list[str], run: RunFolder) -> Recipe:
    """Give the recorded recipe more steps, or what belongs to the machine, if that is asked for.

    Other changes are refused.

    Raises:
        RunError: Another field or flag was given.
        RecipeError: The steps are fewer than before.
    """
    if unwanted:
        raise RunError(
            f"--resume goes on with the recipe of {run.name}: {unwanted[0]} can't be given with it"
        )
    longer = given.get("train", {}).get("steps", recorded.train.steps)
    asked = load_recipe(
        overrides({section: vars(getattr(recorded, section)) for section in vars(recorded)}),
        overrides(given),
    )
    for field, old, new in differences(recorded, asked):
        if not may_change(field, recorded):
            why = "a resumed run is the same run"
            if field in OF_THE_MACHINE:
                why = f"its dropout ({recorded.model.dropout}) is drawn by micro-batch"
            raise RunError(
                f"{field} was {old} when {run.name} began and can't become {new}: {why}. "
                f"{advise_new_run(recorded, given, run)}"
            )
    if longer < recorded.train.steps:
        raise RecipeError(
            f"--steps {longer} is fewer than the {recorded.train.steps} steps of {run.name}. "
            "Choose more."
        )
    resumed = recorded.with_steps(longer)
    fields = [field.removeprefix("train.") for field in OF_THE_MACHINE]
    return replace(
        resumed, train=replace(resumed.train, **{key: getattr(asked.train, key) for key in fields})
    )


def advise_new_run(recorded: Recipe, given: Tables, run: RunFolder) -> str:
    """Say how to train a new run with the fields that a resumed run can't have.

    The command runs in the folder that has the texts of the recorded recipe.
    """
    folders, data = run.folders(run.read_facts()), recorded.data
    shares = parse_mixture(data.corpus, lambda name: located(name, folders).exists())
    texts = {name for name, _ in shares} | {data.validation_corpus, recorded.eval.task_file}
    texts -= {"", *NAMED}
    whole = (each for each in folders if all(is_there(each / text) for text in texts))
    home = next(whole, None) if texts else Path()
    if home is None:
        return f"Start a new one in a folder that has {', '.join(sorted(texts))}"
    is_here = home.resolve() == Path.cwd().resolve()
    place = run.path if is_here else run.path.absolute()
    fields = {f"{section}.{key}" for section, values in given.items() for key in values}
    shape = {field for field in fields if field.startswith("model.")} - {"model.dropout"}
    has_other_weights = bool(shape) or "data.tokenizer" in fields
    if has_other_weights and recorded.lora.rank:
        return "Start a new one: its adapters fit no other model"
    words, init = ["groundup", "train", "--config", str(place / RECIPE_FILE)], ""
    if has_other_weights:
        words += ["--init", ""] if recorded.train.init else []
    # no adapters on adapters
    elif not recorded.lora.rank and steps(run.checkpoints) and "train.init" not in fields:
        init = str(place)
        words += ["--init", init]
    kept = {"data.tokenizer": (data.tokenizer, located)}
    if "--init" not in words:
        kept["train.init"] = (recorded.train.init, run_or_path)
    for field in sorted(kept.keys() - fields):
        name, find = kept[field]
        if name and (place := find(name, folders)) != find(name, [home]) and is_there(place):
            words += [f"--{field}", str(place.absolute())]
    for section, values in given.items():
        for key, value in values.items():
            words.append(f"--{section}.{key}".replace("_", "-"))
            words += map(str, value if isinstance(value, tuple | list) else [value])
    there = "" if is_here else f"cd {shlex.quote(str(home))} && "
    return f"Start a new one{' from its model' if init else ''}: {there}{shlex.join(words)}"


def describe_longer_schedule(old: Recipe, new: Recipe, step: int) -> str:
    """Say what more steps do to the learning rate."""
    before, after = (Schedule.of(recipe.optim, recipe.train.steps) for recipe in (old, new))
    return (
        f"steps {old.train.steps:,} -> {new.train.steps:,}: the {new.optim.schedule} schedule now "
        f"ends at step {new.train.steps:,}, so the learning rate at step {step:,} is "
        f"{after.at(step):.3g} instead of {before.at(step):.3g}"
    )


def describe(trainer: Trainer, run: RunFolder) -> str:
    """Say what is about to be trained, on what text and on what machine."""
    recipe, facts = trainer.recipe, run.read_facts()
    processes = (
        f", {trainer.session.world.size} processes" if trainer.session.world.size > 1 else ""
    )
    compiled = ", compiled" if recipe.train.compile == "on" else ""
    return (
        f"{run.name}: {recipe.model.architecture}, {facts['parameters']:,} parameters, "
        f"{recipe.train.steps:,} steps of {recipe.tokens_per_step:,} "
        f"tokens\n{describe_adapters(recipe, facts)}text: {facts['corpus']['name']}, "
        f"{facts['corpus']['training_tokens']:,} tokens for training, "
        f"{facts['corpus']['validation_tokens']:,} for validation, {facts['vocab_size']} "
        f"different ones\nmachine: {trainer.machine.device}, {recipe.train.precision}, "
        f"{recipe.train.threads} threads{compiled}{processes}"
    )


def describe_adapters(recipe: Recipe, facts: dict[str, Any]) -> str:
    """Return a line that says how few parameters adapters train, or an empty text without any."""
    if not recipe.lora.rank:
        return ""
    trained = facts["trained_parameters"]
    everything = facts["parameters"] + trained
    return (
        f"LoRA: adapters of rank {recipe.lora.rank}, alpha {recipe.lora.alpha:g}: {trained:,} of "
        f"{everything:,} parameters train ({trained / everything:.2%})\n"
    )


def farewell(trainer: Trainer, run: RunFolder) -> str:
    """Say what came of a training, let the best checkpoint write, and say what to try next."""
    progress = trainer.progress
    best, name, command = progress.best_loss or 0.0, run.argument, trainer.session.world.command
    model, tokenizer = load(run.path)
    assert tokenizer is not None
    settings = SamplingSettings(length=FINAL_SAMPLE, seed=trainer.recipe.train.seed)
    text = write_text(model, tokenizer, settings, document_start=trainer.dataset.document_start)
    stopped_early = progress.is_stopped_early(trainer.recipe.train.steps)
    early = f", stopped early: {trainer.recipe.eval.patience} evaluations without a better loss"
    return (
        f"\n{run.name} writes:\n\n{text.strip()}\n\ndone: {progress.step:,} steps in "
        f"{progress.seconds:.0f} s{early if stopped_early else ''}. Best validation loss "
        f"{best:.4f} (perplexity {perplexity(best):.2f}) at step {progress.best_step:,}\nnext:\n  "
        f"groundup generate {name} --prompt {shlex.quote(shown_prompt(text))}\n  groundup "
        f"generate {name} --interactive\n  {command} train --resume {name} --steps "
        f"{2 * trainer.recipe.train.steps}\n  groundup runs\nlook: {run.path / 'loss.png'}, "
        f"{run.path / 'samples.txt'}"
    )


def shown_prompt(text: str) -> str:
    """Choose a word of the model's own as a prompt, so that its vocabulary has every character."""
    words = [word[:20] for word in text.split() if not word.startswith("-")]
    return next((word for word in words if word.isalpha() and len(word) > 2), (words or [""])[0])
