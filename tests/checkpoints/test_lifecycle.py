"""Writing checkpoints: whatever happens between two steps of it, one is there to go on from."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import flip_bit
from groundup.checkpoints import lifecycle as checkpoint
from groundup.checkpoints.lifecycle import (
    name_step,
    newest_valid,
    prune,
    publish,
    step_folder,
    verify,
)
from groundup.console import messages_to
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
    folder, said = step_folder(parent, step), []
    with messages_to(said.append):
        publish(
            folder,
            filler(content or f"step {step}"),
            best=best,
            keep=keep,
            protected=protected,
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


def abc(folder: Path) -> None:
    (folder / "abc").write_text("abc", "utf-8")


def test_a_written_folder_holds_the_files_and_their_manifest(tmp_path: Path) -> None:
    """The manifest against hashlib's own answer: SHA-256("abc") is a published test vector (FIPS
    180-2).
    """
    folder = tmp_path / "new" / "step-000001"
    publish(folder, abc, best=False, keep=1, protected=None)
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
        publish(step_folder(tmp_path, 2), fill, best=True, keep=1, protected=None)
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
            publish(step_folder(tmp_path, step), fill, best=True, keep=1, protected=None)
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
    expected = ["latest", "step-000001", "steps.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


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
    with messages_to(said.append):
        assert newest_valid(checkpoint.steps(tmp_path)) == step_folder(tmp_path, 100)
    assert [line.split("Passing over ")[1] for line in said] == ["step-1000001.", "step-1000000."]


def test_there_may_be_no_valid_step(tmp_path: Path) -> None:
    with messages_to(pytest.fail):
        assert newest_valid(checkpoint.steps(tmp_path / "nothing")) is None
    save(tmp_path, 1)
    damage(step_folder(tmp_path, 1))
    assert newest_valid(checkpoint.steps(tmp_path)) is None


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


FATES = ["intact", "flipped", "cut", "edited", "half"]


def befall(folder: Path, fate: str) -> None:
    """Damage a checkpoint, or leave it as it is."""
    if fate == "flipped":
        damage(folder)
    elif fate == "cut":
        (folder / "weights").write_text("", "utf-8")
    elif fate == "edited":
        flip_bit(folder / "manifest.json", 20)
    elif fate == "half":
        (folder / "manifest.json").unlink()


@settings(max_examples=30, deadline=None)
@given(
    keep=st.integers(1, 3),
    saves=st.lists(st.tuples(st.booleans(), st.sampled_from(FATES)), max_size=8),
    protected=st.none() | st.integers(1, 8),
)
def test_pruning(
    tmp_path_factory: pytest.TempPathFactory,
    keep: int,
    saves: list[tuple[bool, str]],
    protected: int | None,
) -> None:
    """The model of pruning: the newest `keep` sealed steps, the best, the protected one, and all
    that aren't sealed stay. A step whose bits alone have changed is sealed, but isn't valid.
    """
    parent = tmp_path_factory.mktemp("pruned")
    spared = step_folder(parent, protected) if protected else None
    there: dict[int, str] = {}  # step -> what befell it
    best = 0
    for step, (is_best, fate) in enumerate(saves, 1):
        said = save(parent, step, best=is_best, keep=keep, protected=spared)
        best = step if is_best else best
        there[step] = "intact"
        sealed = sorted((n for n, it in there.items() if it in ("intact", "flipped")), reverse=True)
        stay = {*sealed[:keep], best, protected, *(there.keys() - set(sealed))}
        there = {number: it for number, it in there.items() if number in stay}
        assert step_numbers(parent) == sorted(there, reverse=True)
        assert len(said) == len(there.keys() - set(sealed))
        assert all(is_valid(step_folder(parent, n)) is (it == "intact") for n, it in there.items())
        befall(step_folder(parent, step), fate)
        there[step] = fate
    shutil.rmtree(parent)


@pytest.mark.parametrize("fate", ["cut", "edited", "half"])
def test_pruning_never_removes_the_only_sealed_step(tmp_path: Path, fate: str) -> None:
    for step in range(1, 6):
        save(tmp_path, step, keep=9)
    for step in range(2, 6):
        befall(step_folder(tmp_path, step), fate)
    prune(tmp_path, 1, [])
    assert step_numbers(tmp_path) == [5, 4, 3, 2, 1]


def test_the_tenth_save_of_a_run_hashes_its_own_bytes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file once. What is kept isn't read again, but for its small manifest."""
    for step in range(1, 10):
        save(tmp_path, step, best=step == 4, keep=6)
    hashed: list[str] = []
    file_digest, sha256 = hashlib.file_digest, hashlib.sha256
    small = 0

    def counted_file(file: BinaryIO, name: str) -> object:
        hashed.append(Path(file.name).name)
        return file_digest(file, name)

    def counted(content: bytes) -> object:
        nonlocal small
        small += len(content)
        return sha256(content)

    monkeypatch.setattr(hashlib, "file_digest", counted_file)
    monkeypatch.setattr(hashlib, "sha256", counted)
    save(tmp_path, 10, keep=6, content="large" * 10_000)
    monkeypatch.undo()
    assert sorted(hashed) == ["state", "weights"]
    manifests = sum((path / "manifest.json").stat().st_size for path in checkpoint.steps(tmp_path))
    assert len(checkpoint.steps(tmp_path)) == 7
    assert 0 < small <= 2 * manifests < 5_000


def test_a_dangling_best_protects_nothing_and_harms_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1, best=True)
    shutil.rmtree(step_folder(tmp_path, 1))
    save(tmp_path, 2, keep=1)
    save(tmp_path, 3, keep=1)
    assert step_numbers(tmp_path) == [3]
    name_step(step_folder(tmp_path, 3), best=True)
    verify(tmp_path / "best")


def recorded(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> list[str]:
    """What an action does with files, in order: `write`, `flush`, `name` (a rename) and the name.

    Python tells of openings and renames by its audit events, and of no fsync.
    """
    done: list[str] = []
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        done.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")

    def listen(event: str, arguments: tuple) -> None:
        if not listening:
            return
        if event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]:
            done.append(f"write {Path(arguments[0]).name}")
        elif event == "os.rename":
            done.append(f"name {Path(arguments[1]).name}")

    monkeypatch.setattr(os, "fsync", fsync)
    listening = True
    sys.addaudithook(listen)  # for ever: from then on it only looks whether it listens
    action()
    listening = False
    monkeypatch.undo()
    return done


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="needs /proc to name what is flushed"
)
def test_the_order_of_a_checkpoints_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any power cut leaves the old checkpoints or the new one whole (faults.md): nothing is named
    before what it names is on the disk, and nothing is removed before that.
    """
    parent = tmp_path / "checkpoints"
    save(parent, 1, best=True)
    save(parent, 2)
    done = recorded(monkeypatch, lambda: save(parent, 3, best=True, keep=1))
    assert done == [
        *("write weights", "write state"),
        *("flush state", "flush weights"),
        *("write manifest.json", "flush manifest.json"),
        *("flush below", "flush .writing-step-000003"),
        *("name step-000003", "flush checkpoints"),
        *("write .steps.json.writing", "flush .steps.json.writing", "name steps.json"),
        *("flush checkpoints", "name latest", "name best"),
        *("name .writing-removed-step-000002", "name .writing-removed-step-000001"),
    ]


def test_several_processes_fill_in_files_of_their_own(tmp_path: Path) -> None:
    """Each hashes what it wrote; one seals them all."""
    folder = step_folder(tmp_path, 1)
    checkpoint.begin(folder)
    first = checkpoint.fill(folder, filler("mine"))
    second = checkpoint.fill(folder, abc, pattern="abc")
    assert sorted(first) == ["below/state", "weights"]
    assert sorted(second) == ["abc"]
    checkpoint.seal(folder, first | second, best=True, keep=1, protected=None)
    verify(tmp_path / "best")
    damage_of_any = {name: (folder / name).read_bytes() for name in first | second}
    for name, content in damage_of_any.items():
        flip_bit(folder / name, 0)
        assert not is_valid(folder)
        (folder / name).write_bytes(content)
    verify(folder)


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
        found = newest_valid(checkpoint.steps(parent))
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
