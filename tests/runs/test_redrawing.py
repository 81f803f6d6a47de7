"""The picture of a run's losses is drawn again and again from what is new in metrics.jsonl."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.runs.folder import RunFolder
from groundup.runs.records import EvaluationRecord, StepRecord
from groundup.training import journal
from groundup.training.journal import MainJournal


class Counted:
    """An open file whose bytes are counted when they are read."""

    def __init__(self, file: Any, read: list[int]) -> None:
        self.file, self.counts = file, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, *size: int) -> Any:
        """As the file's own."""
        data = self.file.read(*size)
        self.counts.append(len(data))
        return data

    def __iter__(self) -> Iterator[Any]:
        for line in self.file:
            self.counts.append(len(line))
            yield line


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of metrics.jsonl were read, each time that some were."""
    counts: list[int] = []
    opened = Path.open

    def counting(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = opened(path, mode, *args, **options)
        is_read = path.name == "metrics.jsonl" and "r" in mode
        return Counted(file, counts) if is_read else file

    monkeypatch.setattr(Path, "open", counting)
    return counts


def record(kept: MainJournal, first: int, last: int) -> None:
    """The steps from `first` to `last`, and an evaluation after the last one."""
    for step in range(first, last + 1):
        kept.step(StepRecord(step, step * 64, 4.0 - step / 1000, 1e-3, 1.0, 1e5, step / 10, step))
    kept.evaluation(EvaluationRecord(last, last * 64, 3.0, 3.5, 2.5, last / 10))


def test_a_redraw_reads_only_what_is_new(
    tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "REDRAW_AFTER", -1.0)  # at each evaluation
    file, kept = tmp_path / "metrics.jsonl", MainJournal()
    with kept.open(RunFolder(tmp_path), 0, 1000, tensorboard=False):
        record(kept, 1, 900)
        before = file.stat().st_size
        assert sum(read) == before
        read.clear()
        record(kept, 901, 910)
        assert sum(read) == file.stat().st_size - before < before / 50
    size, picture = file.stat().st_size, (tmp_path / "loss.png").read_bytes()
    read.clear()
    with MainJournal().open(RunFolder(tmp_path), 910, 1000, tensorboard=False):
        pass
    assert sum(read) == size
    assert (tmp_path / "loss.png").read_bytes() == picture


def test_a_line_that_a_kill_left_cut_is_not_read_until_it_is_whole(tmp_path: Path) -> None:
    run, line = RunFolder(tmp_path), {"kind": "step", "step": 1}
    run.append_metrics(line)
    file = tmp_path / "metrics.jsonl"
    with file.open("a", encoding="utf-8") as cut:
        cut.write(json.dumps(line | {"step": 2})[:-5])
    assert run.read_metrics() == [line]
    run.forget_after(1)
    assert file.read_text("utf-8") == json.dumps(line) + "\n"
