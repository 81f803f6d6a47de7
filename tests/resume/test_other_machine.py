"""A run may go on with what another machine has: said, recorded, and by advice that works."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import checkpoint, flags, groundup, metrics, trained, write_text
from conftest import error_line
from groundup.cli import main as command_line
from groundup.errors import OutOfMemoryError, RecipeError
from groundup.machine import device as machine
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe
from groundup.training.checks import check_division
from groundup.training.failures import explain_out_of_memory

SHORT: dict[str, object] = {"--steps": 4, "--eval.every": 2, "--train.batch-size": 6}
SHORT |= {"--optim.schedule": "constant"}  # more steps change no learning rate


@pytest.fixture(scope="module")
def trained_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/run`, and `runs/drops` with dropout."""
    folder = tmp_path_factory.mktemp("here")
    write_text(folder)
    trained(*flags(SHORT | {"--name": "run"}), folder=folder)
    trained(*flags(SHORT | {"--name": "drops", "--model.dropout": 0.1}), folder=folder)
    return folder


@pytest.fixture
def here(trained_here: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return Path(shutil.copytree(trained_here, tmp_path / "here", symlinks=True))


def facts_of(folder: Path, run: str = "run") -> dict[str, Any]:
    return json.loads((folder / "runs" / run / "run.json").read_text("utf-8"))


def record(folder: Path, key: str, value: object, run: str = "run") -> None:
    """Write another value into the run's recorded recipe, as if another machine had chosen it."""
    file = folder / "runs" / run / "recipe.toml"
    text = re.sub(
        rf"^{key} = .*$", f"{key} = {json.dumps(value)}", file.read_text("utf-8"), flags=re.M
    )
    file.write_text(text, "utf-8")


def test_threads_and_micro_batch_may_change_and_are_recorded(here: Path) -> None:
    changed = ("--train.threads", 2, "--train.micro-batch-size", 3)
    resumed = trained("--resume", "run", "--steps", 6, *changed, folder=here)
    for said in ("train.threads 1 -> 2", "train.micro_batch_size 0 -> 3"):
        line = next(line for line in resumed.stdout.splitlines() if said in line)
        assert "from step 4 on" in line
        assert "no unbroken run bit for bit" in line
    assert ", 2 threads" in resumed.stdout
    recipe = (here / "runs" / "run" / "recipe.toml").read_text("utf-8")
    assert "threads = 2\n" in recipe
    assert "micro_batch_size = 3\n" in recipe
    found = [
        (change["step"], change["what"], change["was"], change["is"])
        for change in facts_of(here)["changes"]
    ]
    assert (4, "train.threads", 1, 2) in found
    assert (4, "train.micro_batch_size", 0, 3) in found
    # what is recorded is the default from then on, and no news
    again = trained("--resume", "run", "--steps", 8, folder=here)
    assert "bit for bit" not in again.stdout
    assert ", 2 threads" in again.stdout
    assert (
        len([1 for change in facts_of(here)["changes"] if change["what"] == "train.threads"]) == 1
    )


def test_the_tokens_stay_when_the_micro_batch_changes(here: Path) -> None:
    trained("--resume", "run", "--steps", 6, "--train.micro-batch-size", 2, folder=here)
    trained(*flags(SHORT | {"--name": "unbroken", "--steps": 6}), folder=here)
    runs = [metrics(here / "runs" / name) for name in ("run", "unbroken")]
    hashes = [[line["batch_hash"] for line in lines] for lines in runs]
    assert hashes[0] == hashes[1]
    assert runs[0][5]["loss"] == pytest.approx(runs[1][5]["loss"], rel=1e-3)


def test_a_micro_batch_that_draws_other_dropout_is_refused(here: Path) -> None:
    before = (here / "runs" / "drops" / "recipe.toml").read_bytes()
    given = ("--steps", 6, "--train.micro-batch-size", 3)
    line = error_line(groundup("train", "--resume", "drops", *given, folder=here))
    assert "train.micro_batch_size was 0 when drops began and can't become 3" in line
    assert "dropout (0.1) is drawn by micro-batch" in line
    assert (here / "runs" / "drops" / "recipe.toml").read_bytes() == before
    trained("--resume", "drops", "--steps", 6, "--train.threads", 2, folder=here)


def test_a_device_that_is_not_here_is_refused_with_one_that_is(here: Path) -> None:
    record(here, "device", "mps")
    line = error_line(groundup("train", "--resume", "run", "--steps", 6, folder=here))
    assert "device mps can't be used: this machine has no mps" in line
    assert "--train.device cpu" in line
    resumed = trained("--resume", "run", "--steps", 6, "--train.device", "cpu", folder=here)
    assert "train.device mps -> cpu" in resumed.stdout
    assert 'device = "cpu"\n' in (here / "runs" / "run" / "recipe.toml").read_text("utf-8")


def test_compiling_may_be_given_up(here: Path) -> None:
    record(here, "compile", "on")
    resumed = trained("--resume", "run", "--steps", 6, "--train.compile", "off", folder=here)
    assert "train.compile on -> off" in resumed.stdout
    assert 'compile = "off"\n' in (here / "runs" / "run" / "recipe.toml").read_text("utf-8")


def test_a_finished_run_records_nothing_when_it_is_refused(here: Path) -> None:
    before = {path: path.read_bytes() for path in (here / "runs" / "run").glob("*.*")}
    assert "is finished" in error_line(
        groundup("train", "--resume", "run", "--train.threads", 2, folder=here)
    )
    assert {path: path.read_bytes() for path in (here / "runs" / "run").glob("*.*")} == before


def test_another_processor_is_said_once(here: Path) -> None:
    file = here / "runs" / "run" / "run.json"
    facts = facts_of(here)
    assert facts["processor"] == machine.processor(torch.device("cpu"))
    file.write_text(json.dumps(facts | {"processor": "Abacus 1"}), "utf-8")
    resumed = trained("--resume", "run", "--steps", 6, folder=here)
    said = f"the processor is {facts['processor']}, and was Abacus 1 before"
    assert said in resumed.stdout
    assert facts_of(here)["changes"][0] | {"time": ""} == {
        "step": 4,
        "time": "",
        "what": "processor",
        "was": "Abacus 1",
        "is": facts["processor"],
    }
    assert "processor" not in trained("--resume", "run", "--steps", 8, folder=here).stdout


def test_bfloat16_without_units_for_it_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(here, "precision", "bfloat16")
    monkeypatch.chdir(here)
    monkeypatch.setattr(machine, "_cpu_has_bfloat16", lambda: False)
    assert command_line.run(["train", "--resume", "run", "--steps", "6"]) == 0
    assert "has no fast units for bfloat16" in capsys.readouterr().out
    monkeypatch.setattr(machine, "_cpu_has_bfloat16", lambda: True)
    assert command_line.run(["train", "--resume", "run", "--steps", "8"]) == 0
    assert "no fast units" not in capsys.readouterr().out


def recipe_of(batch: int, micro: int = 0, dropout: float = 0.0, init: str = "") -> Recipe:
    train = replace(Recipe().train, batch_size=batch, micro_batch_size=micro, init=init)
    return Recipe(train=train, model=replace(Recipe().model, dropout=dropout))


@pytest.mark.parametrize(
    ("recipe", "processes", "resumes", "said"),
    [
        (recipe_of(9), 1, False, "Lower train.micro_batch_size first, to 3 say (the result"),
        (recipe_of(9, 3), 1, False, "Lower train.micro_batch_size first, to 1 say"),
        (recipe_of(12), 2, False, "out of memory with 6 sequences"),
        (recipe_of(12), 2, False, "to 3 say"),
        (recipe_of(9, 1), 1, False, "Lower model.block_size first, then model.n_layer"),
        (recipe_of(9, 1, init="gpt2"), 1, False, "Lower model.block_size"),
        (recipe_of(9, dropout=0.1), 1, False, "to 3 say, then"),
        (recipe_of(9), 1, True, "Go on with a smaller one: --train.micro-batch-size 3"),
        (recipe_of(9, dropout=0.1), 1, True, "Go on where there is more memory"),
        (recipe_of(9, 1), 1, True, "Go on where there is more memory"),
    ],
)
def test_advice_for_less_memory_can_be_followed(
    recipe: Recipe, processes: int, resumes: bool, said: str
) -> None:
    with (
        pytest.raises(OutOfMemoryError) as refused,
        explain_out_of_memory(recipe, World(size=processes), resumes),
    ):
        raise MemoryError
    assert said in str(refused.value)
    if recipe.train.init:
        assert "n_layer, then" not in str(refused.value)
        assert "then model.n_layer" not in str(refused.value)


def test_out_of_memory_on_a_command_line_advises_a_divisor(tmp_path: Path) -> None:
    write_text(tmp_path)
    large = {"--steps": 5, "--model.n-embd": 8192, "--train.batch-size": 9}
    line = error_line(groundup("train", *flags(large), folder=tmp_path, memory=300 << 20))
    assert "Lower train.micro_batch_size first, to 3 say" in line


@pytest.mark.parametrize(
    ("batch", "micro", "size", "said"),
    [
        (12, 4, 2, "Choose train.micro_batch_size from 1, 2, 3, 6"),
        (12, 0, 5, "Start 1, 2, 3, 4, 6 or 12 processes"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_told_what_can(
    batch: int, micro: int, size: int, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        check_division(recipe_of(batch, micro), World(size=size))


@pytest.mark.parametrize(
    ("threads", "processes", "busy", "said"),
    [
        (2, 2, 0.0, "--train.threads 1"),  # on 3 cores
        (1, 4, 0.0, "Start at most 3 processes"),
        (2, 1, 3.0, "--train.threads 1"),
        (1, 2, 3.5, "Wait for them"),
    ],
)
def test_advice_for_a_busy_cpu_is_for_each_process(
    threads: int, processes: int, busy: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    monkeypatch.setattr(machine, "_busy_cores", lambda: busy)
    warning = machine.warning_about_cpu(threads, processes) or ""
    assert said in warning
    if said == "Wait for them":
        assert "--train.threads" not in warning


def test_a_diverged_run_is_told_what_a_new_one_can_do(tmp_path: Path) -> None:
    """--resume takes no other learning rate, and clip_norm = 1.0 was there."""
    write_text(tmp_path)
    exploding = {"--steps": 9, "--optim.optimizer": "adamw", "--optim.learning-rate": 1e9}
    exploding |= {"--optim.warmup-steps": 0, "--optim.weight-decay": 1e6, "--eval.every": 1}
    line = error_line(groundup("train", *flags(exploding), folder=tmp_path), status=1)
    assert "in a new run lower optim.learning_rate" in line
    assert "clip_norm" not in line
    assert not checkpoint(tmp_path / "runs" / "quickstart-1", 9).exists()
