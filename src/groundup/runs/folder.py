"""The run folder: a run's resolved recipe, its facts, metrics, samples and checkpoints."""

import itertools
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from groundup.errors import RunError
from groundup.files import HERE, expanded, is_there, write_json, write_whole
from groundup.recipes.files import load_recipe, parse_toml
from groundup.recipes.schema import Recipe

RECIPE_FILE = "recipe.toml"
SCRATCH = ".groundup-measures-"  # begins the name of a folder that is soon removed
FACTS = {"started", "parameters", "vocab_size", "corpus", "folder", "processes", "versions"}


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes a run's recipe, facts, metrics and samples in `runs/NAME/`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def argument(self) -> str:
        """The name or path by which a command finds the run from here, quoted for a shell."""
        return shlex.quote(self.name if self.path == RUNS / self.name else str(self.path))

    def folders(self, facts: dict[str, Any]) -> tuple[Path, ...]:
        """Return the folders that the relative paths of the run's recipe may be relative to.

        The folder above `runs/` comes first: a run that was moved or copied is there together with
        its texts. The folder that the run began in is next, and the current folder is last.
        """
        return self.project, Path(facts["folder"]), *HERE

    @property
    def project(self) -> Path:
        """The folder above the `runs/` that the run is in."""
        return self.path.absolute().parent.parent

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, in which `best` and `latest` point at two of them."""
        return self.path / "checkpoints"

    def write(self, recipe: Recipe, facts: dict[str, Any]) -> None:
        """Write the facts and then the recipe, because a folder with a recipe is a run.

        Args:
            recipe: The recipe, in which everything that was automatic is resolved.
            facts: What the recipe can't know: fingerprints, parameters, versions, the machine.
        """
        text = recipe.to_toml()
        write_json(self.path / "run.json", facts)
        write_whole(self.path / RECIPE_FILE, text)

    def read_recipe(self) -> Recipe:
        """Read the recipe of the run.

        Raises:
            RunError: The file `recipe.toml` can't be read.
            RecipeError: The file isn't a recipe.
        """
        file = self.path / RECIPE_FILE
        try:
            return load_recipe(parse_toml(file.read_text("utf-8"), str(file)))
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(
                f"{file} can't be read: {error}. Without its recipe a run can't be resumed"
            ) from error

    def read_facts(self) -> dict[str, Any]:
        """Read the facts of the run that its recipe can't know.

        Raises:
            RunError: The file `run.json` can't be read, or isn't what groundup wrote.
        """
        file = self.path / "run.json"
        try:
            facts = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{file} can't be read: {error}") from error
        if missing := FACTS - (facts.keys() if isinstance(facts, dict) else set()):
            raise RunError(
                f"{file} lacks {', '.join(sorted(missing))}: it isn't what groundup wrote"
            )
        return facts

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read all lines of metrics.jsonl, except a last line that a killed process left cut."""
        return list(MetricsReader(self).new_lines())

    def forget_after(self, step: int, owed: bool = False) -> None:
        """Drop the metrics and samples of steps that a resumed run will do again.

        Args:
            step: The last step that the run has done.
            owed: Whether all that was measured after that step is measured again, too.
        """
        last = step - 1 if owed else step  # whose measurements stay
        kept = (
            json.dumps(line) + "\n"
            for line in MetricsReader(self).new_lines()
            if line["step"] <= (step if line["kind"] == "step" else last)
        )
        write_whole(self.path / "metrics.jsonl", "".join(kept))
        samples = self.path / "samples.txt"
        if samples.is_file():
            text = samples.read_text("utf-8", errors="ignore")  # a kill may have cut a character
            headers = _SAMPLE_HEADER.finditer(text)
            starts = [match.start() for match in headers if int(match[1]) > last]
            complete, end, _cut_header = text[: min(starts, default=len(text))].rpartition("\n\n")
            write_whole(samples, complete + end)

    def append_sample(self, step: int, loss: float, text: str) -> None:
        """Add a text to samples.txt, below a line with its step and loss."""
        with (self.path / "samples.txt").open("a", encoding="utf-8") as file:
            file.write(f"{_SAMPLE_MARK}{step} (validation loss {loss:.4f})\n{text}\n\n")

    def read_samples(self) -> list[tuple[int, float, str]]:
        """Return the step, the validation loss and the text of each sample in samples.txt."""
        samples = self.path / "samples.txt"
        text = samples.read_text("utf-8", errors="ignore") if samples.is_file() else ""
        headers = [*_SAMPLE_HEADER.finditer(text)]
        ends = [*(header.start() for header in headers), len(text)][1:]
        return [
            (int(header[1]), float(header[2]), text[header.end() : end].strip("\n"))
            for header, end in zip(headers, ends, strict=True)
        ]


class MetricsReader:
    """Reads metrics.jsonl while it grows, each line once.

    Args:
        run: The folder of the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._file, self._offset = run.path / "metrics.jsonl", 0

    def new_lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that are new, up to one that a killed process left cut."""
        if not self._file.is_file():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            for data in file:
                try:
                    line = json.loads(data)
                except ValueError:
                    return
                if not isinstance(line, dict) or not {"kind", "step"} <= line.keys():
                    return
                self._offset += len(data)
                yield line


_SAMPLE_MARK = "======== step "
_SAMPLE_HEADER = re.compile(rf"^{_SAMPLE_MARK}(\d+) \(validation loss (.*)\)$", re.MULTILINE)


def check_new_name(name: str | None) -> None:
    """Check that a name can be a new run's.

    Raises:
        RunError: The name isn't a plain name of a folder, or a run has that name already.
    """
    if name is None:
        return
    if not name or Path(name).name != name or name.startswith((".", "-")):
        raise RunError(
            f"run name {name!r} must be a plain folder name, without slashes or a leading dot or "
            "dash"
        )
    if os.path.lexists(RUNS / name):
        run = RunFolder(RUNS / name)
        is_run = (run.path / RECIPE_FILE).is_file()
        go_on = f", or go on with it: groundup train --resume {run.argument}" if is_run else ""
        raise RunError(f"{run.path} already exists. Choose another --name{go_on}")


def check_writable() -> None:
    """Check that `runs/` takes a new run. Nothing is left behind.

    Raises:
        RunError: `runs/` is no folder, or the system lets nobody write there.
    """
    try:
        with TemporaryDirectory(prefix=".try-", dir=RUNS if os.path.lexists(RUNS) else Path()):
            pass
    except OSError as error:
        raise RunError(
            f"can't make a folder in {RUNS.absolute()}: {error.strerror}. Start in a folder that "
            "can be written"
        ) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder where runs are written, for the time of the body.

    It is in the system's temporary folder where nobody may write here. What a process that was
    killed left here an hour ago or longer is removed.
    """
    home = RUNS if RUNS.is_dir() else Path()
    if not os.access(home, os.W_OK):
        home = Path(gettempdir())
    for left in home.glob(f"{SCRATCH}*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=SCRATCH, dir=home) as folder:
        yield Path(folder)


def create_run(recipe_name: str, name: str | None) -> RunFolder:
    """Make the folder of a new run, called `name`, or else after its recipe with a free number.

    Raises:
        RunError: The name is taken or isn't a plain name of a folder, or the folder can't be made.
    """
    check_new_name(name)
    numbered = (f"{recipe_name}-{number}" for number in itertools.count(1))
    for candidate in [name] if name else numbered:
        try:
            RUNS.mkdir(exist_ok=True)
            (RUNS / candidate).mkdir()
        except OSError as error:
            if name is None and (RUNS / candidate).is_dir():
                continue
            raise RunError(f"can't make the folder {RUNS / candidate}: {error.strerror}") from error
        return RunFolder(RUNS / candidate)
    raise AssertionError("there is always a next number")


def find_run(name: str) -> RunFolder:
    """Find the run of that name or path.

    Raises:
        RunError: There is no such run; the message lists the runs that there are.
    """
    path = run_or_path(name)
    if (path / RECIPE_FILE).is_file():
        return RunFolder(path)
    existing = ", ".join(run.name for run in all_runs()) or "none yet"
    raise RunError(f"no run named {name}. Runs here: {existing}")


def all_runs() -> list[RunFolder]:
    """List the runs in the folder `runs/`, by name."""
    return [RunFolder(path.parent) for path in sorted(RUNS.glob(f"*/{RECIPE_FILE}"))]


RUNS = Path("runs")


def run_or_path(name: str, folders: Sequence[Path] = HERE) -> Path:
    """Return the path of the run `name` in `runs/`, or if there is none `name` as a path.

    Args:
        name: The name or the path. What `.` and `..` stand for is returned with its name.
        folders: The folders that are meant; the first one that has such a run or path counts.
    """
    path = expanded(name)
    if path.name in ("", ".."):
        return (folders[0] / path).resolve()
    for folder in folders:
        if (folder / RUNS / path).is_dir():
            return folder / RUNS / path
        if is_there(folder / path):
            return folder / path
    return path


def run_of(checkpoint: Path) -> RunFolder | None:
    """Return the run that a folder is a checkpoint of, or None for any other folder."""
    folder = checkpoint.resolve()
    run = RunFolder(folder.parent.parent)
    is_of_run = folder.parent == run.checkpoints and (run.path / RECIPE_FILE).is_file()
    return run if is_of_run else None
