"""checkpoint.py by itself: whatever happens between two of its steps, there is a checkpoint to go
on from.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import flip_bit
from groundup.checkpoints import publish as checkpoint
from groundup.checkpoints.publish import (
    newest_valid,
    point,
    prune,
    publish,
    step_folder,
    verify,
    write,
)
from groundup.errors import CheckpointError, TrainingError

CRASHED = 77
BOUNDARIES = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "shutil.rmtree",
    "os.scandir",
}


def filler(content: str, *more: str) -> Callable[[Path], None]:
    """A `fill` that writes a file in the folder and one below it, and more as named."""

    def fill(folder: Path) -> None:
        (folder / "below").mkdir()
        (folder / "weights").write_text(content, "utf-8")
        (folder / "below" / "state").write_text(content * 100, "utf-8")
        for name in more:
            (folder / name).write_text(name, "utf-8")

    return fill


def save(
    parent: Path,
    step: int,
    *,
    best: bool = False,
    keep: int = 2,
    protected: Path | None = None,
    content: str = "",
) -> list[str]:
    """Publish a step; what was reported."""
    said: list[str] = []
    text = content or f"step {step}"
    publish(
        parent, step, filler(text), best=best, keep=keep, protected=protected, report=said.append
    )
    return said


def damage(folder: Path) -> None:
    flip_bit(folder / "weights", 0)


def is_valid(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError:
        return False
    return True


def snapshot(parent: Path) -> dict[str, bytes | str | None]:
    """All that is in a folder: files with their contents, links with their targets, folders."""
    found: dict[str, bytes | str | None] = {}
    for path in parent.rglob("*"):
        name = path.relative_to(parent).as_posix()
        found[name] = (
            str(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
        )
    return found


def step_numbers(parent: Path) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in checkpoint.steps(parent)]


def test_a_written_folder_holds_the_files_and_their_manifest(tmp_path: Path) -> None:
    """The manifest against hashlib's own answer: SHA-256("abc") is a published test vector (FIPS
    180-2).
    """
    folder = tmp_path / "new" / "step-000001"
    write(folder, lambda temporary: (temporary / "abc").write_text("abc", "utf-8") and None)
    assert {path.name for path in folder.iterdir()} == {"abc", "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest["files"] == {"abc": {"sha256": digest, "size": 3}}
    verify(folder)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("I/O error (os error 28)")]
)
def test_a_full_disk_in_a_fill_leaves_everything_as_it_was(
    tmp_path: Path, error: Exception
) -> None:
    save(tmp_path, 1, best=True)
    before = snapshot(tmp_path)

    def fill(folder: Path) -> None:
        filler("half")(folder)
        raise error

    with pytest.raises(
        TrainingError, match=r"can't write .*step-000002: the disk is full\. Earlier checkpoints"
    ):
        publish(tmp_path, 2, fill, best=True, keep=1, protected=None, report=pytest.fail)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError()])
def test_any_other_failing_fill_leaves_everything_as_it_was(
    tmp_path: Path, error: Exception
) -> None:
    save(tmp_path, 1, best=True)
    save(tmp_path, 2)
    before = snapshot(tmp_path)

    def fill(folder: Path) -> None:
        filler("half")(folder)
        raise error

    for step in (2, 3):
        with pytest.raises(type(error)):
            publish(tmp_path, step, fill, best=True, keep=1, protected=None, report=pytest.fail)
        assert snapshot(tmp_path) == before


def test_links_are_relative_so_that_a_run_can_be_moved(tmp_path: Path) -> None:
    save(tmp_path / "here", 1, best=True)
    save(tmp_path / "here", 2)
    shutil.move(tmp_path / "here", tmp_path / "there")
    for name, step in (("best", 1), ("latest", 2)):
        link = tmp_path / "there" / name
        assert link.readlink() == Path(f"step-{step:06d}")
        verify(link)


def test_a_damaged_step_is_written_anew(tmp_path: Path) -> None:
    save(tmp_path, 1)
    damage(step_folder(tmp_path, 1))
    (step_folder(tmp_path, 1) / "surplus").touch()
    assert save(tmp_path, 1, content="again") == []
    verify(step_folder(tmp_path, 1))
    assert (step_folder(tmp_path, 1) / "weights").read_text("utf-8") == "again"
    assert not (step_folder(tmp_path, 1) / "surplus").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    save(tmp_path, 1)
    expected = snapshot(tmp_path)
    shutil.copytree(step_folder(tmp_path, 1), tmp_path / ".writing-step-000002")
    shutil.copytree(step_folder(tmp_path, 1), tmp_path / ".writing-removed-step-000000")
    (tmp_path / ".writing-latest").symlink_to("step-000001")
    (tmp_path / ".writing-best").symlink_to("nowhere")
    checkpoint.remove_unfinished(tmp_path)
    assert snapshot(tmp_path) == expected
    shutil.copytree(step_folder(tmp_path, 1), tmp_path / ".writing-step-000002")
    save(tmp_path, 2)
    assert step_numbers(tmp_path) == [2, 1]
    assert (step_folder(tmp_path, 2) / "weights").read_text("utf-8") == "step 2"


def test_clearing_away_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".writing-latest").symlink_to("step-000001")
    checkpoint.remove_unfinished(tmp_path)
    verify(step_folder(tmp_path, 1))


def test_the_newest_valid_step_is_found_and_the_others_are_reported(tmp_path: Path) -> None:
    for step in (9, 10, 100, 1_000_000, 1_000_001):
        save(tmp_path, step, keep=9)
    damage(step_folder(tmp_path, 1_000_001))
    (step_folder(tmp_path, 1_000_000) / "manifest.json").unlink()
    (tmp_path / "step-2000000").touch()  # not a folder
    (tmp_path / "step-abc").mkdir()
    said: list[str] = []
    assert newest_valid(checkpoint.steps(tmp_path), said.append) == step_folder(tmp_path, 100)
    assert [line.split("Passing over ")[1] for line in said] == ["step-1000001.", "step-1000000."]


def test_there_may_be_no_valid_step(tmp_path: Path) -> None:
    assert newest_valid(checkpoint.steps(tmp_path / "nothing"), pytest.fail) is None
    save(tmp_path, 1)
    damage(step_folder(tmp_path, 1))
    assert newest_valid(checkpoint.steps(tmp_path), lambda _: None) is None


def test_a_file_replaced_by_a_folder_or_moved_away_is_missing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    file = step_folder(tmp_path, 1) / "weights"
    file.unlink()
    file.mkdir()
    with pytest.raises(CheckpointError, match="weights is missing"):
        verify(step_folder(tmp_path, 1))


@pytest.mark.parametrize(
    "manifest", ["", "{}", "[]", "null", '{"files": []}', '{"files": {}}', '{"files": 1}', "\0"]
)
def test_a_manifest_of_another_shape_is_damaged(tmp_path: Path, manifest: str) -> None:
    """`{"files": {}}` would else be the manifest under which everything is intact."""
    save(tmp_path, 1)
    (step_folder(tmp_path, 1) / "manifest.json").write_text(manifest, "utf-8")
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        verify(step_folder(tmp_path, 1))


@settings(max_examples=30, deadline=None)
@given(
    keep=st.integers(1, 3),
    saves=st.lists(
        st.fixed_dictionaries(
            {"best": st.booleans(), "damaged": st.booleans(), "half": st.booleans()}
        ),
        max_size=8,
    ),
    protected=st.none() | st.integers(1, 8),
)
def test_pruning(
    tmp_path_factory: pytest.TempPathFactory,
    keep: int,
    saves: list[dict[str, bool]],
    protected: int | None,
) -> None:
    """The model of pruning: the newest `keep` valid steps, the best, the protected one, and all
    damaged ones stay.
    """
    parent = tmp_path_factory.mktemp("pruned")
    spared = step_folder(parent, protected) if protected else None
    there: dict[int, bool] = {}  # step -> whether it is valid
    best = 0
    for step, chosen in enumerate(saves, 1):
        said = save(parent, step, best=chosen["best"], keep=keep, protected=spared)
        best = step if chosen["best"] else best
        there[step] = True
        valid = sorted((number for number, intact in there.items() if intact), reverse=True)
        there = {
            number: intact
            for number, intact in there.items()
            if not intact or number in valid[:keep] or number in (best, protected)
        }
        assert step_numbers(parent) == sorted(there, reverse=True)
        assert len(said) == sum(not intact for intact in there.values())
        assert all(
            is_valid(step_folder(parent, number)) is intact for number, intact in there.items()
        )
        if chosen["damaged"]:
            damage(step_folder(parent, step))
        elif chosen["half"]:
            (step_folder(parent, step) / "manifest.json").unlink()
        there[step] = not (chosen["damaged"] or chosen["half"])
    shutil.rmtree(parent)


def test_pruning_never_removes_the_only_valid_step(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step, keep=9)
    for step in range(2, 6):
        damage(step_folder(tmp_path, step))
    prune(tmp_path, 1, [], lambda _: None)
    assert step_numbers(tmp_path) == [5, 4, 3, 2, 1]


def test_a_dangling_best_protects_nothing_and_harms_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1, best=True)
    shutil.rmtree(step_folder(tmp_path, 1))
    save(tmp_path, 2, keep=1)
    save(tmp_path, 3, keep=1)
    assert step_numbers(tmp_path) == [3]
    point(tmp_path / "best", step_folder(tmp_path, 3))
    verify(tmp_path / "best")


def crash_after(operations: int, action: Callable[[], object]) -> bool:
    """Do `action` in a child that dies before its next file operation after so many; whether it
    died.
    """
    child = os.fork()
    if child == 0:
        left = operations

        def count(event: str, arguments: tuple) -> None:
            nonlocal left
            if event in BOUNDARIES:
                left -= 1
                if left < 0:
                    os._exit(CRASHED)

        sys.addaudithook(count)
        action()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, CRASHED), status
    return status == CRASHED


@pytest.mark.parametrize("newest_is_damaged", [False, True])
def test_a_crash_before_any_file_operation_loses_no_step(
    tmp_path: Path, newest_is_damaged: bool
) -> None:
    """A process that dies at each point of publishing step 3: the steps before it stay, and step 3
    is whole or absent.

    Then the same is published again, and the folder is as if nothing had happened.
    """
    prepared, smooth, parent = tmp_path / "prepared", tmp_path / "smooth", tmp_path / "crashed"
    save(prepared, 1, best=True)
    save(prepared, 2)
    if newest_is_damaged:  # then step 3 is there already, in no state to be read
        save(prepared, 3, keep=3)
        damage(step_folder(prepared, 3))

    def finish(folder: Path) -> list[str]:
        return save(folder, 3, best=True, keep=1, protected=step_folder(folder, 2))

    shutil.copytree(prepared, smooth, symlinks=True)
    finish(smooth)
    assert step_numbers(smooth) == [3, 2]

    operations = 0
    while True:
        shutil.rmtree(parent, ignore_errors=True)
        shutil.copytree(prepared, parent, symlinks=True)
        if not crash_after(operations, lambda: finish(parent)):
            break
        operations += 1
        found = newest_valid(checkpoint.steps(parent), lambda _: None)
        assert found in (step_folder(parent, 3), step_folder(parent, 2))
        assert is_valid(step_folder(parent, 2))  # the step resumed from
        assert is_valid((parent / "best").resolve())
        assert is_valid((parent / "latest").resolve()) or newest_is_damaged
        assert (
            newest_is_damaged
            or found == step_folder(parent, 3)
            or not step_folder(parent, 3).exists()
        )
        finish(parent)
        assert snapshot(parent) == snapshot(smooth)
    assert operations > 40
