"""Whatever befalls a checkpoint's files is noticed, said, and survived by the one before it
(faults.md, 17 to 20).
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import (
    assert_same_training,
    checkpoint,
    flags,
    flip_bit,
    groundup,
    started,
    steps_once,
    trained,
    write_text,
)
from conftest import error_line, small_disk
from groundup.checkpoints.lifecycle import steps, verify
from groundup.errors import CheckpointError

FILES = [
    *(
        "config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ),
    *("training/optimizer.safetensors", "training/state.json"),
]
LAST, BEFORE = 15, 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/run`: 15 steps with checkpoints after 5, 10 and 15, the best one last;
    `unbroken` has 20.
    """
    folder = tmp_path_factory.mktemp("whole")
    write_text(folder)
    common = {
        "--eval.every": 5,
        "--train.keep-checkpoints": 3,
        "--model.n-embd": 4,
        "--model.n-layer": 1,
    }
    common |= {"--optim.schedule": "constant"}
    trained(*flags(common | {"--name": "run", "--steps": LAST}), folder=folder)
    trained(*flags(common | {"--name": "unbroken", "--steps": LAST + 5}), folder=folder)
    assert {
        path.relative_to(checkpoint(folder / "runs" / "run", LAST)).as_posix()
        for path in files(folder)
    } == set(FILES)
    assert (folder / "runs" / "run" / "checkpoints" / "best").readlink().name == f"step-{LAST:06d}"
    return folder


def files(folder: Path) -> list[Path]:
    return [path for path in checkpoint(folder / "runs" / "run", LAST).rglob("*") if path.is_file()]


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to damage."""
    return Path(shutil.copytree(whole, tmp_path / "copy", symlinks=True))


def assert_noticed(folder: Path, file: Path) -> None:
    """`verify` names the file."""
    with pytest.raises(CheckpointError) as raised:
        verify(folder)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_noticed_wherever_it_is(copied: Path, name: str) -> None:
    """faults.md, 19: each byte of the small files, each bit of some, and a sample of the large
    ones.
    """
    folder = checkpoint(copied / "runs" / "run", LAST)
    file, chosen = folder / name, random.Random(name)
    size = file.stat().st_size
    for position in range(size) if size < 1500 else chosen.sample(range(size), 300):
        bit = chosen.randrange(8)
        flip_bit(file, position, bit)
        assert_noticed(folder, file)
        flip_bit(file, position, bit)
    verify(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_longer_or_missing_file_is_noticed(copied: Path, name: str) -> None:
    """faults.md, 18."""
    folder = checkpoint(copied / "runs" / "run", LAST)
    file, content = folder / name, (folder / name).read_bytes()
    lengths = (
        range(len(content))
        if len(content) < 1500
        else random.Random(name).sample(range(len(content)), 100)
    )
    for damaged in [*(content[:length] for length in lengths), content + b"\n", content + b"\0"]:
        file.write_bytes(damaged)
        assert_noticed(folder, file)
    file.unlink()
    with pytest.raises(
        CheckpointError, match=name if name != "manifest.json" else "has no manifest.json"
    ):
        verify(folder)
    file.write_bytes(content)
    verify(folder)


def damage(file: Path, how: str) -> None:
    if how == "flipped":
        flip_bit(file, file.stat().st_size // 2)
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
    else:
        file.unlink()


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "flipped") for name in FILES]
    + [
        ("model.safetensors", "truncated"),
        ("training/optimizer.safetensors", "truncated"),
        ("manifest.json", "gone"),
    ],
)
def test_resume_and_generate_fall_back_to_the_step_before(
    copied: Path, name: str, how: str
) -> None:
    """faults.md, 18 to 20: both say so, and the resumed run still equals the unbroken one."""
    run = copied / "runs" / "run"
    damaged = checkpoint(run, LAST)
    damage(damaged / name, how)
    spoken = damaged.relative_to(copied) / name if how != "gone" else damaged.relative_to(copied)

    written = groundup("generate", "run", "--length", 5, "--seed", 1, folder=copied)
    assert written.returncode == 0, written.stderr
    assert f"{spoken}" in written.stderr
    assert f"Passing over {damaged.name}" in written.stderr
    assert f"from {checkpoint(run, BEFORE).relative_to(copied)}" in written.stderr

    resumed = trained("--resume", "run", "--steps", LAST + 5, folder=copied)
    assert f"{spoken}" in resumed.stdout
    assert f"Passing over {damaged.name}" in resumed.stdout
    assert f"resuming run at step {BEFORE} of {LAST + 5}" in resumed.stdout
    assert_same_training(run, copied / "runs" / "unbroken", LAST + 5)
    verify(damaged)  # written anew when the run came by


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "run", "--task", "loss", "--corpus", "text.txt", "--limit", 20),
        ("export", "run", "--to", "hub", "a/b", "--out", "out"),
        (
            "train",
            "--init",
            "run",
            *flags({"--steps": 1, "--name": "next", "--model.n-embd": 4, "--model.n-layer": 1}),
        ),
    ],
)
def test_every_command_falls_back_to_the_step_before(
    copied: Path, command: tuple[object, ...]
) -> None:
    """faults.md, 18: whatever loads a run's model says what it passes over."""
    damaged = checkpoint(copied / "runs" / "run", LAST)
    damage(damaged / "model.safetensors", "truncated")
    finished = groundup(*command, folder=copied)
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout + finished.stderr
    assert "model.safetensors has" in said
    assert f"Passing over {damaged.name}" in said


def test_all_checkpoints_damaged(copied: Path) -> None:
    """faults.md, 18: nothing to load and nothing to resume from are errors, and every file stays as
    it is.
    """
    run = copied / "runs" / "run"
    for folder in steps(run / "checkpoints"):
        flip_bit(folder / "model.safetensors", 100)
    written = groundup("generate", "run", folder=copied)
    assert written.returncode == 2
    assert written.stderr.splitlines()[-1].startswith(
        "groundup: runs/run has no intact checkpoint to load"
    )
    before = (run / "metrics.jsonl").read_bytes()
    resumed = groundup("train", "--resume", "run", "--steps", LAST + 5, folder=copied)
    assert resumed.returncode == 2
    assert "checkpoints of run are damaged" in resumed.stderr.splitlines()[-1]
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_given_by_path_is_refused(copied: Path) -> None:
    """faults.md, 19: no fallback for what was named itself."""
    folder = checkpoint(copied / "runs" / "run", LAST)
    flip_bit(folder / "model.safetensors", 100)
    assert "model.safetensors is damaged: its SHA-256 is" in error_line(
        groundup("generate", folder, folder=copied)
    )


def test_half_published_steps_are_ignored_reported_and_not_counted(copied: Path) -> None:
    """faults.md, 20: a step without its manifest, and what a killed process was writing."""
    run = copied / "runs" / "run"
    half, leftover = checkpoint(run, 18), run / "checkpoints" / ".writing-step-000019"
    shutil.copytree(checkpoint(run, LAST), half)
    (half / "manifest.json").unlink()
    shutil.copytree(checkpoint(run, LAST), leftover)
    resumed = trained("--resume", "run", "--steps", LAST + 5, folder=copied)
    assert (
        "step-000018 has no manifest.json: it isn't a complete checkpoint. Passing over"
        in resumed.stdout
    )
    assert f"resuming run at step {LAST} of {LAST + 5}" in resumed.stdout
    assert not leftover.exists()
    found = [int(folder.name.removeprefix("step-")) for folder in steps(run / "checkpoints")]
    # three valid ones are kept, and the half one beside them
    assert found == [LAST + 5, 18, LAST, BEFORE]
    assert_same_training(run, copied / "runs" / "unbroken", LAST + 5)


def test_a_file_size_limit_in_a_save_keeps_the_checkpoint_before(copied: Path) -> None:
    """faults.md, 17, where no file system can be made: the weights don't fit under the largest file
    allowed.
    """
    run = copied / "runs" / "run"
    before = {
        path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()
    }
    limit = checkpoint(run, LAST).joinpath("training", "optimizer.safetensors").stat().st_size - 1
    finished = groundup(
        "train", "--resume", "run", "--steps", LAST + 5, folder=copied, file_size=limit
    )
    line = error_line(finished, status=1)
    assert "can't write runs/run/checkpoints/step-000020" in line
    assert "Earlier checkpoints are untouched" in line
    assert before == {
        path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()
    }
    assert not list((run / "checkpoints").glob(".writing-*"))
    trained("--resume", "run", folder=copied)
    assert_same_training(run, copied / "runs" / "unbroken", LAST + 5)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 240 kB."""
    with small_disk(tmp_path, 240) as mounted:
        yield mounted


def test_a_full_disk_ends_training_with_one_line_and_loses_nothing(
    tmp_path: Path, disk: Path
) -> None:
    """faults.md, 17: at every fill level, so that the disk is full in a save, a sample, the metrics
    or the picture.
    """
    text = write_text(tmp_path)
    changes = {
        "--corpus": text,
        "--eval.every": 1,
        "--train.keep-checkpoints": 1000,
        "--steps": 40,
        "--name": "run",
    }
    run = disk / "runs" / "run"
    ballast = disk / "ballast"
    for kilobytes in (232, 200, 160, 120, 90, 0):
        shutil.rmtree(run, ignore_errors=True)
        ballast.write_bytes(b"\0" * (kilobytes << 10))
        arguments = flags(changes | {"--model.n-layer": 1, "--model.n-embd": 4})
        with started("train", *arguments, folder=disk, output=tmp_path) as running:
            finished = running.wait()
        line = error_line(finished, status=1)
        assert "the disk is full" in line
        assert not list((run / "checkpoints").glob(".writing-*"))
        for folder in steps(run / "checkpoints"):
            verify(folder)

    newest = int(steps(run / "checkpoints")[0].name.removeprefix("step-"))
    assert newest > 1
    roomy = tmp_path / "roomy"
    shutil.copytree(disk / "runs", roomy / "runs", symlinks=True)
    resumed = trained("--resume", "run", folder=roomy)
    assert f"resuming run at step {newest} of 40" in resumed.stdout
    steps_once(roomy / "runs" / "run", 40)
