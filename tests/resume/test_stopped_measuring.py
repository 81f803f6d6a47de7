"""A stop saves first and gives up what is being measured; the resumed run measures it, as if it had
never been stopped.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import (
    assert_same_training,
    checkpoint,
    flags,
    groundup,
    metrics,
    started,
    trained,
    wait_for_step,
    write_text,
)

STEPS, STOPPED = 6, 3


def arguments(name: str) -> list[str]:
    """A run whose evaluations, samples and scorings take some tenths of a second each."""
    slow = {
        "--eval.every": 3,
        "--train.batch-size": 1,
        "--model.dropout": 0.1,
        "--model.n-layer": 1,
    }
    slow |= {"--eval.train-tokens": 5000, "--eval.sample-length": 120}
    slow |= {"--eval.task": "choices", "--eval.task-every": 3, "--eval.task-items": 0}
    slow |= {"--eval.task-file": "items.jsonl", "--eval.patience": 2}
    return ["train", *flags(slow | {"--steps": STEPS, "--name": name})]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/unbroken`."""
    folder = tmp_path_factory.mktemp("measuring")
    write_text(folder)
    item = {"context": "the quick", "endings": [" brown", " fox", " lazy", " a"], "label": 0}
    lines = [json.dumps(item | {"label": number % 4}) for number in range(200)]
    (folder / "items.jsonl").write_text("\n".join(lines), "utf-8")
    trained(*arguments("unbroken")[1:], folder=folder)
    return folder


def evaluating(run: Path, step: int) -> bool:
    return len(metrics(run)) >= step


def sampling(run: Path, step: int) -> bool:
    return metrics(run, "evaluation")[-1]["step"] == step


def scoring(run: Path, step: int) -> bool:
    samples = run / "samples.txt"
    return samples.exists() and f"======== step {step} " in samples.read_text("utf-8")


def measured(run: Path) -> list[dict[str, object]]:
    """All records in their order, less what depends on the clock."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    clock = {"seconds", "tokens_per_second"}
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


@pytest.mark.parametrize(
    ("moment", "step"), [(evaluating, STEPS), (sampling, STOPPED), (scoring, STOPPED)]
)
def test_stopped_while_measuring_and_resumed_equals_unbroken(
    folder: Path, moment: Callable[[Path, int], bool], step: int
) -> None:
    name = f"{moment.__name__}-{step}"
    run = folder / "runs" / name
    with started(*arguments(name), folder=folder) as running:
        while not (
            (run / "metrics.jsonl").exists() and evaluating(run, step) and moment(run, step)
        ):
            assert running.process.is_alive(), running.output("stderr")
        running.send(signal.SIGTERM)
        finished = running.wait()
    assert finished.returncode == 143, finished.stderr
    assert metrics(run)[-1]["step"] == step
    assert [line["step"] for line in metrics(run, "choices")] == [*range(0, step, 3)]
    assert f"saved runs/{name}/checkpoints/step-{step:06d}" in finished.stdout
    resumed = trained("--resume", name, folder=folder)
    assert f"done: {STEPS} steps" in resumed.stdout
    unbroken = folder / "runs" / "unbroken"
    assert measured(run) == measured(unbroken)
    assert (run / "samples.txt").read_bytes() == (unbroken / "samples.txt").read_bytes()
    assert_same_training(run, unbroken, STEPS)
    names = [(each / "checkpoints" / "steps.json").read_text("utf-8") for each in (run, unbroken)]
    assert names[0] == names[1]
    states = [
        json.loads((checkpoint(each, STEPS) / "training" / "state.json").read_text("utf-8"))
        for each in (run, unbroken)
    ]
    no_times = {"seconds": 0, "spent": 0}
    assert states[0] | no_times == states[1] | no_times
    assert "is finished" in groundup("train", "--resume", name, folder=folder).stderr


def drawn(run: Path) -> dict[str, list[int]]:
    """The steps of each curve that TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    scalars = events.Tags()["scalars"]
    return {name: [event.step for event in events.Scalars(name)] for name in scalars}


def assert_drawn_once(run: Path) -> None:
    """TensorBoard shows what metrics.jsonl has, each value once."""
    shown = drawn(run)
    kinds = {"loss/step": "step", "loss/validation": "evaluation"}
    kinds |= {name: "choices" for name in shown if name.startswith("choices/")}
    for curve, kind in kinds.items():
        assert shown[curve] == [line["step"] for line in metrics(run, kind)], curve


def test_what_is_measured_again_is_drawn_once(folder: Path) -> None:
    """The evaluation was recorded before the stop, and is owed with the sample nevertheless."""
    run, words = folder / "runs" / "drawn", ("--train.log", "tensorboard")
    with started(*arguments("drawn"), *words, folder=folder) as running:
        while not (
            (run / "metrics.jsonl").exists() and evaluating(run, STOPPED) and sampling(run, STOPPED)
        ):
            assert running.process.is_alive(), running.output("stderr")
        running.send(signal.SIGTERM)
        assert running.wait().returncode == 143
    assert drawn(run)["loss/validation"] == [0, STOPPED]
    trained("--resume", "drawn", folder=folder)
    assert_drawn_once(run)


@pytest.mark.parametrize("every", [0, 10])
def test_killed_steps_are_drawn_once(every: int, tmp_path: Path) -> None:
    """Whether the run begins again, because it has no checkpoint, or goes on from one."""
    write_text(tmp_path)
    run, log = tmp_path / "runs" / "run", {"--train.log": "tensorboard", "--eval.every": every}
    steps = flags(log | {"--steps": 60, "--name": "run"})
    with started("train", *steps, folder=tmp_path) as running:
        wait_for_step(running, run, 25)
        running.send(signal.SIGKILL)
        running.wait()
    assert len(drawn(run)["loss/step"]) >= 15  # less what waited to be written
    trained("--resume", "run", folder=tmp_path)
    assert drawn(run)["loss/step"] == list(range(1, 61))
    assert_drawn_once(run)


def test_stopped_in_the_first_evaluation_begins_again(folder: Path) -> None:
    run = folder / "runs" / "first"
    with started(*arguments("first"), folder=folder) as running:
        while "machine: " not in running.output("stdout"):
            assert running.process.is_alive(), running.output("stderr")
        running.send(signal.SIGTERM)
        finished = running.wait()
    assert finished.returncode == 143, finished.stderr
    assert "go on with: groundup train --resume first" in finished.stdout
    assert not (run / "checkpoints").exists()
    trained("--resume", "first", folder=folder)
    assert_same_training(run, folder / "runs" / "unbroken", STEPS)
    assert measured(run) == measured(folder / "runs" / "unbroken")
