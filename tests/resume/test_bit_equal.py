"""A run is a pure function of its recipe: stopped, killed or left alone, it ends with the same bits
(faults.md, 1).
"""

import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import (
    Running,
    assert_same_training,
    checkpoint,
    flags,
    groundup,
    metrics,
    started,
    steps_once,
    steps_so_far,
    trained,
    wait_for_step,
    write_text,
)
from shard_files import documents, learned, write_shards

MODERN: dict[str, object] = {
    **{"--model.architecture": "modern", "--optim.optimizer": "muon", "--optim.schedule": "wsd"},
    **{"--optim.learning-rate": 5e-3, "--train.precision": "bfloat16"},
}
KINDS: dict[str, dict[str, object]] = {
    "bigram": {"--model.architecture": "bigram"},
    "dropout": {"--model.dropout": 0.2},
    "accumulation": {"--model.dropout": 0.1, "--train.micro-batch-size": 2},
    "bfloat16": {"--model.dropout": 0.1, "--train.precision": "bfloat16"},
    "modern": MODERN | {"--model.n-kv-head": 1, "--train.micro-batch-size": 2},
    "mixture": {"--corpus": "shards:0.7,text.txt:0.3", "--data.documents": "cut"},
}
LONG = {"bigram", "dropout", "bfloat16"}  # what they have in them the others have too, but alone
STEPS = 100
EVALUATIONS: dict[str, object] = {"--eval.every": STEPS // 4}
# enough to be interrupted
SLOW: dict[str, object] = {"--train.batch-size": 16, "--train.micro-batch-size": 1}
COMPILED: dict[str, dict[str, object]] = {
    "gpt2": SLOW | {"--train.compile": "on", "--model.n-layer": 1, "--model.dropout": 0.1},
    "modern": SLOW | MODERN | {"--train.compile": "on"},
}
COMPILED_STEPS = 60


@dataclass(frozen=True)
class Experiment:
    """A folder in which one recipe was trained to its end, as the run `unbroken`."""

    folder: Path
    changes: dict[str, object]
    steps: int

    @property
    def unbroken(self) -> Path:
        return self.folder / "runs" / "unbroken"

    def arguments(self, name: str, changes: dict[str, object] | None = None) -> list[str]:
        """How to train the recipe again under another name."""
        return [
            "train",
            *flags(self.changes | {"--steps": self.steps, "--name": name} | (changes or {})),
        ]


def experiment(folder: Path, changes: dict[str, object], steps: int) -> Experiment:
    """Write the text and train to the end."""
    write_text(folder)
    write_shards(folder / "shards", learned(), documents())
    begun = Experiment(folder, changes, steps)
    finished = groundup(*begun.arguments("unbroken"), folder=folder)
    assert finished.returncode == 0, finished.stderr
    return begun


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in KINDS],
)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    changes = KINDS[request.param] | EVALUATIONS
    return experiment(tmp_path_factory.mktemp(request.param), changes, STEPS)


@pytest.fixture(scope="module", params=COMPILED)
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Experiment:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    return experiment(tmp_path_factory.mktemp("compiled"), COMPILED[request.param], COMPILED_STEPS)


def stop_at(of: Experiment, arguments: list[str], run: Path, step: int, number: int) -> None:
    """Send a signal once `step` steps are logged, so that the run is cut short by it."""
    with started(*arguments, folder=of.folder) as running:
        wait_for_step(running, run, step)
        running.send(number)
        status = running.wait().returncode
    # a busy machine: it was done before the signal came
    if status == 0 and "--resume" not in arguments:
        shutil.rmtree(run)
        stop_at(of, arguments, run, step, number)
    else:
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)


def test_two_unbroken_runs_are_equal(kind: Experiment) -> None:
    finished = groundup(*kind.arguments("again"), folder=kind.folder)
    assert finished.returncode == 0, finished.stderr
    assert_same_training(kind.folder / "runs" / "again", kind.unbroken, STEPS)


def test_evaluation_and_samples_change_no_weight(kind: Experiment) -> None:
    silent = {"--eval.every": 0, "--eval.sample-length": 0, "--eval.train-tokens": 0}
    finished = groundup(*kind.arguments("silent", silent), folder=kind.folder)
    assert finished.returncode == 0, finished.stderr
    assert len(metrics(kind.unbroken, "evaluation")) == 5
    assert len(metrics(kind.folder / "runs" / "silent", "evaluation")) == 1
    assert not (kind.folder / "runs" / "silent" / "samples.txt").exists()
    assert_same_training(kind.folder / "runs" / "silent", kind.unbroken, STEPS)


def test_stopped_and_resumed_equals_unbroken(kind: Experiment) -> None:
    run = kind.folder / "runs" / "stopped"
    stop_at(kind, kind.arguments("stopped"), run, STEPS // 3, signal.SIGTERM)
    saved = len(metrics(run))
    assert STEPS // 3 <= saved < STEPS
    assert checkpoint(run, saved).is_dir()
    resumed = trained("--resume", "stopped", folder=kind.folder)
    assert f"resuming stopped at step {saved:,} of {STEPS}" in resumed.stdout
    assert_same_training(run, kind.unbroken, STEPS)
    assert metrics_without_seconds(run) == metrics_without_seconds(kind.unbroken)


def metrics_without_seconds(run: Path) -> list[dict[str, object]]:
    """The evaluations, less what depends on the clock."""
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in metrics(run, "evaluation")
    ]


def test_killed_at_random_moments_and_resumed_equals_unbroken(kind: Experiment) -> None:
    """faults.md, 1: with a save every 4 steps, so that kills land in all phases of one; each second
    one surely does.
    """
    run, moments = kind.folder / "runs" / "killed", random.Random(0)
    begin = kind.arguments(
        "killed", {"--eval.every": 4, "--eval.sample-length": 5, "--train.keep-checkpoints": 2}
    )
    resume, kills = ["train", "--resume", "killed"], 0
    while not checkpoint(run, STEPS).is_dir():
        arguments = resume if (run / "recipe.toml").exists() else begin
        with started(*arguments, folder=kind.folder) as running:
            wait_for_step(running, run, steps_so_far(run) + moments.randrange(10, 25))
            if kills % 2:
                wait_for_save(running, run)
            else:
                time.sleep(moments.random() / 100)
            running.send(signal.SIGKILL)
            status = running.wait().returncode
        kills += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL), status
    assert kills >= 3
    assert_same_training(run, kind.unbroken, STEPS)
    assert [line["step"] for line in metrics(run, "evaluation")] == list(range(0, STEPS + 1, 4))


def wait_for_save(running: Running, run: Path) -> None:
    """Until a checkpoint is being written."""
    while running.process.is_alive() and not list((run / "checkpoints").glob(".writing-*")):
        pass


@pytest.mark.long
def test_compiled_stopped_and_resumed_equals_unbroken(compiled: Experiment) -> None:
    """Three processes compile here, which is what takes the time; the first steps come from two
    unbroken ones.
    """
    run = compiled.folder / "runs" / "stopped"
    stop_at(compiled, compiled.arguments("stopped"), run, 20, signal.SIGTERM)
    resumed = trained("--resume", "stopped", folder=compiled.folder)
    assert ", compiled" in resumed.stdout  # and no fallback
    assert_same_training(run, compiled.unbroken, COMPILED_STEPS)


def test_another_seed_is_another_run(kind: Experiment) -> None:
    """What the others compare could differ."""
    trained(
        *flags(kind.changes | {"--steps": 5, "--seed": 1, "--name": "other-seed"}),
        folder=kind.folder,
    )
    pairs = zip(
        steps_once(kind.folder / "runs" / "other-seed", 5),
        steps_once(kind.unbroken, STEPS),
        strict=False,
    )
    for (loss, batch_hash), (other_loss, other_hash) in pairs:
        assert loss != other_loss
        assert batch_hash != other_hash
