"""`groundup ladder` at its border: tables, picture, going on after a stop, and what it refuses."""

import importlib
import json
import math
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from conftest import Cli
from groundup.errors import LadderError
from groundup.ladder.cells import Calibration, Cell
from groundup.ladder.climb import Climb, Plan, committed_rates, make_plan
from groundup.ladder.picture import draw
from groundup.ladder.report import TITLES, as_markdown, rows_of, tables_of
from groundup.ladder.rungs import RUNGS, Rung
from groundup.ladder.sweep import _climbing

TEXT = "The cat sat on the mat, and the dog ran after the cat. " * 80
PAGE = Path(__file__).parents[2] / "docs" / "ladder.md"
RUNG_NAMES = ("bigram", "GPT-2", "Muon")
TINY = (
    "--budget",
    "0.02s",
    "--threads",
    "1",
    "--corpus",
    "cats.txt",
    *(f"--rungs={name}" for name in RUNG_NAMES),
)


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    (tmp_path / "cats.txt").write_text(TEXT, "utf-8")
    return tmp_path


def cells_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text("utf-8").splitlines()]


def assert_built_alike(tiny: str, committed: str) -> None:
    """A page that was just made has the headings and columns of the one in the docs, and its rungs
    say the same.
    """
    measured = put_ladder().PLACE.search(committed)[0]
    for kind in ("## ", "| rung "):
        own, shown = (
            [line for line in page.splitlines() if line.startswith(kind)]
            for page in (tiny, measured)
        )
        assert own == shown
    for title in TITLES.values():
        assert list(put_ladder().table_of(measured, title)) == [rung.name for rung in RUNGS]
    for line in re.findall(r"^- \*\*.*$", tiny, re.MULTILINE):
        assert line in measured


def put_ladder() -> ModuleType:
    """The script that puts the page and its short table where readers look."""
    sys.path.insert(0, str(PAGE.parent))
    return importlib.import_module("put_ladder")


def test_the_readme_has_the_figures_of_the_page():
    script = put_ladder()
    shown, measured = (
        script.PLACE.search(path.read_text("utf-8"))[0]
        for path in (PAGE.parents[1] / "README.md", PAGE)
    )
    assert shown == script.short_table(measured)


def test_a_ladder_is_climbed_stopped_and_gone_on_with(cats: Path, cli: Cli):
    first = cli("ladder", *TINY, "--seeds", 1)
    assert first.returncode == 0, first.stderr
    facts, *cells = cells_of(cats / "ladder")
    assert [(cell["table"], cell["rung"]) for cell in cells] == [
        (table, name) for table in ("time", "tokens") for name in RUNG_NAMES
    ]
    assert (cats / "ladder" / "ladder.png").read_bytes().startswith(b"\x89PNG")
    page = (cats / "ladder" / "ladder.md").read_text("utf-8")
    for cell in cells:
        assert f"| {cell['loss']:.4f} |" in page
    assert_built_alike(page, PAGE.read_text("utf-8"))

    # a process that was killed leaves a piece of a line
    with (cats / "ladder" / "cells.jsonl").open("ab") as file:
        file.write(b'{"table": "time", "ru')
    more = cli("ladder", *TINY, "--seeds", 2)
    assert more.returncode == 0, more.stderr
    assert "ladder has 6 finished cells: going on from them" in more.stderr
    again = cells_of(cats / "ladder")
    assert again[:7] == [facts, *cells]
    assert [(cell["table"], cell["rung"], cell["seed"]) for cell in again[7:]] == [
        (table, name, 2) for table in ("time", "tokens") for name in RUNG_NAMES
    ]
    # as many tokens as before, though the speed is another
    assert {cell["tokens"] for cell in again[1:] if cell["table"] == "tokens"} == {
        cells[-1]["tokens"]
    }

    other = cli("ladder", "--budget", "0.03s", *TINY[2:])
    assert other.returncode == 2
    assert "holds the cells of another ladder: its budget is another one" in other.stderr

    # the same tokens give the same losses, to the last bit
    shutil.rmtree(cats / "ladder")
    cli("ladder", *TINY, "--seeds", 1)
    losses = {
        cell["rung"]: (cell["tokens"], cell["loss"])
        for cell in cells_of(cats / "ladder")[1:]
        if cell["table"] == "tokens"
    }
    for cell in cells[3:]:
        if losses[cell["rung"]][0] == cell["tokens"]:  # on a busy machine they may be fewer
            assert losses[cell["rung"]][1] == cell["loss"]


def test_equal_tokens_repeat_to_the_bit(cats: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(cats)
    names = ("one head", "GPT-2", "fused", "schedule")
    plan = make_plan("cats.txt", 1.0, [1], names, device="cpu", threads=1)
    calibration = Calibration()
    first, second = (
        [plan.train(rung, 1, calibration, tokens=3 * 1024).loss for rung in plan.rungs]
        for _ in range(2)
    )
    assert first == second
    assert first[1] == pytest.approx(first[2], abs=1e-3)  # readable and fused are the same model


def test_it_is_killed_and_goes_on(cats: Path):
    command = [sys.executable, "-m", "groundup", "ladder", *TINY, "--seeds", "50"]
    process = subprocess.Popen(
        command, cwd=cats, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cells = cats / "ladder" / "cells.jsonl"
    deadline = time.monotonic() + 120
    while not (cells.exists() and len(cells_of(cats / "ladder")) > 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = cells_of(cats / "ladder")[:4]
    finished = subprocess.run(
        [*command[:-1], "1"], cwd=cats, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert cells_of(cats / "ladder")[:4] == kept


def test_two_at_once_are_told(cats: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(cats)
    plan = make_plan("cats.txt", 0.01, [1], ["bigram"], device="cpu", threads=1)
    running = Climb(plan, Path("ladder")).run()
    next(running)
    with pytest.raises(LadderError, match="another process climbs in ladder"):
        next(Climb(plan, Path("ladder")).run())
    running.close()
    assert len(list(Climb(plan, Path("ladder")).run())) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget", "soon"), "--budget soon is no time. Write it as 15s or 1min"),
        (("--budget", "0s"), "a budget of 0 seconds is no time to train for"),
        (("--seeds", "0"), "--seeds 0 is below 1"),
        (("--rungs", "attic"), "there is no rung 'attic'. The rungs: bigram, one head"),
        (("--corpus", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_what_cannot_be_climbed_is_one_line(cats: Path, cli: Cli, words, said: str):
    finished = cli("ladder", "--threads", 1, *words)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert not (cats / "ladder" / "ladder.md").exists()


def test_a_folder_with_something_else_is_refused(cats: Path, cli: Cli):
    (cats / "ladder").mkdir()
    (cats / "ladder" / "cells.jsonl").write_text("what?\n", "utf-8")
    finished = cli("ladder", *TINY)
    assert finished.returncode == 2
    assert "holds no cells of a ladder" in finished.stderr


def test_a_sweep_finds_rates_and_writes_them(cats: Path, cli: Cli):
    finished = cli("ladder", "--sweep", "--budget", "0.03", *TINY[2:])
    assert finished.returncode == 0, finished.stderr
    rates = tomllib.loads((cats / "ladder" / "rates.toml").read_text("utf-8"))
    assert list(rates) == list(RUNG_NAMES)
    assert all(rate > 0 for each in rates.values() for rate in each.values())
    assert "bigram: loss" in finished.stderr


def test_the_committed_rates_are_those_of_all_rungs():
    rates = committed_rates()
    assert list(rates) == [rung.name for rung in RUNGS]
    for below, rung in pairwise(RUNGS):
        if rung.only_speed:
            assert rates[rung.name] == rates[below.name]


def test_rates_are_climbed_as_far_as_the_loss_falls():
    def tried(best: float) -> list[float]:
        losses: dict[float, float] = {}
        for rate in _climbing(0.01, losses):
            losses[rate] = abs(rate - best)
        return list(losses)

    assert tried(0.04) == [0.01, 0.02, 0.04, 0.08]
    assert tried(0.0025) == [0.01, 0.02, 0.005, 0.0025, 0.00125]
    assert tried(0.01) == [0.01, 0.02, 0.005]


def a_cell(rung: str, seed: int, loss: float, **others) -> Cell:
    values = {"table": "time", "tokens": 1000, "seconds": 2.0, "compile_seconds": 0.0}
    values |= {"parameters": 10, "slowdown": 1.0, "sample": "a\nb `c`"} | others
    return Cell(rung=rung, seed=seed, loss=loss, **values)


def test_rows_are_medians_with_their_spread(cats: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(cats)
    plan = make_plan(
        "cats.txt", 2.0, [1, 2, 3], ["bigram", "GPT-2", "compiled"], device="cpu", threads=1
    )
    cells = [a_cell("bigram", seed, loss) for seed, loss in ((1, 3.0), (2, 2.0), (3, 2.5))]
    cells += [a_cell("GPT-2", seed, 2.0, slowdown=1.3) for seed in (1, 2, 3)]
    cells += [a_cell("compiled", seed, 1.9) for seed in (1, 2)]  # the third is missing
    rows = rows_of("time", cells, plan)
    assert [(row.rung.name, row.median, row.change) for row in rows] == [
        ("bigram", 2.5, None),
        ("GPT-2", 2.0, -0.5),
    ]
    page = as_markdown(plan, tables_of(plan, cells))
    assert "| bigram | 2.5000 | 2.0000 .. 3.0000 |  | 1,000 | 500 | 10 |  |" in page
    assert "| GPT-2\\* | 2.0000 | 2.0000 .. 2.0000 | -0.5000 |" in page
    assert "`a b  c `" in page


def test_a_training_that_diverges_is_a_result(cats: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(cats)
    plan = make_plan("cats.txt", 0.01, [1], ["bigram", "GPT-2", "Muon"], device="cpu", threads=1)
    rates = {**plan.rates, "GPT-2": {"learning_rate": 1e30}}
    cells = []
    for rung in plan.rungs:
        cells += [replace(plan, rates=rates).train(rung, 1, Calibration(), tokens=4096)]
    cells += [replace(cell, table="time", tokens=0, seconds=0.0) for cell in cells]
    assert [math.isinf(cell.loss) for cell in cells[:3]] == [False, True, False]
    assert {cell.tokens_per_second for cell in cells[3:]} == {0.0}
    tables = tables_of(plan, cells)
    assert [row.change for row in tables["tokens"]] == [None, None, None]
    draw(tables, Path("ladder.png"))
    assert Path("ladder.png").read_bytes().startswith(b"\x89PNG")
    assert "| GPT-2 | inf |" in as_markdown(plan, tables)


def test_a_machine_that_slows_down_is_noticed(monkeypatch: pytest.MonkeyPatch):
    calibration = Calibration()
    (usual,) = calibration.usual

    def slowdown(*times: float) -> float:
        for one in times:
            monkeypatch.setattr(calibration, "_seconds", lambda one=one: one * usual)
            calibration.take()
        return calibration.slowdown()

    assert slowdown(1.0, 2.0, 9.0) == 2.0  # the median: one moment of a busy machine is none
    assert calibration.usual == [usual]  # of a few moments nothing is learned
    for _ in range(2):
        slowdown(*[0.5] * 9)
    assert slowdown(0.5) == 1.0  # it is twice as fast now, and this is usual
    assert slowdown(1.0) == 2.0


def test_a_machine_that_is_always_slow_has_an_end(cats: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(cats)
    plan = make_plan("cats.txt", 0.02, (1, 2), RUNG_NAMES, threads=1)
    tried = list[str]()

    def slow(self: Plan, rung: Rung, seed: int, calibration: Calibration, tokens: int = 0) -> Cell:
        tried.append(f"{rung.name} {seed} {tokens}")
        return replace(
            a_cell(rung.name, seed, 2.0), table="tokens" if tokens else "time", slowdown=2.0
        )

    monkeypatch.setattr(Plan, "train", slow)
    climb = Climb(plan, cats / "slow")
    assert len(list(climb.run())) == 12
    assert len(tried) == 13  # one in six of the first table was tried again
    assert all(row.is_slowed for row in rows_of("time", climb.cells, plan))
