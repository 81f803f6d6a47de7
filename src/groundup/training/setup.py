"""From a recipe, or from a run to resume, to a trainer: all that can be wrong is found here, before
the first step.
"""

import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from groundup.checkpoints import model_folder
from groundup.checkpoints import publish as checkpoint
from groundup.checkpoints.adapter_folder import Base
from groundup.data.dataset import Dataset, check_tokenizer, make_dataset
from groundup.data.loader import Loader
from groundup.errors import RunError
from groundup.machine import device as machines
from groundup.machine.device import Machine
from groundup.models.lora import adapt, adapter_of
from groundup.models.registry import Model, build, count_parameters
from groundup.optim.groups import build_optimizers, rules_of
from groundup.optim.schedules import Schedule
from groundup.parallel.sharding import distribute
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RunFolder, check_new_name, create_run
from groundup.training.checks import (
    check_division,
    check_same_beginning,
    check_same_items,
    check_same_processes,
    check_same_shape,
    check_same_text,
    check_same_versions,
    versions,
)
from groundup.training.compiling import compile_in_place
from groundup.training.initial import initial_model, resumed_model
from groundup.training.length import resolve_length
from groundup.training.objective import NextTokenLoss
from groundup.training.periodic import open_evaluations
from groundup.training.session import Surroundings, choose_tokenizer, read_corpora
from groundup.training.state import Progress, read_state
from groundup.training.tensorboard import check_installed
from groundup.training.trainer import Trainer

CPU_OPERATIONS_PER_SECOND = 2e11  # of a small machine: only to judge whether compiling pays


def start(
    recipe: Recipe, recipe_name: str, name: str | None, around: Surroundings
) -> tuple[Trainer, RunFolder]:
    """A new run: its folder is made last, when nothing can be wrong with it any more."""
    check_division(recipe, around.world)
    check_new_name(name)
    if recipe.train.log == "tensorboard":
        check_installed()
    begun = initial_model(recipe)
    corpora = read_corpora(recipe.data.corpus, Path.cwd(), around)
    tokenizer = choose_tokenizer(recipe, begun and begun.tokenizer, corpora, Path.cwd(), around)
    text = make_dataset(corpora, recipe, tokenizer)
    evaluations = open_evaluations(recipe, text.tokenizer, Path.cwd(), around.world)
    base = begun.base if begun and recipe.lora.rank else None
    trainer = assemble(recipe, text, begun and begun.model, around)
    trainer = replace(trainer, evaluations=evaluations, base=base)
    recipe = resolve_length(trainer)
    trainer = replace(
        trainer, recipe=recipe, schedule=Schedule.of(recipe.optim, recipe.train.steps)
    )
    path = str(create_run(recipe_name, name).path) if around.world.is_main else ""
    run = RunFolder(Path(around.world.agree(path)))
    if around.world.is_main:
        run.write_facts(facts_of(trainer, text, begun and begun.base))
        run.write_recipe(recipe)  # last: a folder with a recipe is a run
    around.world.barrier()  # the other processes read what was written
    return trainer, run


def resume(
    recipe: Recipe, run: RunFolder, data_may_differ: bool, around: Surroundings
) -> tuple[Trainer, Path | None]:
    """The run as it was after its newest intact checkpoint, and that checkpoint; from the beginning
    if it has none.
    """
    check_division(recipe, around.world)
    saved, facts = checkpoint.steps(run.checkpoints), run.read_facts()
    check_same_processes(recipe, facts, around.world, around.journal)
    folder = checkpoint.newest_valid(saved)
    if saved and not folder:
        raise RunError(
            f"all {len(saved)} checkpoints of {run.name} are damaged: none to resume from. Start "
            "a new run"
        )
    begun = resumed_model(folder, recipe) if folder else initial_model(recipe)
    if folder is None:
        check_same_beginning(begun and begun.base, facts, recipe)
    tokenizer = begun and begun.tokenizer
    corpora = read_corpora(recipe.data.corpus, Path(facts["folder"]), around)
    check_same_text(recipe.data.corpus, corpora, facts, data_may_differ, around.journal)
    if folder is None:
        tokenizer = choose_tokenizer(recipe, tokenizer, corpora, Path(facts["folder"]), around)
    check_tokenizer(corpora, tokenizer, "that of the run")
    check_same_versions(facts, around.journal)
    text = make_dataset(corpora, recipe, tokenizer)
    began_in = Path(facts["folder"])
    evaluations = open_evaluations(recipe, text.tokenizer, began_in, around.world)
    check_same_items(evaluations, facts, data_may_differ, around.journal)
    base = begun.base if begun and recipe.lora.rank else None
    trainer = assemble(recipe, text, begun and begun.model, around)
    trainer = replace(trainer, evaluations=evaluations, base=base)
    if folder and begun:
        trainer.model.load_state_dict(begun.adapter, strict=False)
        trainer.progress = read_state(folder, trainer.model, trainer.optimizers)
    if around.world.is_main:
        run.forget_after(trainer.progress.step if folder else -1)
        run.write_recipe(recipe)
        checkpoint.remove_unfinished(run.checkpoints)
        if folder:  # a kill may have come between the checkpoint and the links to it
            checkpoint.point(run.checkpoints / "latest", folder)
            if trainer.progress.best_step == trainer.progress.step:
                checkpoint.point(run.checkpoints / "best", folder)
    where = f"step {trainer.progress.step:,} of {recipe.train.steps:,}"
    around.journal.say(
        f"resuming {run.name} at {where}, from "
        f"{folder or 'the beginning: it has no checkpoint yet'}"
    )
    return trainer, folder


def assemble(recipe: Recipe, text: Dataset, model: Model | None, around: Surroundings) -> Trainer:
    """The parts of a run put together at step 0, on the machine, compiled and distributed."""
    source = text.sampler(recipe)
    recipe, machine = choose_machine(recipe, text, around.world)
    machines.make_deterministic(machine.device)
    if machine.device.type == "cpu":
        machines.keep_freed_memory()
        if warning := machines.warning_about_cpu(recipe.train.threads * around.world.local_size):
            around.journal.say(warning)
    padded = model is not None and model_folder.fits(text.tokenizer, model.config.vocab_size)
    config = recipe.model_config(
        model.config.vocab_size if model is not None and padded else text.tokenizer.vocab_size
    )
    if model is None:
        torch.manual_seed(recipe.train.seed)
        model = build(recipe.model.architecture, config)
    check_same_shape(model, recipe.model.architecture, config)
    model.to(machine.device, machine.weight_dtype).train()
    if recipe.lora.rank:
        torch.manual_seed(recipe.train.seed)
        adapt(model, recipe.lora.rank, recipe.lora.alpha)
    objective = NextTokenLoss(model, machine.precision)
    rows = recipe.train.micro_batch_size or recipe.train.batch_size // around.world.size
    trainer = Trainer(
        recipe=recipe,
        machine=machine,
        world=around.world,
        text=text,
        model=model,
        objective=objective,
        distributed=objective,
        optimizers=build_optimizers(model, rules_of(recipe), recipe.optim, machine.product_dtype),
        schedule=Schedule.of(recipe.optim, max(1, recipe.train.steps)),
        batches=Loader(source, rows, around.world.rank, around.world.size, machine.device),
        journal=around.journal,
        stop=around.stop,
        progress=Progress(),
    )
    if recipe.train.compile == "on" and not compile_in_place(trainer):
        trainer.recipe = replace(recipe, train=replace(recipe.train, compile="off"))
    trainer.distributed = distribute(objective, around.world)
    return trainer


def choose_machine(recipe: Recipe, text: Dataset, world: World) -> tuple[Recipe, Machine]:
    """The recipe with everything automatic resolved, and the machine that it means. Raises
    MachineError.
    """
    device = machines.choose_device(recipe.train.device, world.local_rank)
    precision = machines.choose_precision(recipe.train.precision, device)
    tokens = (
        recipe.tokens_per_step * recipe.train.steps or recipe.train.epochs * text.training_tokens
    )
    operations = 6 * recipe.parameter_count(text.tokenizer.vocab_size) * tokens
    seconds = 60 * recipe.train.minutes or operations / CPU_OPERATIONS_PER_SECOND
    compiled = "on" if machines.choose_compile(recipe.train.compile, device, seconds) else "off"
    threads = machines.set_threads(recipe.train.threads, world)
    name = device.type if recipe.train.device == "auto" else recipe.train.device
    resolved = replace(
        recipe.train, device=name, precision=precision, compile=compiled, threads=threads
    )
    return replace(recipe, train=resolved), Machine(device, precision)


def parameter_counts(model: Model) -> dict[str, int]:
    """How many parameters the model has, its adapters not among them: merged, they are none. And
    how many train.
    """
    everything = count_parameters(model)
    adapters = sum(tensor.numel() for tensor in adapter_of(model).values())
    return {"parameters": everything - adapters, "trained_parameters": adapters or everything}


def facts_of(trainer: Trainer, text: Dataset, began_with: Base | None) -> dict[str, Any]:
    """run.json: what the recipe can't know."""
    optional: dict[str, Any] = {"init": began_with and began_with.weights}
    for evaluation in trainer.evaluations:
        optional[evaluation.task.name] = {"sha256": evaluation.task.file.sha256}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **parameter_counts(trainer.model),
        "vocab_size": text.tokenizer.vocab_size,
        "corpus": {
            "name": text.name,
            "fingerprint": text.fingerprint,
            "training_tokens": text.training_tokens,
            "validation_tokens": text.validation_tokens,
            "parts": {part.name: part.fingerprint for part in text.parts},
        },
        "folder": str(Path.cwd()),
        "processes": trainer.world.size,
        "versions": versions() | {"python": platform.python_version()},
    } | {name: fact for name, fact in optional.items() if fact}
