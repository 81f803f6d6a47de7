"""What an evaluation task is, and the registry of tasks.

A task is opened with its settings, then measures one model or compares two. What a task finds gives
its own JSON, lines and tables, so the command line and training treat all tasks alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from groundup.errors import EvaluationError, TokenizerError

if TYPE_CHECKING:  # the command line reads the registry without torch
    from groundup.checkpoints.model_folder import LoadedModel
    from groundup.generation.writer import Precision
    from groundup.models.registry import Model
    from groundup.tokenizers.base import Tokenizer

# told what is counted and how many there will be; gives what is told how many are done
Progress = Callable[[str, int], Callable[[int], None]]


class Registered(NamedTuple):
    """A task's entry in the registry, which imports nothing until the task is used.

    Args:
        title: What people call the task.
        place: The task's class, as `module:Class`.
        help: What the command line says of the task.
    """

    title: str
    place: str
    help: str

    def load(self) -> "type[Task]":
        """Import the task's class."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)


TASKS = {
    "hellaswag": Registered(
        "HellaSwag",
        "groundup.evaluation.hellaswag:HellaSwag",
        "choose the ending of a text, 10,042 times",
    ),
    "loss": Registered(
        "loss", "groundup.evaluation.text_loss:TextLossTask", "on the text of --corpus"
    ),
    "choices": Registered(
        "choices", "groundup.evaluation.choices:Choices", "choose an ending, on items of --file"
    ),
}
TITLES = {name: registered.title for name, registered in TASKS.items()}


@dataclass(frozen=True)
class Settings:
    """The settings that a user gives for a task, each of which only some tasks read.

    Args:
        limit: How many items, tokens or characters are read at most; None and 0 read all.
        batch_size: How many items or windows are computed together.
        file: A file of items.
        flag: The flag or recipe key that names `file`, for error messages.
        convention: The convention by which items are put to a model, or `both`.
        corpus: The name of a text.
        stride: The number of tokens from one window to the next; None takes half of a
            window.
        column: The column of rows that holds the text; None takes `text`.
        window: The number of tokens of a window; None takes the context, up to 2,048.
    """

    limit: int | None = None
    batch_size: int = 8
    file: Path | None = None
    flag: str = "--file"
    convention: str = "both"
    corpus: str | None = None
    stride: int | None = None
    column: str | None = None
    window: int | None = None


@dataclass(frozen=True)
class NamedModel:
    """A model in evaluation mode, the name that the user gave it, its tokenizer and its folder."""

    name: str
    model: "Model"
    tokenizer: "Tokenizer"
    folder: Path = field(default_factory=Path)

    @classmethod
    def of(cls, loaded: "LoadedModel", name: str) -> Self:
        """Make a `NamedModel` of a loaded model, its tokenizer and its folder.

        Args:
            loaded: The model, as `load_model` returned it.
            name: The name under which results and errors mention the model.

        Raises:
            CheckpointError: The model has no tokenizer.
        """
        return cls(name, loaded.model, loaded.require_tokenizer(), loaded.folder)


@dataclass(frozen=True)
class Table:
    """A table to print: the headings of columns of words, those of columns of numbers, and rows."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)


class Finding(ABC):
    """What a task found out about one model, or about two models that it compared."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the finding as `--json` prints it."""

    @abstractmethod
    def report(self) -> Iterator[str | Table]:
        """Return the finding for people, as lines and tables in the order of printing."""


class Result(Finding):
    """What a task found out about one model.

    `identity` names the values of `to_json` that say what was measured. A result that is saved
    replaces an earlier result in which these values are the same.
    """

    identity: ClassVar[tuple[str, ...]]

    def items(self) -> list[dict[str, Any]]:
        """Return what was found of each item as values that JSON knows, or [] without items."""
        return []


@dataclass(frozen=True)
class ResultOfOtherWeights(Result):
    """What a task found out about one model with weights of another dtype than its files have.

    Args:
        found: What was found.
        weights: The dtype of the weights.
    """

    identity: ClassVar = ()  # it is saved nowhere
    found: Result
    weights: str

    def to_json(self) -> dict[str, Any]:
        return self.found.to_json() | {"weights": self.weights}

    def report(self) -> Iterator[str | Table]:
        """Yield what was found, and a line that says of which weights."""
        yield from self.found.report()
        yield f"with {self.weights} weights, not the model's own; products in float32"

    def items(self) -> list[dict[str, Any]]:
        return self.found.items()


class Task(ABC):
    """An evaluation task that was opened, ready to be put to models.

    `name` is what `--task` and `eval.task` call it, `flags` are those of the command line that
    belong to it.
    """

    name: ClassVar[str]
    flags: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def open(cls, settings: Settings) -> Self:
        """Open the task on the items or the text that the settings name, which may be downloaded.

        Raises:
            CorpusError: The items or the text can't be had.
            EvaluationError: A setting is missing or has no meaning.
        """

    @abstractmethod
    def evaluate(self, named: NamedModel, progress: Progress) -> Result:
        """Measure a model by the task.

        Args:
            named: The model, its name and its tokenizer.
            progress: Is told what is counted and how many there will be, and returns a function
                that is told how many are done.

        Raises:
            EvaluationError: The task can't be put to the model, or a score or loss isn't finite.
        """

    @abstractmethod
    def compare(self, first: NamedModel, second: NamedModel, progress: Progress) -> Finding:
        """Measure two models by the task, and pair the results item by item or passage by passage.

        If the task can't be put to one of them, neither is measured.

        Raises:
            EvaluationError: The task can't be put to a model, or a score or loss isn't finite. The
                error names the model.
        """


def open_task(name: str, settings: Settings) -> Task:
    """Open the task that `--task` calls `name`.

    Raises:
        CorpusError: The items or the text can't be had.
        EvaluationError: A setting is missing or has no meaning.
    """
    return TASKS[name].load().open(settings)


def evaluate_in(
    precision: "Precision", task: Task, named: NamedModel, progress: Progress
) -> Result:
    """Measure a model by a task with weights of another dtype than its own, if one is given.

    Products are in float32 then, whatever the machine has units for.

    Args:
        precision: The dtype of the weights; `auto` stands for the model's own.
        task: The task.
        named: The model, its name and its tokenizer.
        progress: As `Task.evaluate` takes it.

    Raises:
        EvaluationError: The model has no matrices to replace, or the task can't be put to it.
    """
    weights = precision.quantize or precision.dtype
    if weights == "auto":
        return task.evaluate(named, progress)
    from groundup.generation.writer import weight_dtype, with_weights
    from groundup.models.bigram import Bigram

    if isinstance(named.model, Bigram):
        remedy = "evaluate it without another dtype of weights"
        raise EvaluationError(f"{named.name} is a bigram, whose table stays as it is: {remedy}")
    dtype = weight_dtype(named.model, precision, kernels=None)
    changed = replace(named, model=with_weights(named.model, dtype, kernels=None))
    if changed.model is named.model:
        return task.evaluate(named, progress)
    return ResultOfOtherWeights(task.evaluate(changed, progress), weights)


def evaluate(
    loaded: "LoadedModel",
    task: str = "hellaswag",
    *,
    corpus: str | None = None,
    column: str | None = None,
    file: Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    convention: str = "both",
    stride: int | None = None,
    window: int | None = None,
    dtype: str = "auto",
    quantize: str = "",
) -> Result:
    """Score a model at a task, as `groundup evaluate` does.

    Args:
        loaded: The model, as `load_model` returns it, on the device that computes.
        task: hellaswag, loss or choices.
        corpus: For the loss, the name of a text.
        column: For the loss, the column of rows that holds the text; None takes `text`.
        file: A file of items, where a task has items.
        limit: How many items, tokens or characters are read at most; None reads all.
        batch_size: How many items or windows are computed together.
        convention: For HellaSwag, completion, harness or both.
        stride: For the loss, tokens from one window to the next; None takes half a window.
        window: For the loss, tokens of a window; None takes the context, up to 2,048.
        dtype: The weights to compute with: float32, bfloat16, or auto for the model's own.
        quantize: int8 for weights of 8 bits, or empty.

    Returns:
        What was found; `to_json()` gives its numbers.

    Raises:
        EvaluationError: There is no such task, or the task can't be put to the model.
        GenerationError: There are no weights of that dtype.
        CorpusError: The text or the items can't be had.
        CheckpointError: The model has no tokenizer.
    """
    if task not in TASKS:
        raise EvaluationError(f"there is no task {task}. Known: {', '.join(TASKS)}")
    of_text = {"corpus": corpus, "column": column, "stride": stride, "window": window}
    settings = Settings(limit, batch_size, file, convention=convention, **of_text)
    from groundup.generation.writer import Precision

    precision, named = Precision(dtype, quantize), NamedModel.of(loaded, loaded.title)
    opened = open_task(task, settings)
    return evaluate_in(precision, opened, named, lambda _what, _total: lambda _done: None)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put a model's name before the message of an error of a `with` block.

    Raises:
        EvaluationError: The block raised an error of evaluation or of a tokenizer.
    """
    try:
        yield
    except (EvaluationError, TokenizerError) as error:
        raise EvaluationError(f"{name}: {error}") from error
