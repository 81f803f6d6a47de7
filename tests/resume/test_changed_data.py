"""What a run goes on with although it has changed is recorded, both ways, and measured anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import checkpoint, flags, groundup, metrics, started, trained, wait_for_step
from conftest import error_line, some_text
from invented_items import invented, write_items

ACCEPT = "--accept-changed-data"
SHORT: dict[str, object] = {
    **{"--steps": 4, "--eval.every": 2, "--name": "run", "--optim.schedule": "constant"},
    **{"--data.validation-corpus": "held.txt", "--train.keep-checkpoints": 9},
}


@pytest.fixture(scope="module")
def trained_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/run`, its text `text.txt` and its validation text `held.txt`."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "text.txt").write_text(some_text(), "utf-8")
    (folder / "held.txt").write_text(some_text()[:900], "utf-8")
    trained(*flags(SHORT), folder=folder)
    return folder


@pytest.fixture
def here(trained_here: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return Path(shutil.copytree(trained_here, tmp_path / "here", symlinks=True))


def changes(folder: Path, what: str) -> list[dict[str, Any]]:
    facts = json.loads((folder / "runs" / "run" / "run.json").read_text("utf-8"))
    return [change for change in facts.get("changes", []) if change["what"] == what]


def state(folder: Path, step: int) -> dict[str, Any]:
    file = checkpoint(folder / "runs" / "run", step) / "training" / "state.json"
    return json.loads(file.read_text("utf-8"))


def rewrite(file: Path, reverse: bool) -> None:
    """The same characters the other way round."""
    text = some_text() if file.name == "text.txt" else some_text()[:900]
    file.write_text(text[::-1] if reverse else text, "utf-8")


def test_the_way_back_to_the_old_text_is_asked_for_too(here: Path) -> None:
    text = here / "text.txt"
    rewrite(text, reverse=True)
    trained("--resume", "run", "--steps", 6, ACCEPT, folder=here)
    trained("--resume", "run", "--steps", 8, folder=here)  # what was accepted is no news
    rewrite(text, reverse=False)
    line = error_line(groundup("train", "--resume", "run", "--steps", 10, folder=here))
    assert "corpus text.txt has changed since step 4" in line
    trained("--resume", "run", "--steps", 10, ACCEPT, folder=here)
    there, back = changes(here, "corpus")
    assert (there["step"], back["step"]) == (4, 8)
    assert there["was"] == back["is"]
    assert there["is"] == back["was"]
    assert there["was"]["fingerprint"] != there["is"]["fingerprint"]


def test_items_are_asked_for_both_ways(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    learn = ("tokenizer", "train", "text.txt", "--vocab-size", 300, "--out", "mine")
    assert groundup(*learn, folder=tmp_path).returncode == 0
    scored = {"--eval.task-every": 4, "--eval.task-items": 0, "--eval.task-file": "items.jsonl"}
    scored |= {"--data.tokenizer": "mine", "--model.block-size": 64, "--name": "run", "--steps": 4}
    first, second = invented(6), invented(6, seed=1)
    write_items(tmp_path / "items.jsonl", first)
    trained(*flags(scored), folder=tmp_path)
    for step, items in ((5, second), (6, first)):
        write_items(tmp_path / "items.jsonl", items)
        line = error_line_after_output(tmp_path, step)
        assert "HellaSwag's items have changed since" in line
        trained("--resume", "run", "--steps", step, ACCEPT, folder=tmp_path)
    assert [change["step"] for change in changes(tmp_path, "hellaswag")] == [4, 5]


def error_line_after_output(folder: Path, steps: int) -> str:
    finished = groundup("train", "--resume", "run", "--steps", steps, folder=folder)
    finished.stdout = ""
    return error_line(finished)


def test_another_training_text_keeps_the_best_loss(here: Path) -> None:
    before = state(here, 4)
    rewrite(here / "text.txt", reverse=True)
    given = ("--train.threads", 1)
    trained("--resume", "run", "--steps", 5, ACCEPT, *given, folder=here)
    losses = [line["validation_loss"] for line in metrics(here / "runs" / "run", "evaluation")]
    assert state(here, 5)["best_loss"] == min(losses[1:])
    assert before["best_loss"] == min(losses[1:3])


def test_best_loss_and_patience_begin_anew_on_another_validation_text(here: Path) -> None:
    """The old best can't be beaten: its figure was of another text."""
    for step in (2, 4):
        file = checkpoint(here / "runs" / "run", step) / "training" / "state.json"
        unbeatable = json.loads(file.read_text("utf-8")) | {"best_loss": 0.01, "best_step": 2}
        reseal(file, json.dumps(unbeatable))
    rewrite(here / "held.txt", reverse=True)
    resumed = trained("--resume", "run", "--steps", 6, ACCEPT, folder=here)
    assert "the best loss is looked for anew: the validation text is another one" in resumed.stdout
    assert "Best validation loss 0.0100" not in resumed.stdout
    assert (state(here, 6)["best_step"], state(here, 6)["best_loss"]) == (
        6,
        metrics(here / "runs" / "run", "evaluation")[-1]["validation_loss"],
    )
    names = json.loads((here / "runs" / "run" / "checkpoints" / "steps.json").read_text("utf-8"))
    assert names["best"] == "step-000006"


def reseal(file: Path, content: str) -> None:
    """Write a checkpoint's file anew, with its manifest, as if it had been saved so."""
    from groundup.checkpoints.lifecycle import MANIFEST, _render
    from groundup.files import file_digest

    file.write_text(content, "utf-8")
    folder = file.parent.parent
    files = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
    name = file.relative_to(folder).as_posix()
    files[name] = {"size": file.stat().st_size, "sha256": file_digest(file)}
    (folder / MANIFEST).write_text(_render(files), "utf-8")


def test_killed_before_it_saved_the_best_loss_still_begins_anew(here: Path) -> None:
    """The acceptance is recorded, and the checkpoint that is resumed is of before."""
    for step in (2, 4):
        file = checkpoint(here / "runs" / "run", step) / "training" / "state.json"
        unbeatable = json.loads(file.read_text("utf-8")) | {"best_loss": 0.01, "best_step": 2}
        reseal(file, json.dumps(unbeatable))
    rewrite(here / "held.txt", reverse=True)
    longer = ("--steps", 100_001)
    with started("train", "--resume", "run", *longer, ACCEPT, folder=here) as running:
        wait_for_step(running, here / "runs" / "run", 5)
        running.process.kill()
        running.wait()
    for step in checkpoint(here / "runs" / "run", 0).parent.glob("step-*"):
        if step.name > "step-000004":
            shutil.rmtree(step)
    with started("train", "--resume", "run", folder=here) as running:
        while not (checkpoint(here / "runs" / "run", 6)).exists():
            assert running.process.is_alive(), running.output("stderr")
        running.send(15)
        running.wait()
    assert state(here, 6)["best_step"] == 6
    assert [change["step"] for change in changes(here, "corpus")] == [4]


def test_a_run_of_older_code_begins_anew_when_its_text_changes(here: Path) -> None:
    """Its checkpoints don't say on what validation text the best loss was measured."""
    for step in (2, 4):
        file = checkpoint(here / "runs" / "run", step) / "training" / "state.json"
        older = json.loads(file.read_text("utf-8")) | {"best_loss": 0.01, "best_step": 2}
        del older["validation"]
        reseal(file, json.dumps(older))
    file = here / "runs" / "run" / "run.json"
    facts = json.loads(file.read_text("utf-8"))
    del facts["corpus"]["validation"], facts["processor"]
    file.write_text(json.dumps(facts), "utf-8")
    again = Path(shutil.copytree(here, here.parent / "again", symlinks=True))
    trained("--resume", "run", "--steps", 6, folder=here)
    assert state(here, 6)["best_loss"] == 0.01
    assert not changes(here, "corpus")
    rewrite(again / "held.txt", reverse=True)
    trained("--resume", "run", "--steps", 6, ACCEPT, folder=again)
    assert state(again, 6)["best_step"] == 6


def test_patience_that_stopped_a_run_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    (tmp_path / "held.txt").write_text(some_text()[:900], "utf-8")
    worse = {"--model.architecture": "bigram", "--optim.learning-rate": 30, "--steps": 50}
    worse |= {"--eval.patience": 2, "--eval.every": 1}
    trained(*flags(SHORT | worse), folder=tmp_path)
    done = len(metrics(tmp_path / "runs" / "run"))
    assert done < 50
    line = error_line(groundup("train", "--resume", "run", folder=tmp_path))
    assert "stopped early by eval.patience" in line
    rewrite(tmp_path / "held.txt", reverse=True)
    trained("--resume", "run", ACCEPT, folder=tmp_path)
    assert len(metrics(tmp_path / "runs" / "run")) > done


def test_the_list_of_runs_compares_losses_of_the_present_validation_text(here: Path) -> None:
    rewrite(here / "held.txt", reverse=True)
    trained("--resume", "run", "--steps", 6, ACCEPT, folder=here)
    file = here / "runs" / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for line in lines:
        if line["kind"] == "evaluation" and line["step"] == 2:
            line["validation_loss"] = 0.5
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    last = lines[-1] if lines[-1]["kind"] == "evaluation" else lines[-2]
    listed = groundup("runs", folder=here).stdout
    assert f"{last['validation_loss']:.4f}" in listed
    assert "0.5000" not in listed
    compared = groundup("compare", "run", "run", "--json", folder=here)
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["runs"][0]["best"]["step"] == 6


def test_a_rollback_moves_the_changes_to_where_they_hold_from(here: Path) -> None:
    rewrite(here / "text.txt", reverse=True)
    trained("--resume", "run", "--steps", 6, ACCEPT, folder=here)
    for step in (4, 6):
        shutil.rmtree(checkpoint(here / "runs" / "run", step))
    trained("--resume", "run", folder=here)
    assert [change["step"] for change in changes(here, "corpus")] == [2]


def test_a_card_says_what_changed_on_the_way(here: Path) -> None:
    from groundup.checkpoints.model_folder import load_model
    from groundup.export.model_card import model_card

    rewrite(here / "text.txt", reverse=True)
    trained("--resume", "run", "--steps", 6, ACCEPT, "--train.threads", 2, folder=here)
    card = model_card(load_model(here / "runs" / "run"), "me/mine", has_curve=False)
    assert "corpus from step 4 on" in card
    assert "train.threads from step 4 on" in card
    assert "does it again" not in card
