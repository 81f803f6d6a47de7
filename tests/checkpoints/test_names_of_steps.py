"""Which step is the latest and which the best survives copying, and file systems without links."""

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from commands import assert_same_training, checkpoint, flags, groundup, trained, write_text
from groundup.checkpoints.find import find_model
from groundup.checkpoints.lifecycle import publish, step_folder, verify

STEPS = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs/run`, 10 steps, whose best step is 5 (by its names alone), and `runs/unbroken`, 20."""
    folder = tmp_path_factory.mktemp("whole")
    write_text(folder)
    common = {"--eval.every": 5, "--optim.schedule": "constant", "--train.keep-checkpoints": 9}
    trained(*flags(common | {"--name": "run", "--steps": 10}), folder=folder)
    trained(*flags(common | {"--name": "unbroken", "--steps": STEPS}), folder=folder)
    return folder


def name_best(run: Path, step: int) -> None:
    """As if another step had had the lowest loss."""
    folder = run / "checkpoints"
    (folder / "best").unlink()
    (folder / "best").symlink_to(f"step-{step:06d}")
    names = folder / "steps.json"
    if names.exists():
        names.write_text(
            json.dumps(
                json.loads(names.read_text("utf-8")) | {"best": (folder / "best").readlink().name}
            )
        )


@pytest.mark.parametrize("version", ["with steps.json", "of an older version"])
def test_a_run_that_was_copied_without_links_goes_on_and_writes_as_before(
    whole: Path, tmp_path: Path, version: str
) -> None:
    """As `cp -rL` and `scp -r` copy it: `latest` and `best` are folders then."""
    source = Path(shutil.copytree(whole, tmp_path / "source", symlinks=True))
    name_best(source / "runs" / "run", 5)
    if version == "of an older version":
        (source / "runs" / "run" / "checkpoints" / "steps.json").unlink(missing_ok=True)
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    run = copy / "runs" / "run"
    assert not (run / "checkpoints" / "best").is_symlink()
    written = groundup("generate", "run", "--length", 5, folder=copy)
    assert written.returncode == 0, written.stderr
    loaded = find_model(run)
    assert loaded.name in ("step-000005", "best")
    assert (loaded / "model.safetensors").read_bytes() == (
        checkpoint(run, 5) / "model.safetensors"
    ).read_bytes()
    trained("--resume", "run", "--steps", STEPS, folder=copy)
    assert_same_training(run, whole / "runs" / "unbroken", STEPS)
    assert (run / "checkpoints" / "latest").readlink() == Path(f"step-{STEPS:06d}")
    assert (run / "checkpoints" / "best").is_symlink()
    verify(run / "checkpoints" / "best")


def fill(folder: Path) -> None:
    (folder / "weights").write_text("weights", "utf-8")


def save(parent: Path, step: int, best: bool) -> None:
    publish(step_folder(parent, step), fill, best=best, keep=1, protected=None)


@pytest.fixture
def plain_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without symbolic links, which refuses to flush folders, as some of networks."""
    fsync = os.fsync

    def files_alone(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    def symlink(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fsync", files_alone)
    monkeypatch.setattr(os, "symlink", symlink)


@pytest.mark.usefixtures("plain_file_system")
def test_a_file_system_without_links_and_folder_flushes_will_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The best step is found and kept, and it is said which path to use instead of a link."""
    parent = tmp_path / "checkpoints"
    save(parent, 1, best=True)
    said = f"{parent} can't have links (Operation not permitted): steps.json there names the best"
    assert f"{said} checkpoint, now {step_folder(parent, 1)}" in caplog.text
    save(parent, 2, best=False)
    assert caplog.text.count("can't have links") == 1
    save(parent, 3, best=False)
    assert sorted(path.name for path in parent.iterdir()) == [
        *("step-000001", "step-000003", "steps.json")
    ]
    assert find_model(tmp_path) == step_folder(parent, 1)


def test_a_folder_in_a_links_place_that_copies_no_step_here_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, best=True)
    (tmp_path / "best").unlink()
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "manifest.json").write_text("another's", "utf-8")
    save(tmp_path, 2, best=True)
    assert (tmp_path / "best" / "manifest.json").read_text("utf-8") == "another's"
    assert "is a folder of its own and stays" in caplog.text


def test_damaged_names_are_said_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent = tmp_path / "checkpoints"
    save(parent, 1, best=True)
    for damage in ("{", '["step-000001"]', '{"best": "../../elsewhere"}', '{"best": 3}'):
        (parent / "steps.json").write_text(damage, "utf-8")
        assert find_model(tmp_path) == step_folder(parent, 1)
    assert "steps.json can't be read" in caplog.text
