"""A run that has minutes to keep to: its length is planned by measured costs, decided once more on
the way, and recorded, so that a resumed run is the same run.
"""

import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import astuple, dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import assert_same_training, checkpoint, flags, metrics, write_text
from groundup.cli.main import app
from groundup.runs.folder import SCRATCH, scratch_folder
from groundup.training import length
from groundup.training.costs import Costs, TimeBudget
from groundup.training.state import StateWriter
from groundup.training.trainer import Trainer

SECONDS = st.floats(0.0, 100.0)
costs = st.builds(
    Costs,
    step=st.floats(1e-3, 10.0),
    evaluation=SECONDS,
    sample=SECONDS,
    checkpoint=SECONDS,
    every=st.integers(0, 50),
    tasks=st.lists(st.tuples(SECONDS, st.integers(1, 50)), max_size=2).map(tuple),
)


def seconds_of_a_run(costs: Costs, steps: int) -> float:
    """Do nothing but count, in the order in which a trainer does things."""
    seconds = 0.0
    for step in range(steps + 1):
        last = step == steps
        seconds += costs.step if step else 0.0
        if last or step == 0 or (costs.every and step % costs.every == 0):
            seconds += costs.evaluation + (costs.sample + costs.checkpoint if step else 0.0)
        seconds += sum(task for task, every in costs.tasks if last or step % every == 0)
    return seconds


@given(costs=costs, steps=st.integers(1, 200))
def test_the_cost_of_a_run_is_that_of_all_that_it_does(costs: Costs, steps: int) -> None:
    assert costs.whole(steps) == pytest.approx(seconds_of_a_run(costs, steps))


@given(costs=costs, seconds=st.floats(0.0, 1e4), least=st.integers(1, 20))
def test_as_many_steps_as_fit(costs: Costs, seconds: float, least: int) -> None:
    steps = costs.steps_within(seconds, least)
    assert steps >= least
    assert costs.whole(steps + 1) > seconds
    assert steps == least or costs.whole(steps) <= seconds


@pytest.mark.parametrize(
    ("costs", "steps"),
    [
        (Costs(0.5), 120),
        (Costs(0.5, evaluation=5.0), 100),  # at both ends
        (Costs(0.5, evaluation=5.0, sample=2.0, checkpoint=1.0), 94),  # at the end alone
        (Costs(1.0, evaluation=5.0, every=10), 35),  # and after 10, 20 and 30 steps
        (Costs(1.0, tasks=((10.0, 25),)), 30),  # at both ends, and after 25 steps
        (Costs(100.0), 1),  # never none
    ],
)
def test_a_minute_by_hand(costs: Costs, steps: int) -> None:
    assert costs.steps_within(60.0) == steps


@given(costs=costs, steps=st.integers(1, 100), slower=st.floats(1.0, 3.0))
def test_steps_that_really_cost_more_correct_the_costs(
    costs: Costs, steps: int, slower: float
) -> None:
    real = replace(costs, step=slower * costs.step)
    found = costs.corrected(steps, steps * real.step, real.until(steps))
    assert found.step == pytest.approx(real.step, rel=1e-3, abs=1e-6 * real.until(steps))
    assert costs.corrected(steps, 7.0 * steps, 0.0).step == 7.0  # never less than the steps took


@given(costs=costs)
def test_a_budget_comes_back_from_json(costs: Costs) -> None:
    budget = TimeBudget.of(60.0, costs)
    assert TimeBudget.from_json(json.loads(json.dumps(budget.to_json()))) == budget


# -- whole runs, on a clock of their own


@dataclass
class Clock:
    """A clock that stands still, except for what a run does."""

    now: float = 0.0
    step: float = 0.01
    real: float = 0.015

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """What is patched for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Clock:
    """A step takes 10 ms while it is measured and 15 ms in the run; reports take what they take."""
    patch.chdir(tmp_path_factory.mktemp("budget"))
    write_text(Path())
    patch.setattr("groundup.training.journal.plot_losses", lambda *_: None)
    patch.setattr("groundup.cli.training.FINAL_SAMPLE", 5)
    clock = Clock()

    def takes(owner: Any, name: str, seconds: Callable[[Any], float]) -> None:
        original = getattr(owner, name)

        def patched(*args: Any, **options: Any) -> Any:
            clock.now += seconds(args[0])
            return original(*args, **options)

        patch.setattr(owner, name, patched)

    def begin(_: Trainer) -> float:
        clock.step = clock.real
        return -clock.now

    takes(Trainer, "train", begin)
    takes(Trainer, "train_step", lambda _: clock.step)
    takes(Trainer, "measure_losses", lambda _: 0.10)
    takes(Trainer, "sample", lambda trainer: 0.05 if trainer.progress.step else 0.0)
    takes(length, "write_sample", lambda _: 0.05)
    takes(StateWriter, "write", lambda _: 0.02)
    patch.setattr("groundup.training.trainer.time", clock)
    patch.setattr("groundup.machine.timing.time", clock)
    return clock


@dataclass
class Unbroken:
    """A run of 0.05 minutes, when it ended, and what was printed."""

    run: Path
    ended: float
    said: str


@pytest.fixture(scope="module")
def unbroken(clock: Clock) -> Unbroken:
    """A run of three seconds by the clock, with dropout and a schedule that knows its length."""
    changes = {"--eval.every": 20, "--model.dropout": 0.1, "--train.keep-checkpoints": 99}
    with redirect_stdout(StringIO()) as said:
        train(*flags(changes), "--train.minutes", 0.05, "--name", "unbroken")
    return Unbroken(Path("runs/unbroken"), clock.now, said.getvalue())


def train(*args: object) -> None:
    """`groundup train ARGS...` in this process, which must succeed."""
    with pytest.raises(SystemExit) as left:
        app(list(map(str, ["train", *args])), exit_on_error=False, print_error=False)
    assert left.value.code == 0


def recorded_steps(run: Path) -> int:
    """The steps of a run's recipe."""
    recipe = tomllib.loads((run / "recipe.toml").read_text("utf-8"))
    assert recipe["train"]["minutes"] == 0.0
    return recipe["train"]["steps"]


def recorded_length(run: Path) -> tuple[int, dict[str, Any]]:
    """The steps of a run's recipe, and its time budget."""
    facts = json.loads((run / "run.json").read_text("utf-8"))
    return recorded_steps(run), facts["time_budget"]


def test_a_run_ends_when_its_minutes_do(unbroken: Unbroken) -> None:
    assert unbroken.ended == pytest.approx(3.0, abs=0.17 + 0.02)  # a report and a step
    steps, budget = recorded_length(unbroken.run)
    found = TimeBudget.from_json(budget)
    measured = Costs(0.01, 0.10, 0.05, 0.02, every=20)
    assert astuple(found.costs)[:5] == pytest.approx(astuple(measured)[:5])
    assert found.planned == measured.steps_within(3.0) == 153
    real = replace(measured, step=0.015)
    assert steps == found.decided == real.steps_within(3.0) == 120
    assert metrics(unbroken.run)[-1]["step"] == steps
    planned = "0.05 minutes on this machine are 153 steps, decided once more after step 51"
    decided = (
        "step     51  0.05 minutes are 120 steps by what the first ones took; 153 were planned"
    )
    assert planned in unbroken.said
    assert decided in unbroken.said


def forget_decision(run: Path) -> None:
    """Make a run one that was killed before its length was decided."""
    facts = json.loads((run / "run.json").read_text("utf-8"))
    facts["time_budget"]["decided"] = 0
    (run / "run.json").write_text(json.dumps(facts), "utf-8")
    recipe = (run / "recipe.toml").read_text("utf-8")
    assert "\nsteps = 120\n" in recipe
    (run / "recipe.toml").write_text(recipe.replace("\nsteps = 120\n", "\nsteps = 153\n"))


def only_until(run: Path, name: str, step: int) -> Path:
    """A copy of a run as it was when it had been killed after the checkpoint of a step."""
    copied = run.with_name(name)
    shutil.copytree(run, copied, symlinks=True)
    for folder in copied.glob("checkpoints/step-*"):
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    return copied


@pytest.mark.parametrize("step", [20, 40, 60])
def test_a_resumed_run_has_the_length_that_was_decided(
    unbroken: Unbroken, clock: Clock, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    copied = only_until(unbroken.run, f"killed-{step}", step)
    monkeypatch.setattr(clock, "real", 1.0)  # much slower now: what was decided stays
    train("--resume", copied.name)
    assert recorded_length(copied) == recorded_length(unbroken.run)
    assert_same_training(copied, unbroken.run, 120)
    rates = [[line["learning_rate"] for line in metrics(run)] for run in (copied, unbroken.run)]
    assert rates[0] == rates[1]


def test_a_run_killed_while_its_length_was_recorded_has_it(unbroken: Unbroken) -> None:
    copied = only_until(unbroken.run, "recording", 60)
    recipe = (copied / "recipe.toml").read_text("utf-8")
    assert "\nsteps = 120\n" in recipe
    (copied / "recipe.toml").write_text(recipe.replace("\nsteps = 120\n", "\nsteps = 153\n"))
    train("--resume", "recording")
    assert recorded_length(copied)[0] == 120
    assert_same_training(copied, unbroken.run, 120)


def test_steps_that_the_user_gives_end_the_budget(unbroken: Unbroken) -> None:
    copied = only_until(unbroken.run, "longer", 20)
    train("--resume", "longer", "--steps", 150)
    assert recorded_steps(copied) == 150
    assert metrics(copied)[-1]["step"] == 150


@pytest.mark.parametrize("undecided", [False, True])
def test_the_planned_length_can_be_asked_for(unbroken: Unbroken, undecided: bool) -> None:
    copied = only_until(unbroken.run, f"planned-{undecided}", 40)
    if undecided:
        forget_decision(copied)
    train("--resume", copied.name, "--steps", 153)
    assert metrics(copied)[-1]["step"] == 153
    assert recorded_steps(copied) == 153
    assert "time_budget" not in json.loads((copied / "run.json").read_text("utf-8"))
    shutil.rmtree(checkpoint(copied, 153))
    train("--resume", copied.name)
    assert metrics(copied)[-1]["step"] == 153


def test_a_run_that_was_killed_before_decides_on_its_own(unbroken: Unbroken) -> None:
    copied = only_until(unbroken.run, "undecided", 20)
    forget_decision(copied)
    train("--resume", "undecided")
    steps, budget = recorded_length(copied)
    assert steps == budget["decided"] == pytest.approx(120, abs=2)  # a checkpoint's time is lost
    assert json.loads((checkpoint(copied, steps) / "training/state.json").read_text("utf-8"))[
        "spent"
    ] == pytest.approx(3.0, abs=0.4)


def test_what_a_killed_measurement_left_is_removed_an_hour_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    old, new = (Path("runs", f"{SCRATCH}{name}") for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (1.0, 1.0))
    with scratch_folder() as folder:
        assert folder.parent == Path("runs")
    assert sorted(Path("runs").iterdir()) == [new]
