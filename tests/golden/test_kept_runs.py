"""Runs of earlier code go on: moved elsewhere with what they read, resumed and loaded there."""

import json
import shutil
from pathlib import Path
from typing import Any

import golden_runs
import pytest
from golden_runs import GENERATE, NAMES, RUNS, STEPS, STOPPED, WRITTEN

from commands import groundup


@pytest.fixture(params=NAMES)
def recipe(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def moved(recipe: str, tmp_path: Path) -> Path:
    """A folder with the run, its text and its base, as a user would have moved them together."""
    golden_runs.prepare(tmp_path)
    run = shutil.copytree(RUNS / recipe, tmp_path / "runs" / recipe, symlinks=True)
    written_in = Path(json.loads((run / "run.json").read_text("utf-8"))["folder"])
    assert not written_in.exists()  # the originals are out of reach
    for file in run.rglob("base.json"):
        assert not Path(json.loads(file.read_text("utf-8"))["place"]).exists()
    return tmp_path


@pytest.fixture
def there(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process in that folder."""
    monkeypatch.chdir(moved)


def written(recipe: str) -> dict[str, Any]:
    """What the code that wrote the run measured of it when it went on, unbroken."""
    return json.loads(WRITTEN.read_text("utf-8"))[recipe]


def test_a_kept_run_is_resumed_to_the_end_that_it_would_have_had(recipe: str, moved: Path) -> None:
    finished = groundup("train", "--resume", recipe, folder=moved)
    assert finished.returncode == 0, finished.stderr
    assert f"resuming {recipe} at step {STOPPED} of {STEPS}" in finished.stdout
    found, facts = golden_runs.measured(moved / "runs" / recipe), written(recipe)
    steps, expected = found["steps"], facts["ended"]["steps"]
    hashes = [[line["batch_hash"] for line in lines] for lines in (steps, expected)]
    assert hashes[0] == hashes[1]  # the same tokens on any machine
    losses = [[line["loss"] for line in lines] for lines in (steps, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)  # and almost the same numbers
    if facts["kind"] == golden_runs.kind():
        golden_runs.assert_equal(found, facts["ended"], recipe)


@pytest.mark.usefixtures("there")
def test_a_kept_run_is_loaded_and_writes(recipe: str, moved: Path) -> None:
    facts = written(recipe)
    loaded = golden_runs.digest_of_loaded(recipe)
    finished = groundup("generate", recipe, *GENERATE, folder=moved)
    assert finished.returncode == 0, finished.stderr
    same_kind = facts["kind"] == golden_runs.kind()
    # Adapters are merged by a product, whose last bits are those of a kind.
    if same_kind or recipe != "lora":
        assert loaded == facts["loaded"]
    if same_kind:
        assert finished.stdout == facts["text"]


def test_the_kept_runs_stay_small() -> None:
    for recipe in NAMES:
        files = [path for path in (RUNS / recipe).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files if not path.is_symlink()) < 250_000
        assert not list((RUNS / recipe).rglob("*.png"))
