"""A CPU that can't give every thread a core is named before training starts."""

from pathlib import Path

import pytest

from groundup.machine import device as machine


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("threads", "busy", "said"),
    [
        (4, 0.0, "4 threads on 3 of 4 cores, which is all that this process may use"),
        (3, 2.0, "other programs keep 2.0 of 4 cores busy: 3 threads"),
        (3, 3.9, "--train.threads 1"),
        (3, 2.0, "--train.threads 2"),
        (2, 3.0, "--train.threads 1"),
    ],
)
def test_what_keeps_threads_from_their_cores_is_said(
    threads: int, busy: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_busy_cores", lambda: busy)
    warning = machine.warning_about_cpu(threads)
    assert warning is not None
    assert said in warning


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("threads", "busy"), [(3, 0.5), (3, 1.5), (1, 4.0), (3, None)])
def test_a_calm_cpu_and_a_single_thread_are_not_worth_a_word(
    threads: int, busy: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_busy_cores", lambda: busy)
    assert machine.warning_about_cpu(threads) is None


def test_busy_cores_are_what_the_kernel_counted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1,000 ticks of four cores in all, 600 were idle or waiting for a disk: 1.6 cores were at
    work.
    """
    times = tmp_path / "stat"
    times.write_text("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1 2 3\n", "ascii")
    monkeypatch.setattr(machine, "CPU_TIMES", times)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    later = "cpu  400 20 100 1350 100 10 10 10 9 9\n"
    monkeypatch.setattr("time.sleep", lambda _: times.write_text(later, "ascii"))
    assert machine._busy_cores() == pytest.approx(1.6)
    monkeypatch.setattr(machine, "CPU_TIMES", tmp_path / "nowhere")
    assert machine._busy_cores() is None
