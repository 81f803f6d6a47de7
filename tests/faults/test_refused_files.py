"""What a system refuses besides a full disk: read-only places, folders that are gone."""

import shutil
from pathlib import Path

from commands import flags, groundup, started, wait_for_step, write_text
from conftest import error_line


def test_a_place_where_no_run_can_be_made_is_said_before_the_corpus_is_read(
    tmp_path: Path,
) -> None:
    """/proc takes no folders, not even root's."""
    text = write_text(tmp_path)
    arguments = ["train", *flags({"--corpus": text, "--steps": 1})]
    line = error_line(groundup(*arguments, folder=Path("/proc"), output=tmp_path))
    assert "can't make a folder in /proc/runs: " in line
    (tmp_path / "runs").write_text("a file", "utf-8")
    finished = groundup(*arguments, folder=tmp_path)
    assert "can't make a folder in" in error_line(finished)
    assert "reading" not in finished.stdout
    assert (tmp_path / "runs").read_text("utf-8") == "a file"


def test_a_run_whose_folder_is_deleted_ends_with_a_line(tmp_path: Path) -> None:
    write_text(tmp_path)
    run = tmp_path / "runs" / "run"
    arguments = flags({"--name": "run", "--steps": 100_000})
    with started("train", *arguments, folder=tmp_path) as running:
        wait_for_step(running, run, 3)
        run.rename(tmp_path / "elsewhere")
        finished = running.wait()
    line = error_line(finished, status=1)
    assert "can't use runs/run/metrics.jsonl: No such file or directory" in line
    assert "go on with --resume" in line
    shutil.rmtree(tmp_path / "elsewhere")
