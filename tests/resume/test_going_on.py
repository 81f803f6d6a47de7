"""`--resume` goes on with the same run: longer if asked for, from what is intact, and never as
another one.
"""

import json
import shutil
import signal
from pathlib import Path

import pytest

from commands import (
    assert_same_training,
    checkpoint,
    final_files,
    flags,
    groundup,
    metrics,
    started,
    steps_once,
    trained,
    wait_for_step,
    write_text,
)
from conftest import error_line


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/ended`: 20 steps, all done, with checkpoints after 5, 10, 15 and 20."""
    folder = tmp_path_factory.mktemp("ended")
    write_text(folder)
    trained(*tiny("ended", 20), folder=folder)
    return folder


def tiny(name: str, steps: int, changes: dict[str, object] | None = None) -> list[str]:
    """Flags of a short run that keeps each of its checkpoints."""
    fixed = {"--name": name, "--steps": steps, "--eval.every": 5, "--train.keep-checkpoints": 9}
    fixed |= {
        "--optim.schedule": "linear",
        "--optim.learning-rate": 0.003,
        "--optim.min-learning-rate": 1e-5,
    }
    return flags(fixed | (changes or {}))


@pytest.fixture
def copied(ended: Path, tmp_path: Path) -> Path:
    """A copy of the ended run's folder, to damage."""
    return Path(shutil.copytree(ended, tmp_path / "copy", symlinks=True))


def refusal(folder: Path, *arguments: object) -> str:
    """The one line with which `groundup train --resume` refuses, and nothing in the run folder
    changes.
    """
    before = contents(folder / "runs")
    line = error_line(groundup("train", "--resume", *arguments, folder=folder))
    assert contents(folder / "runs") == before
    return line


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_without_a_checkpoint_begins_again_only_with_the_same_weights(copied: Path) -> None:
    trained(*tiny("child", 5, {"--init": "ended"}), folder=copied)
    # as if it had been killed before the first
    shutil.rmtree(copied / "runs" / "child" / "checkpoints")
    trained("--resume", "child", folder=copied)
    shutil.rmtree(copied / "runs" / "child" / "checkpoints")
    trained("--resume", "ended", "--steps", 40, folder=copied)
    assert "the model ended has other weights than when the run began" in refusal(copied, "child")


def test_a_finished_run_is_refused_with_the_way_to_train_longer(ended: Path) -> None:
    line = error_line(groundup("train", "--resume", "ended", folder=ended))
    assert "ended is finished: 20 of 20 steps" in line
    assert "groundup train --resume ended --steps 40" in line


def test_an_unknown_run_is_refused_with_what_there_is(ended: Path) -> None:
    assert "no run named endd. Runs here: ended" in refusal(ended, "endd")


def test_fewer_steps_are_refused(ended: Path) -> None:
    line = refusal(ended, "ended", "--steps", 10)
    assert "--steps 10 is fewer than the 20 steps of ended" in line


@pytest.mark.parametrize(
    ("flag", "old", "new"),
    [
        ("--optim.learning-rate", "0.003", "0.5"),
        ("--model.n-layer", "2", "3"),
        ("--train.batch-size", "4", "8"),
        ("--train.seed", "1337", "7"),
        ("--data.corpus", "text.txt", "other.txt"),
        ("--eval.every", "5", "7"),
        ("--train.epochs", "0.0", "3.0"),
    ],
)
def test_another_field_is_refused_by_name(ended: Path, flag: str, old: str, new: str) -> None:
    line = refusal(ended, "ended", flag, new)
    field = flag.removeprefix("--").replace("-", "_")
    assert f"{field} was {old} when ended began and can't become {new}" in line
    # another shape can't start from these weights
    init = "" if field.startswith("model.") else " --init runs/ended"
    assert f"groundup train --config {Path('runs/ended/recipe.toml')}{init} {flag} {new}" in line


@pytest.mark.parametrize(
    ("short", "field"), [("--seed", "train.seed"), ("--corpus", "data.corpus")]
)
def test_a_short_flag_is_refused_as_the_field_that_it_is(
    ended: Path, short: str, field: str
) -> None:
    assert f"{field} was " in refusal(ended, "ended", short, "7")


def test_the_command_that_a_refusal_points_to_works(copied: Path) -> None:
    line = refusal(copied, "ended", "--optim.learning-rate", "0.0015")
    words = line.partition("Start a new one from its model: groundup ")[2].split()
    finished = groundup(*words, "--name", "new", folder=copied)
    assert finished.returncode == 0, finished.stderr
    assert len(steps_once(copied / "runs" / "new", 20)) == 20
    began, ended_at = (
        metrics(copied / "runs" / name, "evaluation")[at]
        for name, at in (("new", 0), ("ended", -1))
    )
    # the old run's best was its last step
    assert began["validation_loss"] == ended_at["validation_loss"]


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["bigram"], "RECIPE"),
        (["--config", "my.toml"], "--config"),
        (["--name", "other"], "--name"),
    ],
)
def test_what_belongs_to_a_new_run_is_refused(ended: Path, extra: list[str], named: str) -> None:
    before = contents(ended / "runs")
    recipe, options = (extra, []) if len(extra) == 1 else ([], extra)
    line = error_line(groundup("train", *recipe, "--resume", "ended", *options, folder=ended))
    assert f"{named} can't be given with it" in line
    assert contents(ended / "runs") == before


def test_longer_with_the_constant_schedule_equals_an_unbroken_longer_run(tmp_path: Path) -> None:
    write_text(tmp_path)
    constant = {"--optim.schedule": "constant", "--model.dropout": 0.1}
    trained(*tiny("unbroken", 40, constant), folder=tmp_path)
    trained(*tiny("longer", 20, constant), folder=tmp_path)
    resumed = trained("--resume", "longer", "--steps", 40, folder=tmp_path)
    assert "steps 20 -> 40: the constant schedule now ends at step 40" in resumed.stdout
    assert_same_training(tmp_path / "runs" / "longer", tmp_path / "runs" / "unbroken", 40)


def test_longer_says_what_becomes_of_the_learning_rate(copied: Path) -> None:
    """The figures are those of the metrics: at step 20 the linear decay had ended, and now is
    half-way.
    """
    resumed = trained("--resume", "ended", "--steps", 40, folder=copied)
    rate = metrics(copied / "runs" / "ended")[20]["learning_rate"]
    said = next(line for line in resumed.stdout.splitlines() if line.startswith("steps 20 -> 40"))
    assert f"the learning rate at step 20 is {rate:.3g} instead of 1e-05" in said
    assert 1e-3 < rate < 2e-3
    assert (
        error_line(groundup("train", "--resume", "ended", folder=copied)).find("40 of 40 steps") > 0
    )


def test_patience_stops_and_more_steps_go_on(tmp_path: Path) -> None:
    """A bigram at a far too high learning rate gets worse at once: patience runs out at its second
    evaluation.
    """
    write_text(tmp_path)
    worse = {
        "--model.architecture": "bigram",
        "--optim.learning-rate": 30,
        "--optim.schedule": "constant",
    }
    finished = trained(
        *tiny("early", 50, worse | {"--eval.patience": 2, "--eval.every": 1}), folder=tmp_path
    )
    run = tmp_path / "runs" / "early"
    losses = [line["validation_loss"] for line in metrics(run, "evaluation")]
    best = losses.index(min(losses[1:]))  # the evaluation at step 0 only says where it starts
    stopped_at = len(losses) - 1
    assert stopped_at == best + 2 < 50
    assert f"done: {stopped_at} steps" in finished.stdout
    assert "stopped early: 2 evaluations without a better loss" in finished.stdout
    state = json.loads((checkpoint(run, stopped_at) / "training" / "state.json").read_text("utf-8"))
    assert (bool(state["stopped_early"]), state["best_step"], state["best_loss"]) == (
        True,
        best,
        losses[best],
    )

    line = error_line(groundup("train", "--resume", "early", folder=tmp_path))
    assert f"early is finished: {stopped_at} of 50 steps, stopped early by eval.patience" in line
    trained("--resume", "early", "--steps", 60, folder=tmp_path)
    assert len(metrics(run)) > stopped_at
    steps_once(run, len(metrics(run)))


def test_killed_between_a_checkpoint_and_the_links_to_it(copied: Path) -> None:
    """The newest step is resumed from, whatever `latest` says, and both links are put right."""
    run = copied / "runs" / "ended"
    for name in ("best", "latest"):
        (run / "checkpoints" / name).unlink()
        (run / "checkpoints" / name).symlink_to("step-000005")
    with started("train", "--resume", "ended", "--steps", 100_000, folder=copied) as running:
        wait_for_step(running, run, 21)
        running.send(signal.SIGKILL)  # before the next evaluation, most likely: no new best
        running.wait()
    assert "resuming ended at step 20 of 100,000" in running.output("stdout")
    newest = max((run / "checkpoints").glob("step-*")).name
    assert (run / "checkpoints" / "latest").readlink().name == newest
    state = json.loads(
        (run / "checkpoints" / newest / "training" / "state.json").read_text("utf-8")
    )
    assert (run / "checkpoints" / "best").readlink().name == f"step-{state['best_step']:06d}"


def test_stopped_before_its_first_checkpoint_begins_again(ended: Path, tmp_path: Path) -> None:
    write_text(tmp_path)
    run = tmp_path / "runs" / "early-kill"
    with started("train", *tiny("early-kill", 20, {"--eval.every": 0}), folder=tmp_path) as running:
        wait_for_step(running, run, 1)
        running.send(signal.SIGKILL)
        running.wait()
    assert not (run / "checkpoints").exists()
    resumed = trained("--resume", "early-kill", folder=tmp_path)
    assert "from the beginning" in resumed.stdout
    assert steps_once(run, 20) == steps_once(ended / "runs" / "ended", 20)
    assert final_files(run, 20) == final_files(ended / "runs" / "ended", 20)


@pytest.mark.parametrize(
    "cut", [b"", b"=====", b"======== step 1", b"======== step 20 (validation loss 3.1)\n\xe4\xb8"]
)
def test_a_journal_that_a_kill_cut_short_is_repaired(copied: Path, cut: bytes) -> None:
    """The last line of metrics.jsonl, and a sample cut in its header or in the middle of a
    character.
    """
    run = copied / "runs" / "ended"
    whole = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "samples.txt")}
    shutil.rmtree(checkpoint(run, 20))
    lines = whole["metrics.jsonl"].splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
    begin_last = whole["samples.txt"].index(b"======== step 20 ")
    (run / "samples.txt").write_bytes(whole["samples.txt"][:begin_last] + cut)
    trained("--resume", "ended", folder=copied)
    steps_once(run, 20)
    assert (run / "samples.txt").read_bytes() == whole["samples.txt"]


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_longer_leaves_a_warm_up_that_is_done_alone(tmp_path: Path, schedule: str) -> None:
    """A warm-up of 100 in 20 steps is one of 20; 40 steps go on at its peak."""
    write_text(tmp_path)
    changes = {"--optim.warmup-steps": 100, "--optim.schedule": schedule}
    trained(*tiny("run", 20, changes), folder=tmp_path)
    trained("--resume", "run", "--steps", 40, folder=tmp_path)
    run = tmp_path / "runs" / "run"
    rates = [line["learning_rate"] for line in metrics(run)]
    assert rates[:20] == pytest.approx([0.003 * step / 21 for step in range(1, 21)])
    assert rates[20] == pytest.approx(0.003)
    assert "warmup_steps = 20\n" in (run / "recipe.toml").read_text("utf-8")
