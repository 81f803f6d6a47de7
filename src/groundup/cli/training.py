"""What `groundup train` does, from the recipe to the text at the end."""

import logging
import shlex
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from groundup.checkpoints.lifecycle import step_folder
from groundup.checkpoints.model_folder import load
from groundup.console import messages_to
from groundup.errors import RecipeError, RunError
from groundup.evaluation.units import perplexity
from groundup.generation.stream import SamplingSettings, write_text
from groundup.machine.device import choose_device
from groundup.optim.schedules import Schedule
from groundup.parallel.world import World, described_world, join_world
from groundup.recipes.files import load_recipe, overrides
from groundup.recipes.schema import Recipe, Tables, differences
from groundup.runs.folder import RunFolder, find_run
from groundup.runs.lock import locked
from groundup.training import setup
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
    recipe = longer(recorded, given, unwanted, run)
    with open_session(recipe) as session, alone(run, session.world):
        trainer, checkpoint = setup.resume(recipe, run, data_may_differ, session)
        if recipe.train.steps != recorded.train.steps:
            logger.info(describe_longer_schedule(recorded, recipe, trainer.progress.step))
        if trainer.is_complete():
            raise RunError(
                f"{run.name} is finished: {trainer.progress.step:,} of {recipe.train.steps:,} steps"
                + (", stopped early by eval.patience" if trainer.progress.stopped_early else "")
                + (
                    f". To train longer: groundup train --resume {run.name} --steps "
                    f"{2 * recipe.train.steps}"
                )
            )
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
        logger.info(f"go on with: groundup train --resume {run.name}")
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
def open_session(recipe: Recipe) -> Iterator[Session]:
    """Open the session of a training: its messages go to the journal, and failures are explained.

    Args:
        recipe: The recipe, whose device decides how processes communicate.
    """
    world = described_world()
    uses_cuda = choose_device(recipe.train.device, world).type == "cuda"
    with join_world(world, uses_cuda), stop_on_signals() as stop:
        journal = MainJournal() if world.is_main else Journal()
        with messages_to(journal.say), explain_out_of_memory(recipe), explain_refusals():
            yield Session(world, journal, stop)


def longer(recorded: Recipe, given: Tables, unwanted: list[str], run: RunFolder) -> Recipe:
    """Give the recorded recipe more steps, if these are asked for. Other changes are refused.

    Raises:
        RunError: Another field or flag was given.
        RecipeError: The steps are fewer than before.
    """
    if unwanted:
        raise RunError(
            f"--resume goes on with the recipe of {run.name}: {unwanted[0]} can't be given with it"
        )
    steps = given.get("train", {}).get("steps", recorded.train.steps)
    asked = load_recipe(
        overrides({section: vars(getattr(recorded, section)) for section in vars(recorded)}),
        overrides(given),
    )
    for field, old, new in differences(recorded, asked):
        if field != "train.steps":
            of_shape = field.startswith("model.") and field != "model.dropout"
            # no adapters on adapters
            init = "" if of_shape or recorded.lora.rank else f" --init {run.path}"
            value = " ".join(map(str, new)) if isinstance(new, tuple) else new
            raise RunError(
                f"{field} was {old} when {run.name} began and can't become {new}: a resumed run "
                f"is the same run. Start a new one{' from its model' if init else ''}: groundup "
                f"train --config {run.path / 'recipe.toml'}{init} --{field.replace('_', '-')} "
                f"{value}"
            )
    if steps < recorded.train.steps:
        raise RecipeError(
            f"--steps {steps} is fewer than the {recorded.train.steps} steps of {run.name}. "
            "Choose more."
        )
    return recorded.with_steps(steps)


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
    best, name = progress.best_loss or 0.0, shlex.quote(run.name)
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
        f"generate {name} --interactive\n  groundup train --resume {name} --steps "
        f"{2 * trainer.recipe.train.steps}\n  groundup runs\nlook: {run.path / 'loss.png'}, "
        f"{run.path / 'samples.txt'}"
    )


def shown_prompt(text: str) -> str:
    """Choose a word of the model's own as a prompt, so that its vocabulary has every character."""
    words = [word[:20] for word in text.split() if not word.startswith("-")]
    return next((word for word in words if word.isalpha() and len(word) > 2), (words or [""])[0])
