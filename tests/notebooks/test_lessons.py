"""The lessons run from beginning to end, at a small budget, and what is kept of them is one clean
run in order.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from conftest import Cli
from groundup.errors import ConfigError, LessonError
from groundup.lessons import BUDGET, lesson_files, lesson_steps, question_of, review

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SMALL = "0.1"
SLOW = {"04-gpt", "06-sampling", "07-bpe", "13-many-processes"}
LARGEST = 400_000  # bytes: pictures included, a lesson opens at once
# Folders that only the machine of a run has, its user and its addresses in memory.
PRIVATE = re.compile(r"/(?:home|root|tmp|work|mnt|opt|Users|var)/|[A-Z]:\\\\|at 0x[0-9a-f]{6,}")


def run_lesson(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """`pytest --nbmake` on a notebook, in the Python of these tests, whatever kernels the machine
    has besides.
    """
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "tests", "language": "python"})
    )
    places = {"JUPYTER_PATH": "jupyter", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    environment = (
        os.environ | {name: str(folder / place) for name, place in places.items()} | {BUDGET: SMALL}
    )
    # Without this project's own options: the lesson is one test, in one process, and pytest keeps
    # no notes of it.
    options = [
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--nbmake",
        "--nbmake-timeout=200",
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.lessons
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_and_all_that_it_claims_holds(path: Path, tmp_path: Path):
    if path.stem in SLOW and not os.environ.get("GROUNDUP_ALL_LESSONS"):
        pytest.skip("takes over 80 s: GROUNDUP_ALL_LESSONS=1 runs it, too")
    finished = run_lesson(path, tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.lessons
def test_a_claim_that_does_not_hold_fails_and_the_kernel_is_this_python(tmp_path: Path):
    notebook = nbformat.v4.new_notebook()
    first = (
        f"import os, sys\nassert sys.executable == {sys.executable!r}\nassert "
        f"os.environ[{BUDGET!r}] == {SMALL!r}"
    )
    notebook.cells = [
        nbformat.v4.new_code_cell(source) for source in (first, "assert 2 + 2 == 5, 'arithmetic'")
    ]
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    finished = run_lesson(tmp_path / "wrong.ipynb", tmp_path)
    assert finished.returncode == 1
    # without its colours
    assert "AssertionError: arithmetic" in re.sub(r"\x1b\[[\d;]*m", "", finished.stdout)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_all_that_a_lesson_imports_is_there(path: Path):
    """The cheapest part of running it, which a name that was changed breaks first."""
    cells = [
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
    ]
    statements = ast.parse("\n".join(cells)).body
    imports = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict[str, object] = {}
    exec(compile(ast.Module(imports, []), path.name, "exec"), names)
    assert any(
        str(getattr(value, "__module__", "")).startswith("groundup") for value in names.values()
    )


def test_lessons_are_numbered_in_their_order():
    numbers = [int(path.name.split("-")[0]) for path in LESSONS]
    assert numbers == sorted(set(numbers))
    assert len(LESSONS) >= 3


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_links_and_folds_its_solutions(path: Path):
    sys.path.insert(0, str(path.parent))
    from remake import FOLDED, SOLUTION, links_of

    cells = nbformat.read(path, as_version=4).cells
    assert cells[1].source == links_of(path.name)
    for cell in cells:
        is_solution = cell.cell_type == "code" and cell.source.startswith(SOLUTION)
        assert cell.metadata == (FOLDED if is_solution else {})


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_what_is_kept_is_one_clean_run_in_order(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in [output for cell in code for output in cell.outputs]:
        assert output.output_type in {"stream", "display_data", "execute_result"}, output
        assert output.get("name", "stdout") == "stdout", output.text
    assert path.stat().st_size < LARGEST
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", path.read_text("utf-8"))
    assert not PRIVATE.search(without_pictures), PRIVATE.search(without_pictures)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_what_is_kept_is_a_full_run_that_shows_pictures_and_claims(path: Path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert sum("assert" in cell.source for cell in notebook.cells if cell.cell_type == "code") >= 10
    assert "share of the training steps: 1.0" in "".join(
        output.get("text", "") for output in outputs
    )


@pytest.mark.parametrize(("share", "steps"), [("1", 500), ("0.1", 50), ("0.0001", 1), ("", 500)])
def test_the_budget_is_a_share_of_the_steps(
    monkeypatch: pytest.MonkeyPatch, share: str, steps: int
):
    monkeypatch.setenv(BUDGET, share)
    assert lesson_steps(500) == steps


@pytest.mark.parametrize("share", ["0", "-1", "1.5", "nan", "inf", "fast"])
def test_a_budget_that_is_no_share_is_refused(monkeypatch: pytest.MonkeyPatch, share: str):
    monkeypatch.setenv(BUDGET, share)
    with pytest.raises(
        ConfigError, match=f"{BUDGET} = {share} is not a share above 0 and at most 1"
    ):
        lesson_steps(500)


@pytest.mark.parametrize(
    ("answer", "says"),
    [(..., "not answered yet"), (4, "right"), (5, "not yet"), ("four", "not yet. It ended with")],
)
def test_an_answer_is_reviewed(answer: object, says: str):
    sentence = review(1, answer, 4, lambda number: number - 4 == 0)
    assert sentence.startswith(f"Exercise 1: {says}")


def test_a_wrong_solution_is_a_fault_of_the_lesson():
    with pytest.raises(AssertionError, match="the solution of exercise 2 is wrong"):
        review(2, ..., 5, lambda number: number == 4)


def test_lessons_are_listed_with_their_questions(cli: Cli):
    finished = cli("lessons")
    assert finished.returncode == 0, finished.stderr
    for path in LESSONS:
        assert path.stem in finished.stdout
        assert question_of(path).endswith("?"), path.name
        assert question_of(path)[:60] in finished.stdout


def test_lessons_are_written_without_outputs_and_replace_nothing(tmp_path: Path, cli: Cli):
    finished = cli("lessons", "--out", "mine")
    assert finished.returncode == 0, finished.stderr
    for path in LESSONS:
        written = nbformat.read(tmp_path / "mine" / path.name, as_version=4)
        nbformat.validate(written)
        assert not any(cell.get("outputs") for cell in written.cells)
        kept = nbformat.read(path, as_version=4)
        assert [cell.source for cell in written.cells] == [cell.source for cell in kept.cells]

    (tmp_path / "mine" / LESSONS[0].name).write_text("my answers", "utf-8")
    again = cli("lessons", "--out", "mine")
    assert again.returncode == 2
    assert f"mine has {LESSONS[0].name} already, which may hold your answers" in again.stderr
    assert (tmp_path / "mine" / LESSONS[0].name).read_text("utf-8") == "my answers"
    (tmp_path / "file").write_text("", "utf-8")
    refused = cli("lessons", "--out", "file/lessons")
    assert refused.returncode == 2
    assert "can't write the lessons into file/lessons" in refused.stderr


def test_an_installation_without_lessons_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("groundup.lessons.resources.files", lambda name: tmp_path)
    monkeypatch.setattr("groundup.lessons.__file__", str(tmp_path / "a" / "b" / "lessons.py"))
    with pytest.raises(LessonError, match="this installation has no lessons"):
        lesson_files()


def test_pictures_are_written_for_slides(tmp_path: Path):
    sys.path.insert(0, str(LESSONS[0].parent))
    from remake import write_figures

    written = write_figures(tmp_path / "slides")
    assert {path.name.rpartition("-")[0] for path in written} == {path.stem for path in LESSONS}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_the_page_of_the_lessons_has_them_all():
    page = (LESSONS[0].parents[1] / "docs" / "lessons.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d\d) [^|]+\| [^|]+\?", page, re.MULTILINE)
    assert {path.name[:2] for path in LESSONS} <= set(rows)
