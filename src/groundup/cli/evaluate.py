"""`groundup evaluate` on the command line: thin and lazy."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from groundup.errors import EvaluationError

ModelName = Annotated[
    str,
    Parameter(
        help=(
            "A run's name, the path of a run or a model folder, or a model of the hub: gpt2, "
            "OWNER/NAME."
        )
    ),
]
Task = Annotated[
    Literal["hellaswag", "loss"],
    Parameter(
        help="hellaswag: choose the ending of a text, 10,042 times; loss: on the text of --corpus."
    ),
]
ItemsFile = Annotated[
    Path | None,
    Parameter(
        help=(
            "Of hellaswag: other items than the official ones, as JSON lines; the result isn't "
            "official then."
        )
    ),
]
Convention = Annotated[
    Literal["both", "completion", "harness"],
    Parameter(
        help=(
            "Of hellaswag: as build-nanogpt completes texts, as lm-evaluation-harness does, or "
            "both."
        )
    ),
]
PerItem = Annotated[
    Path | None, Parameter(help="Of hellaswag: write each item's scores and choices as JSON lines.")
]
CorpusName = Annotated[
    str | None,
    Parameter(
        help=(
            "Of loss: python-docs, shakespeare, a file or folder of text, or shards, whose "
            "validation counts."
        )
    ),
]
Stride = Annotated[
    int | None,
    Parameter(
        help=(
            "Of loss: tokens from one window to the next; half the context if left out, 1 is the "
            "most exact."
        )
    ),
]
Limit = Annotated[
    int | None,
    Parameter(help="N items, evenly spread over the file, or the first N tokens of a text."),
]
BatchSize = Annotated[int, Parameter(help="Items, or windows, that are computed together.")]


def evaluate(
    model: ModelName,
    /,
    *,
    task: Task = "hellaswag",
    limit: Limit = None,
    file: ItemsFile = None,
    convention: Convention = "both",
    per_item: PerItem = None,
    corpus: CorpusName = None,
    stride: Stride = None,
    batch_size: BatchSize = 8,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    json: Annotated[
        bool, Parameter(help="One JSON object instead of a table.", negative=())
    ] = False,
) -> None:
    """Score a model: on HellaSwag, in both of the conventions in use, or by its loss on a text."""
    check_numbers(limit, batch_size)
    asked = None if convention == "both" else convention
    check_task(task, "hellaswag", {"file": file, "per-item": per_item, "convention": asked})
    check_task(task, "loss", {"corpus": corpus, "stride": stride})
    from groundup.cli.evaluation import evaluate_hellaswag, evaluate_loss

    if task == "hellaswag":
        evaluate_hellaswag(
            model,
            file=file,
            limit=limit,
            convention=convention,
            per_item=per_item,
            batch_size=batch_size,
            device=device,
            as_json=json,
        )
    else:
        evaluate_loss(
            model,
            corpus=named(corpus),
            limit=limit,
            stride=stride,
            batch_size=batch_size,
            device=device,
            as_json=json,
        )


def check_numbers(limit: int | None, batch_size: int) -> None:
    """Raises EvaluationError for what must count something and doesn't."""
    for flag, value in (("limit", limit), ("batch-size", batch_size)):
        if value is not None and value < 1:
            raise EvaluationError(f"--{flag} {value} must be at least 1")


def check_task(task: str | None, belongs: str, flags: dict[str, object]) -> None:
    """Raises EvaluationError for a flag that was given and belongs to another task than the one
    that was asked for.
    """
    for flag, value in flags.items():
        if value is not None and task != belongs:
            said = f"the task is {task}" if task else "no task is given"
            raise EvaluationError(
                f"--{flag} belongs to --task {belongs}, but {said}: leave one out"
            )


def named(corpus: str | None) -> str:
    """The text of --task loss. Raises EvaluationError without one."""
    if corpus is None:
        raise EvaluationError("--task loss needs a text: --corpus FILE, or a folder of shards")
    return corpus
