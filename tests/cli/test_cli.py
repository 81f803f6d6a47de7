"""The command line as a newcomer meets it: what it prints, what it makes, and that what it suggests
works.
"""

import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from commands import groundup, metrics, trained
from conftest import TINY, Cli, error_line, some_text
from groundup.recipes.files import load_recipe, parse_toml
from groundup.runs.folder import FACTS, RunFolder
from terminal import terminal


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["train", "--help"],
        ["generate", "--help"],
        ["verify", "--help"],
        ["recipes"],
        ["runs"],
    ],
)
def test_what_needs_no_model_imports_no_torch(args: list[str], tmp_path: Path, text_file: Path):
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text("[train]\nsteps = 3\n", "utf-8")
    facts = dict.fromkeys(FACTS, "") | {"parameters": 1200, "started": "2026-01-02T03:04:05+00:00"}
    (run / "run.json").write_text(json.dumps(facts), "utf-8")
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "groundup", *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()
    }
    assert "cyclopts" in imported  # the list is really one of imports
    assert not imported & {"torch", "numpy", "matplotlib", "safetensors"}
    assert finished.stdout.strip()


@pytest.mark.parametrize(
    ("args", "value", "nearest"),
    [
        (["trian"], '"trian"', '"train"'),
        (["train", "--stpes", "3"], "--stpes", "--steps"),
        (["train", "--model.n-haed", "3"], "--model.n-haed", "--model.n-head"),
        (["generate", "x", "--temprature", "1"], "--temprature", "--temperature"),
        (["train", "shakespear"], "shakespear.", "shakespeare?"),
        (["recipes", "quikstart"], "quikstart", "quickstart"),
        (["train", "--train.compile", "sometimes"], '"sometimes"', '"auto", "on", "off"'),
        (["train", "--steps", "many"], '"many"', "--steps"),
        (["train", "quickstart", "surplus"], "surplus", ""),
        (["generate"], "generate", "RUN"),
    ],
)
def test_what_is_mistyped_is_named_with_the_nearest_that_exists(
    args: list[str], value: str, nearest: str, tmp_path: Path
):
    line = error_line(groundup(*args, folder=tmp_path))
    assert value in line
    assert nearest in line
    assert not (tmp_path / "runs").exists()


def test_the_module_is_the_command(new_python: Cli):
    script = Path(sys.executable).with_name("groundup")
    by_name = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert new_python("--version").stdout == by_name.stdout == "0.1.0\n"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A run whose name a shell would take apart, and what its training printed."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "text.txt").write_text(some_text(), "utf-8")
    finished = trained(
        "--corpus", "text.txt", "--steps", 12, "--name", "my run; $1", *TINY, folder=folder
    )
    assert finished.stderr == ""
    return RunFolder(folder / "runs" / "my run; $1"), finished.stdout


def test_a_run_folder_holds_all_that_happened(first_run: tuple[RunFolder, str]):
    run, printed = first_run
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "recipe.toml",
        "run.json",
        "metrics.jsonl",
        "samples.txt",
        "loss.png",
        "checkpoints",
        "train.lock",
    }

    recipe = run.read_recipe()
    assert (recipe.train.steps, recipe.train.minutes, recipe.model.n_embd) == (12, 0.0, 16)
    assert "auto" not in vars(recipe.train).values()
    assert load_recipe(parse_toml(recipe.to_toml(), "again")) == recipe
    assert tomllib_equal((run.path / "recipe.toml").read_text("utf-8"), recipe.to_toml())

    steps, evaluations = metrics(run.path), metrics(run.path, "evaluation")
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert [line["step"] for line in evaluations] == [0, 5, 10, 12]
    expected = {
        "step",
        "tokens",
        "loss",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
        "seconds",
    }
    assert expected < set(steps[0])
    assert [line["tokens"] for line in steps] == [4 * 16 * step for step in range(1, 13)]
    assert steps == sorted(steps, key=lambda line: line["seconds"])
    assert all(line["train_loss"] > 0 and line["validation_loss"] > 0 for line in evaluations)

    samples = re.split(
        r"======== step (\d+) \(validation loss ([\d.]+)\)\n",
        (run.path / "samples.txt").read_text(),
    )
    assert samples[1::3] == ["5", "10", "12"]
    assert samples[2::3] == [f"{line['validation_loss']:.4f}" for line in evaluations[1:]]
    assert [len(sample) - 2 for sample in samples[3::3]] == [20, 20, 20]
    assert set("".join(samples[3::3])) <= set(some_text())

    for line in evaluations:
        assert f"validation {line['validation_loss']:.4f}" in printed
    best = min(evaluations, key=lambda line: line["validation_loss"])
    assert f"Best validation loss {best['validation_loss']:.4f}" in printed


def tomllib_equal(one: str, other: str) -> bool:
    """Whether two TOML texts say the same."""
    return parse_toml(one, "one").tables == parse_toml(other, "other").tables


def test_the_picture_is_one_and_draws_in_colour(first_run: tuple[RunFolder, str]):
    content = (first_run[0].path / "loss.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 600 < height < width < 3000
    from matplotlib.image import imread

    pixels = imread(first_run[0].path / "loss.png")[..., :3]
    # training, validation, learning rate
    for colour in ((0x0B, 0x6B, 0xCB), (0xD9, 0x48, 0x0F), (0x86, 0x8E, 0x96)):
        columns = (abs(pixels * 255 - colour).max(axis=-1) < 2).any(axis=0)
        assert columns.sum() > width / 2, f"no curve from end to end in {colour}"


def test_the_links_point_beside_themselves(first_run: tuple[RunFolder, str]):
    run, _ = first_run
    assert (run.checkpoints / "latest").readlink() == Path("step-000012")
    best = (run.checkpoints / "best").readlink()
    assert best.parent == Path() and (run.checkpoints / best).is_dir()  # noqa: PT018
    assert {path.name for path in run.checkpoints.iterdir()} == {
        "best",
        "latest",
        "step-000010",
        "step-000012",
        "steps.json",
        str(best),
    }


def test_every_command_that_training_suggests_works(
    first_run: tuple[RunFolder, str], tmp_path: Path, cli: Cli
):
    shutil.copytree(first_run[0].path.parent.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    run, printed = RunFolder(tmp_path / "runs" / first_run[0].name), first_run[1]
    assert f"\n{run.name} writes:\n\n" in printed
    tail = printed[printed.index("\nnext:\n") :].splitlines()[2:]
    commands = [shlex.split(line) for line in tail if line.startswith("  groundup ")]
    assert [command[1] for command in commands] == ["generate", "generate", "train", "runs"]
    for command in commands:
        if "--interactive" in command:
            finished = cli(*command[1:], input="/set length 7\nthe\n")
        else:
            finished = groundup(*command[1:], folder=tmp_path)
        assert finished.returncode == 0, (command, finished.stderr)
        assert finished.stdout.strip()
    # the third trained twice as long
    assert [line["step"] for line in metrics(run.path)] == list(range(1, 25))
    for path in re.findall(r"runs/[^,\n]+\.\w+", tail[-1]):
        assert (tmp_path / path).is_file()


@pytest.mark.parametrize(
    "text", ["0123456789\n" * 60, "--a -b\n" * 90, "\n \t" * 200, "'\"$`\\ " * 100]
)
def test_the_suggested_prompt_is_in_the_vocabulary_of_any_text(text: str, tmp_path: Path):
    (tmp_path / "odd.txt").write_text(text, "utf-8")
    printed = trained("--corpus", "odd.txt", "--steps", 1, *TINY, folder=tmp_path).stdout
    command = shlex.split(next(line for line in printed.splitlines() if "--prompt" in line))
    finished = groundup(*command[1:], "--length", "5", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr


def test_runs_are_numbered_and_never_written_over(tmp_path: Path, text_file: Path):
    (tmp_path / "mine.toml").write_text(
        '[model]\narchitecture = "bigram"\n[train]\nsteps = 1\n', "utf-8"
    )
    for args in (["bigram"], ["bigram"], ["--config", "mine.toml"], ["bigram", "--name", "named"]):
        trained(*args, "--corpus", text_file, "--steps", 1, *TINY, folder=tmp_path)
    runs = tmp_path / "runs"
    assert {path.name for path in runs.iterdir()} == {"bigram-1", "bigram-2", "mine-1", "named"}
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    refused = groundup(
        "train", "bigram", "--corpus", text_file, "--steps", 2, "--name", "named", folder=tmp_path
    )
    line = error_line(refused)
    assert "runs/named already exists" in line
    assert "--resume named" in line
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["a/b", "/tmp/x", "..", ".", ".hidden", "", "-x", "x" * 300])
def test_a_name_that_is_no_folder_name_is_refused(name: str, tmp_path: Path, text_file: Path):
    args = ["train", "bigram", "--corpus", text_file, "--steps", 1, f"--name={name}", *TINY]
    assert repr(name)[1:-1] in error_line(groundup(*args, folder=tmp_path))
    assert not list(tmp_path.rglob("recipe.toml"))


def test_runs_that_is_a_file_is_named(tmp_path: Path, text_file: Path):
    (tmp_path / "runs").write_text("", "utf-8")
    args = ["train", "bigram", "--corpus", text_file, "--steps", 1, *TINY]
    assert "runs: Not a directory" in error_line(groundup(*args, folder=tmp_path))


def test_a_pipe_gets_plain_lines_and_a_terminal_a_bar(tmp_path: Path, text_file: Path):
    args = ["train", "--corpus", text_file, "--steps", 60, *TINY]
    piped = groundup(*args, folder=tmp_path)
    assert piped.stderr == ""
    # no escape code, no carriage return, no tab
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", piped.stdout)
    assert "tokens/s" not in piped.stdout

    with terminal(*args, folder=tmp_path) as shown:
        assert shown.end() == 0
    assert re.search(r"\x1b\[[\d;]*m?", shown.shown)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.shown)
    assert re.search(
        r"quickstart-2 .*━.* +\d+/60 +loss +[\d.]+ +[\d,]+ +tokens/s +\d+:\d\d:\d\d", plain
    )
    sample = (tmp_path / "runs/quickstart-2/samples.txt").read_text().splitlines()[1]
    assert sample.strip() in plain  # the text on the way is shown to a person, not to a pipe
    loss = metrics(tmp_path / "runs/quickstart-2", "evaluation")[-1]["validation_loss"]
    assert f"validation {loss:.4f}" in plain


def test_the_table_of_runs_has_the_best_first(tmp_path: Path, text_file: Path):
    empty = groundup("runs", folder=tmp_path)
    assert (empty.returncode, empty.stderr) == (0, "")
    assert "groundup train" in empty.stdout
    assert not (tmp_path / "runs").exists()

    for name, steps in (("a-little", 1), ("much", 60), ("some", 20)):
        trained("--corpus", text_file, "--steps", steps, "--name", name, *TINY, folder=tmp_path)
    cut = tmp_path / "runs" / "a-little" / "metrics.jsonl"
    rows = groundup("runs", folder=tmp_path).stdout.splitlines()[3:]
    assert [row.split()[0] for row in rows if row.strip()] == ["much", "some", "a-little"]
    for row in filter(str.strip, rows):
        evaluations = metrics(tmp_path / "runs" / row.split()[0], "evaluation")
        best = min(line["validation_loss"] for line in evaluations)
        assert f"{best:.4f}" in row
        assert f"{2.718281828459045**best:.2f}" in row
        assert f"{min(line['bits_per_byte'] for line in evaluations):.3f}" in row
        assert "gpt2" in row
        assert " 7.46K " in row

    # a run that was killed before its first evaluation comes last, and says so
    cut.write_text("", "utf-8")
    row = groundup("runs", folder=tmp_path).stdout.strip().splitlines()[-1].split()
    assert row[0] == "a-little"
    assert "0 of 1" in " ".join(row)


def test_a_damaged_run_is_named_and_the_others_are_listed(tmp_path: Path, text_file: Path):
    for name in ("hurt", "whole"):
        trained("--corpus", text_file, "--steps", 1, "--name", name, *TINY, folder=tmp_path)
    (tmp_path / "runs" / "hurt" / "run.json").unlink()
    listed = groundup("runs", folder=tmp_path)
    assert listed.returncode == 0
    assert "runs/hurt/run.json" in listed.stderr
    assert len(listed.stderr.splitlines()) == 1
    assert "whole" in listed.stdout
    assert "hurt" not in listed.stdout


def test_tensorboard_reads_what_metrics_jsonl_says(tmp_path: Path, text_file: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(
        "--corpus", text_file, "--steps", 7, "--train.log", "tensorboard", *TINY, folder=tmp_path
    )
    run = tmp_path / "runs" / "quickstart-1"
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    names = {
        "step": [
            "loss/step",
            "optimizer/learning_rate",
            "optimizer/gradient_norm",
            "speed/tokens_per_second",
        ],
        "evaluation": ["loss/train", "loss/validation"],
    }
    fields = {
        "step": ["loss", "learning_rate", "gradient_norm", "tokens_per_second"],
        "evaluation": ["train_loss", "validation_loss"],
    }
    assert sorted(events.Tags()["scalars"]) == sorted(names["step"] + names["evaluation"])
    for kind, tags in names.items():
        for tag, field in zip(tags, fields[kind], strict=True):
            drawn = [(event.step, event.value) for event in events.Scalars(tag)]
            written = [
                (line["step"], pytest.approx(line[field], rel=1e-6)) for line in metrics(run, kind)
            ]
            assert drawn == written


def test_a_missing_extra_is_one_line_before_anything_is_made(
    new_python: Cli, tmp_path: Path, text_file: Path
):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "tensorboard.py").write_text("raise ImportError('not installed')\n", "utf-8")
    args = ["train", "--corpus", text_file, "--steps", "2", "--train.log", "tensorboard", *TINY]
    line = error_line(
        new_python(*args, env={"PYTHONPATH": f"{blocked}:{os.environ.get('PYTHONPATH', '')}"})
    )
    assert "pip install 'groundup[tensorboard]'" in line
    assert not (tmp_path / "runs").exists()
