"""Sets up a trainer, from a recipe or from a run to resume.

Whatever is wrong with a run is found here, before its first step. New and resumed runs are set up
in the same order: the model to begin with, the dataset, the evaluations on the way, and
`build_trainer`, which also builds what `plan` and `bench` measure.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundup.checkpoints.conventions import Conventions
from groundup.checkpoints.lifecycle import name_step, newest_valid, remove_unfinished, steps
from groundup.checkpoints.model_folder import LoadedModel
from groundup.data.corpora import WHOLE, Corpus, open_corpora
from groundup.data.dataset import Dataset, check_tokenizer, make_dataset, tokenizer_of_shards
from groundup.data.loader import Loader
from groundup.errors import RecipeError, RunError
from groundup.files import HERE, located
from groundup.machine import device as machines
from groundup.machine.choice import choose_device
from groundup.machine.device import Machine
from groundup.models.lora import adapt
from groundup.models.registry import Model, build
from groundup.optim.groups import build_optimizers, rules_of
from groundup.optim.state import load_optimizer_state
from groundup.parallel.sharding import distribute
from groundup.parallel.world import World, main_first
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RunFolder, check_new_name, check_writable, create_run
from groundup.tokenizers.agreement import disagreement
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer
from groundup.training.checks import (
    agreed_config,
    check_division,
    check_incomplete,
    check_same_items,
    check_same_processes,
    check_same_text,
    check_same_weights,
)
from groundup.training.costs import TimeBudget
from groundup.training.facts import facts_of, with_changes
from groundup.training.initial import initial_model, resumed_model
from groundup.training.length import set_length
from groundup.training.objective import NextTokenLoss, compile_in_place
from groundup.training.periodic import PeriodicEvaluation, open_evaluations
from groundup.training.session import Session
from groundup.training.state import Progress, StateWriter, read_state
from groundup.training.tensorboard import check_installed
from groundup.training.trainer import Trainer

CPU_OPERATIONS_PER_SECOND = 2e11  # of a small machine: only to judge whether compiling pays

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recorded:
    """What a run to resume has left behind.

    Attributes:
        facts: The run's `run.json`.
        folders: The folders that paths of its recipe may be relative to.
        checkpoint: The checkpoint to resume from, or None for a run that begins again.
        data_may_differ: Whether the user accepts another text than the run began with.
    """

    facts: dict[str, Any]
    folders: Sequence[Path]
    checkpoint: Path | None
    data_may_differ: bool


def start(
    recipe: Recipe, recipe_name: str, name: str | None, session: Session
) -> tuple[Trainer, RunFolder]:
    """Set up a new run. Its folder is made last, after everything else has been checked.

    Args:
        recipe: What to train.
        recipe_name: The recipe's name, after which a run without a name is called.
        name: The name of the run, or None.
        session: The processes, the journal and the request to stop.

    Raises:
        GroundupError: The recipe can't be trained here.
    """
    check_division(recipe, session.world)
    check_new_name(name)
    if session.world.is_main:
        check_writable()
    if recipe.train.log == "tensorboard":
        check_installed()
    initial = initial_model(recipe)
    dataset = open_dataset(recipe, initial, session.world)
    evaluations = open_evaluations(recipe, dataset.tokenizer, HERE, session.world)
    trainer = build_trainer(recipe, dataset, session, initial, evaluations)
    facts = facts_of(trainer, initial.base if initial else None)
    path = str(create_run(recipe_name, name).path) if session.world.is_main else ""
    run = RunFolder(Path(session.world.agree(path)))
    if session.world.is_main:
        run.write(trainer.recipe, facts)
    session.world.barrier()  # the other processes read what was written
    return trainer, run


def resume(
    recipe: Recipe,
    run: RunFolder,
    session: Session,
    *,
    data_may_differ: bool = False,
    length_is_given: bool = False,
) -> tuple[Trainer, Path | None]:
    """Set up a run as it was after its newest intact checkpoint.

    Args:
        recipe: The recorded recipe, with more steps where these are wanted.
        run: The run.
        session: The processes, the journal and the request to stop.
        data_may_differ: Whether the user accepts another text than the run began with.
        length_is_given: Whether the user gives the number of steps, which ends a time budget.

    Returns:
        The trainer, and the checkpoint that it resumes from; None for a run that has no checkpoint
        yet and begins again.

    Raises:
        GroundupError: The run can't be resumed as it began, or is finished.
    """
    facts = run.read_facts()
    folders = run.folders(facts)
    check_same_processes(recipe, facts, session.world)
    check_division(recipe, session.world)
    checkpoint = _newest_checkpoint(run)
    initial = resumed_model(checkpoint, recipe) if checkpoint else initial_model(recipe, folders)
    if checkpoint is None:
        check_same_weights(initial.base if initial else None, facts, recipe)
    recorded = Recorded(facts, folders, checkpoint, data_may_differ)
    dataset = open_dataset(recipe, initial, session.world, recorded)
    evaluations = open_evaluations(recipe, dataset.tokenizer, folders, session.world)
    check_same_items(evaluations, facts, data_may_differ)
    if length_is_given:
        facts.pop("time_budget", None)
    budget = TimeBudget.from_json(facts["time_budget"]) if "time_budget" in facts else None
    place = recipe, dataset, session, initial, evaluations
    trainer = build_trainer(*place, checkpoint=checkpoint, budget=budget)
    _bring_up_to_date(run, facts, trainer, checkpoint)
    return trainer, checkpoint


def _newest_checkpoint(run: RunFolder) -> Path | None:
    """The newest intact checkpoint of a run, or None before there is one. Raises RunError."""
    saved = steps(run.checkpoints)
    if (checkpoint := newest_valid(saved)) or not saved:
        return checkpoint
    raise RunError(
        f"all {len(saved)} checkpoints of {run.name} are damaged: none to resume from. Start a "
        "new run"
    )


def _bring_up_to_date(
    run: RunFolder, facts: dict[str, Any], trainer: Trainer, checkpoint: Path | None
) -> None:
    """Put a run's folder back to its checkpoint, and write down and say what has changed since.

    Raises:
        RunError: The run is finished.
    """
    recorded, world, progress = run.read_recipe(), trainer.session.world, trainer.progress
    world.barrier()  # all processes have read what is written now
    if world.is_main:
        _roll_back(run, progress, checkpoint)
    facts, said = with_changes(facts, recorded, trainer)
    check_incomplete(trainer, run)
    for line in said:
        logger.info(line)
    if world.is_main:
        run.write(trainer.recipe, facts)
    logger.info(
        f"resuming {run.name} at step {progress.step:,} of {trainer.recipe.train.steps:,}, from "
        f"{checkpoint or 'the beginning: it has no checkpoint yet'}"
    )


def _roll_back(run: RunFolder, progress: Progress, checkpoint: Path | None) -> None:
    """Put a run's folder back to its checkpoint, whatever was written after it."""
    run.forget_after(progress.step if checkpoint else -1, progress.owed)
    remove_unfinished(run.checkpoints)
    if checkpoint:  # a kill may have come between the checkpoint and its names
        name_step(checkpoint, best=progress.best_step == progress.step)


def open_dataset(
    recipe: Recipe, initial: LoadedModel | None, world: World, recorded: Recorded | None = None
) -> Dataset:
    """Open the text that a run of the recipe learns from, as tokens.

    Args:
        recipe: The recipe, with paths relative to the current folder or to those of the run.
        initial: The model that the run begins with; its tokenizer is the run's.
        world: The processes: the main one reads first, because it may have to download.
        recorded: What a run to resume has left behind; its text must be the same.

    Raises:
        GroundupError: Text and tokenizer can't be had, don't fit each other, or have changed.
    """
    name, folders = recipe.data.corpus, recorded.folders if recorded else HERE
    logger.info(f"reading {name}")
    held_out = recipe.data.validation_corpus
    reading = replace(WHOLE, column=recipe.data.column, flag="--data.column")
    corpora = main_first(world, lambda: open_corpora(name, folders, reading, held_out))
    if recorded:
        check_same_text(name, corpora, recorded.facts, recorded.data_may_differ)
    tokenizer = initial.tokenizer if initial else None
    if recorded is None or recorded.checkpoint is None:
        tokenizer = choose_tokenizer(recipe, tokenizer, corpora, folders, world)
    if recorded:
        check_tokenizer(corpora, tokenizer, "that of the run")
    return make_dataset(corpora, recipe, tokenizer)


def choose_tokenizer(
    recipe: Recipe,
    given: Tokenizer | None,
    corpora: list[Corpus],
    folders: Sequence[Path],
    world: World,
) -> Tokenizer | None:
    """Choose the tokenizer: that of the model to start from, of the recipe or of the shards.

    Args:
        recipe: The recipe, whose `data.tokenizer` may name one.
        given: The tokenizer of the model that the run starts from.
        corpora: The corpora, some of which may be shards that one tokenizer has made.
        folders: The folders that a path in the recipe may be relative to.
        world: The processes: the main one loads first, because it may have to download.

    Returns:
        The tokenizer, or None where it is to be made of the characters of the texts.

    Raises:
        RecipeError: Two tokenizers are given that differ.
        TokenizerError: The tokenizer that the recipe names can't be loaded.
        CorpusError: The tokenizer of shards has changed, or two corpora of shards have two.
    """
    name = recipe.data.tokenizer
    of_shards = tokenizer_of_shards(corpora)
    if name == "auto":
        chosen = given or of_shards
        what = "that of the model to start from" if given is not None else "data.tokenizer = auto"
        check_tokenizer(corpora, chosen, what)
        return chosen
    if name == "characters":
        named = of_shards if isinstance(of_shards, CharacterTokenizer) else None
        differ = "" if isinstance(given, CharacterTokenizer) else "it isn't one of characters"
    else:
        place = name if name == "gpt2" else located(name, folders)
        named = main_first(world, lambda: load_tokenizer(place))
        differ = disagreement(named, given) if given is not None else ""
    if given is not None and differ:
        raise RecipeError(
            f"data.tokenizer = {name}, but the model to start from has another: leave it out "
            f"(--data.tokenizer auto). Of the two, {differ}"
        )
    what = "that of the model to start from" if given is not None else f"data.tokenizer = {name}"
    check_tokenizer(corpora, given or named, what)
    return given or named


def build_trainer(
    recipe: Recipe,
    dataset: Dataset,
    session: Session,
    initial: LoadedModel | None = None,
    evaluations: Sequence[PeriodicEvaluation] = (),
    *,
    checkpoint: Path | None = None,
    budget: TimeBudget | None = None,
    measures_minutes: bool = True,
) -> Trainer:
    """Build a trainer: model, adapters, compilation, distribution, then the optimizers.

    Args:
        recipe: What to train; `auto` and a length in epochs or minutes are resolved here.
        dataset: What the model learns from.
        session: The processes, the journal and the request to stop.
        initial: The model to begin with; None for random weights.
        evaluations: The tasks on which the model is scored while it trains.
        checkpoint: The checkpoint of a run to resume, or None.
        budget: The time budget that a run to resume began with, or None.
        measures_minutes: Whether a length in minutes is turned into steps, by timing some.

    Raises:
        GroundupError: The recipe can't be trained on this machine, or doesn't fit the model.
    """
    world = session.world
    recipe, machine = choose_machine(recipe, dataset, world)
    machines.prepare(machine.device, recipe.train.threads, world.local_size)
    model = _build_model(recipe, dataset, initial, machine)
    objective = NextTokenLoss(model, machine.precision)
    sampler = dataset.sampler(recipe)
    rows = recipe.train.micro_batch_size or recipe.train.batch_size // world.size
    loader = Loader(sampler, rows, world.rank, world.size, machine.device)
    if recipe.train.compile == "on" and not compile_in_place(objective, loader.take(0, 0)[0]):
        recipe = replace(recipe, train=replace(recipe.train, compile="off"))
    distributed = distribute(objective, world)
    writer = _writer(recipe, dataset, initial)
    progress, saved = read_state(checkpoint) if checkpoint else (Progress(), {})
    optimizers = build_optimizers(model, rules_of(recipe), recipe.optim, machine.product_dtype)
    if checkpoint:
        load_optimizer_state(model, optimizers, saved)

    place = session, machine, dataset, loader, model, distributed, optimizers, evaluations, writer
    trainer = Trainer(recipe, *place, progress)
    set_length(trainer, budget, measures_minutes)
    return trainer


def _writer(recipe: Recipe, dataset: Dataset, initial: LoadedModel | None) -> StateWriter:
    """What writes the run's state, with what is said of the model to begin with."""
    if initial is None:
        return StateWriter(dataset, None, Conventions())
    said = initial.conventions if initial.tokenizer else Conventions()
    return StateWriter(dataset, initial.base if recipe.lora.rank else None, said)


def _build_model(
    recipe: Recipe, dataset: Dataset, initial: LoadedModel | None, machine: Machine
) -> Model:
    """The model that trains, on its device, with adapters where these are wanted."""
    config = agreed_config(recipe, dataset.tokenizer, initial)
    if initial:
        model = initial.model
    else:
        torch.manual_seed(recipe.train.seed)
        model = build(recipe.model.architecture, config)
    model.to(machine.device, machine.weight_dtype).train()
    if recipe.lora.rank:
        torch.manual_seed(recipe.train.seed)
        adapt(model, recipe.lora.rank, recipe.lora.alpha)
        if initial:
            model.load_state_dict(initial.adapter, strict=False)
    return model


def choose_machine(recipe: Recipe, dataset: Dataset, world: World) -> tuple[Recipe, Machine]:
    """Choose device, precision, compilation and threads.

    Returns:
        The recipe with these four resolved, and its device and precision as a `Machine`.

    Raises:
        MachineError: The recipe asks for a device or a precision that this machine doesn't have.
    """
    section = recipe.train
    tokens = recipe.tokens_per_step * section.steps or section.epochs * dataset.training_tokens
    operations = 6 * recipe.parameter_count(dataset.tokenizer.vocab_size) * tokens
    seconds = 60 * section.minutes or operations / CPU_OPERATIONS_PER_SECOND
    device = choose_device(section.device, world, "--train.device")
    resolved = replace(
        section,
        device=device.type if section.device == "auto" else section.device,
        precision=machines.choose_precision(section.precision, device),
        compile="on" if machines.choose_compile(section.compile, device, seconds) else "off",
        threads=machines.set_threads(section.threads, world),
    )
    return replace(recipe, train=resolved), Machine(device, resolved.precision)
