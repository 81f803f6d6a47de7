"""A run's own paths are meant wherever it is resumed, and what is printed runs as it is."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from commands import flags, groundup, metrics, started, trained, wait_for_step, write_text
from conftest import error_line, some_text
from invented_items import invented, write_items

SHORT: dict[str, object] = {"--steps": 4, "--name": "run", "--eval.every": 2}


def printed_command(text: str, after: str) -> str:
    """The command that is printed after some words, up to the end of its line."""
    return text.partition(after)[2].splitlines()[0]


def run_printed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a printed command in a folder: `cd THERE && groundup ...` too."""
    words = shlex.split(command)
    if words[0] == "cd":
        assert words[2] == "&&"
        folder, words = folder / words[1], words[3:]
    assert words[0] == "groundup"
    return groundup(*words[1:], folder=folder)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a run, its name not a shell's word, and one whose text.txt is another."""
    ours, other = tmp_path / "our project", tmp_path / "other"
    for folder in (ours, other):
        folder.mkdir()
    write_text(ours)
    (other / "text.txt").write_text(some_text()[::-1], "utf-8")
    return ours, other


def test_the_runs_own_text_wins_over_the_current_folders(places: tuple[Path, Path]) -> None:
    ours, other = places
    trained(*flags(SHORT), folder=ours)
    run = ours / "runs" / "run"
    trained("--resume", run, "--steps", 6, folder=other)
    assert len(metrics(run)) == 6


@pytest.mark.parametrize("moved", [False, True])
def test_all_paths_are_meant_from_where_the_run_began(
    places: tuple[Path, Path], tmp_path: Path, moved: bool
) -> None:
    """The model to start from as a run, the tokenizer, the validation text and the items: a run
    without a checkpoint needs all of them again. Moved, they are looked for beside `runs/`.
    """
    ours, other = places
    shutil.copy(ours / "text.txt", ours / "held.txt")
    write_items(ours / "items.jsonl", invented(8))
    learn = ("tokenizer", "train", "text.txt", "--vocab-size", 300, "--out", "mine")
    assert groundup(*learn, folder=ours).returncode == 0
    of_both = {"--data.tokenizer": "mine", "--model.block-size": 64}
    trained(*flags(SHORT | of_both | {"--name": "parent"}), folder=ours)
    paths = {
        "--init": "parent",
        "--data.validation-corpus": "held.txt",
        "--eval.task-every": 2,
        "--eval.task-items": 0,
        "--eval.task-file": "items.jsonl",
    }
    trained(*flags(SHORT | of_both | paths), folder=ours)
    expected = metrics(ours / "runs" / "run")
    shutil.rmtree(ours / "runs" / "run" / "checkpoints")
    if moved:
        ours = ours.rename(tmp_path / "moved")
    resumed = trained("--resume", ours / "runs" / "run", folder=other)
    assert "from the beginning" in resumed.stdout
    found = metrics(ours / "runs" / "run")
    assert [line["batch_hash"] for line in found] == [line["batch_hash"] for line in expected]
    assert not (other / "runs").exists()


def test_adapters_of_a_moved_run_find_their_base_beside_runs(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    ours, other = places
    trained(*flags(SHORT | {"--name": "parent"}), folder=ours)
    exported = groundup("export", "parent", "--to", "folder", "--out", "base", folder=ours)
    assert exported.returncode == 0, exported.stderr
    trained(*flags(SHORT | {"--init": "base", "--lora.rank": 2}), folder=ours)
    moved = ours.rename(tmp_path / "moved")
    trained("--resume", moved / "runs" / "run", "--steps", 6, folder=other)


def test_a_point_is_printed_as_the_run_that_it_is(places: tuple[Path, Path]) -> None:
    """`--resume .` inside a run's folder: names and commands are the run's own."""
    ours, _ = places
    trained(*flags(SHORT), folder=ours)
    run = ours / "runs" / "run"
    line = error_line(groundup("train", "--resume", ".", folder=run))
    assert line.startswith("groundup: run is finished: 4 of 4 steps")
    longer = run_printed(printed_command(line, "To train longer: "), folder=run)
    assert longer.returncode == 0, longer.stderr
    assert longer.stdout.startswith("reading text.txt\nresuming run at step 4 of 8")
    assert "\nrun: gpt2, " in longer.stdout
    for printed in longer.stdout.partition("\nnext:\n")[2].splitlines():
        if printed.startswith("  groundup ") and "--interactive" not in printed:
            finished = run_printed(printed, folder=run)
            assert finished.returncode == 0, (printed, finished.stderr)


def test_a_point_is_no_run_called_runs(tmp_path: Path) -> None:
    """A model folder in which somebody trained has a folder `runs`, which isn't what `.` means."""
    write_text(tmp_path)
    trained(*flags(SHORT), folder=tmp_path)
    exported = groundup("export", "run", "--to", "folder", "--out", "mine", folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    (tmp_path / "mine" / "runs").mkdir()
    finished = groundup("generate", ".", "--prompt", "the", folder=tmp_path / "mine")
    assert finished.returncode == 0, finished.stderr
    assert f"from {tmp_path / 'mine'}" in finished.stderr


def test_commands_are_printed_as_a_shell_reads_them(places: tuple[Path, Path]) -> None:
    """A run called `a b`: stopped, finished, and refused, here and from another folder."""
    ours, other = places
    run = ours / "runs" / "a b"
    with started(
        "train", *flags(SHORT | {"--name": "a b", "--steps": 100_000}), folder=ours
    ) as running:
        wait_for_step(running, run, 3)
        running.send(15)
        stopped = running.wait()
    command = printed_command(stopped.stdout, "go on with: ")
    assert command == "groundup train --resume 'a b'"
    shutil.rmtree(run)
    finished = trained(*flags(SHORT | {"--name": "a b"}), folder=ours)
    for printed in finished.stdout.partition("\nnext:\n")[2].splitlines():
        if printed.startswith("  groundup ") and "--interactive" not in printed:
            again = run_printed(printed, folder=ours)
            assert again.returncode == 0, (printed, again.stderr)
    for folder, name in ((ours, "a b"), (other, run)):
        line = error_line(
            groundup("train", "--resume", name, "--seed", 7, "--steps", 9, folder=folder)
        )
        began = run_printed(printed_command(line, "Start a new one from its model: "), folder)
        assert began.returncode == 0, (line, began.stderr)
        assert "reading text.txt" in began.stdout
    assert len(list((ours / "runs").glob("a b-*"))) == 2
    assert not (other / "runs").exists()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, one that started from it, and one of adapters on it."""
    folder = tmp_path_factory.mktemp("family")
    write_text(folder)
    trained(*flags(SHORT | {"--name": "parent"}), folder=folder)
    trained(*flags(SHORT | {"--name": "child", "--init": "parent"}), folder=folder)
    adapters = {"--name": "adapters", "--init": "parent", "--lora.rank": 4}
    trained(*flags(SHORT | adapters), folder=folder)
    return folder


@pytest.mark.parametrize(
    ("resumed", "given"),
    [
        ("parent", ["--model.n-layer", 1]),
        ("child", ["--model.n-layer", 1]),
        ("child", ["--model.n-head", 4, "--data.tokenizer", "characters"]),
        ("adapters", ["--lora.rank", 2]),
        ("parent", ["--optim.betas", 0.8, 0.9, "--train.seed", 7]),
        ("parent", ["--train.epochs", 0.1]),
        ("parent", ["--train.init", "child"]),
    ],
)
def test_the_new_run_that_is_advised_can_be_had(
    family: Path, resumed: str, given: list[object]
) -> None:
    line = error_line(groundup("train", "--resume", resumed, *given, folder=family))
    command = re.split(r"Start a new one(?: from its model)?: ", line)[1]
    finished = run_printed(command, family)
    assert finished.returncode == 0, (command, finished.stderr)
    begun = re.findall(r"^([\w-]+): gpt2, ", finished.stdout, re.MULTILINE)[0]
    recipe = (family / "runs" / begun / "recipe.toml").read_text("utf-8")
    key, value = str(given[-2]).rpartition(".")[2].replace("-", "_"), given[-1]
    if key != "epochs":  # which become steps
        assert re.search(rf"^{key} = [\[\s0-9.,]*\"?{value}\b", recipe, re.MULTILINE)


def test_a_copied_run_is_told_where_its_base_is(family: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    (copied / "runs").mkdir(parents=True)
    shutil.copy(family / "text.txt", copied)
    shutil.copytree(family / "runs" / "adapters", copied / "runs" / "adapters", symlinks=True)
    refused = groundup("train", "--resume", "adapters", "--train.seed", 7, folder=copied)
    command = printed_command(error_line(refused), "Start a new one: ")
    assert run_printed(command, copied).returncode == 0, command


def test_a_run_whose_text_is_gone_is_advised_no_command(places: tuple[Path, Path]) -> None:
    ours, _ = places
    trained(*flags(SHORT), folder=ours)
    (ours / "text.txt").unlink()
    refused = groundup("train", "--resume", "run", "--train.seed", 7, folder=ours)
    assert error_line(refused).endswith("Start a new one in a folder that has text.txt")
    refused = groundup("train", "--resume", "run", "--steps", 9, folder=ours)
    assert f"the run's text text.txt isn't in {ours}" in error_line(refused)


def test_adapters_of_another_shape_are_advised_no_command(family: Path) -> None:
    refused = groundup("train", "--resume", "adapters", "--model.n-layer", 1, folder=family)
    assert error_line(refused).endswith("Start a new one: its adapters fit no other model")


def test_a_run_that_never_saved_is_no_model_to_start_from(places: tuple[Path, Path]) -> None:
    ours, _ = places
    trained(*flags(SHORT), folder=ours)
    shutil.rmtree(ours / "runs" / "run" / "checkpoints")
    line = error_line(groundup("train", "--resume", "run", "--seed", 7, folder=ours))
    assert run_printed(printed_command(line, "Start a new one: "), ours).returncode == 0
    (ours / "runs" / "run" / "checkpoints").mkdir()
    line = error_line(groundup("generate", "run", folder=ours))
    assert run_printed(printed_command(line, "Train it: "), ours).returncode == 0
    for step in (ours / "runs" / "run" / "checkpoints").glob("step-*"):
        (step / "config.json").write_text("", "utf-8")
    line = error_line(groundup("compare", "run", "run", "--task", "hellaswag", folder=ours))
    assert "--resume" not in line  # which refuses damaged checkpoints


def test_a_name_that_is_taken_by_no_run_is_not_resumed(tmp_path: Path) -> None:
    write_text(tmp_path)
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    line = error_line(groundup("train", *flags(SHORT | {"--name": "taken"}), folder=tmp_path))
    assert line.endswith("runs/taken already exists. Choose another --name")
    trained(*flags(SHORT | {"--name": "a b"}), folder=tmp_path)
    line = error_line(groundup("train", *flags(SHORT | {"--name": "a b"}), folder=tmp_path))
    assert line.endswith("or go on with it: groundup train --resume 'a b'")


def test_a_card_from_elsewhere_takes_no_folder_for_a_model_of_the_hub(
    places: tuple[Path, Path],
) -> None:
    """A run began with the folder me/base; where that isn't, me/base could be on the hub."""
    ours, other = places
    trained(*flags(SHORT | {"--name": "parent"}), folder=ours)
    base = ("export", "parent", "--to", "folder", "--out", "me/base")
    (ours / "me").mkdir()
    assert groundup(*base, folder=ours).returncode == 0
    (ours / "held.txt").write_text(some_text()[:900], "utf-8")
    held = {"--data.validation-corpus": ours / "held.txt"}
    trained(*flags(SHORT | held | {"--init": "me/base"}), folder=ours)
    card = ("export", ours / "runs" / "run", "--to", "hub", "me/mine", "--out", "card")
    finished = groundup(*card, folder=other)
    assert finished.returncode == 0, finished.stderr
    written = (other / "card" / "README.md").read_text("utf-8")
    assert "base_model" not in written
    assert "It began with the weights of `base`." in written
    recipe = (other / "card" / "recipe.toml").read_text("utf-8")
    assert 'init = "base"\n' in recipe
    assert 'validation_corpus = "held.txt"\n' in recipe
