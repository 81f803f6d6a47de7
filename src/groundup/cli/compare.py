"""`groundup compare` on the command line: thin and lazy."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from groundup.cli.evaluate import (
    BatchSize,
    Convention,
    CorpusName,
    ItemsFile,
    Stride,
    check_numbers,
    check_task,
    named,
)
from groundup.errors import EvaluationError

FirstName = Annotated[
    str, Parameter(help="A run, the path of a run or model folder, gpt2, or OWNER/NAME of the hub.")
]
SecondName = Annotated[str, Parameter(help="What it is compared with; differences are B - A.")]
Task = Annotated[
    Literal["hellaswag", "loss"] | None,
    Parameter(
        help=(
            "Compare the models at a task, paired; left out, two runs are compared by their curves."
        )
    ),
]
Limit = Annotated[
    int | None,
    Parameter(
        help="N items, evenly spread; the first N characters of a text, or tokens of shards."
    ),
]
Picture = Annotated[
    Path | None,
    Parameter(help="Of two runs: where their curves are drawn; compare-A-B.png if left out."),
]


def compare(
    a: FirstName,
    b: SecondName,
    /,
    *,
    task: Task = None,
    limit: Limit = None,
    file: ItemsFile = None,
    convention: Convention = "both",
    corpus: CorpusName = None,
    stride: Stride = None,
    batch_size: BatchSize = 8,
    out: Picture = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    json: Annotated[
        bool, Parameter(help="One JSON object instead of a table.", negative=())
    ] = False,
) -> None:
    """Compare two models at a task, item by item, or two runs by their curves, with all that
    differs between them.
    """
    check_numbers(limit, batch_size)
    check_task(
        task,
        "hellaswag",
        {"file": file, "convention": None if convention == "both" else convention},
    )
    check_task(task, "loss", {"corpus": corpus, "stride": stride})
    _check_kind(task, limit, out)
    if task is None:
        from groundup.runs.compare_runs import compare_runs

        compare_runs((a, b), out=out, as_json=json)
        return
    from groundup.evaluation.compare_models import compare_hellaswag, compare_loss

    if task == "hellaswag":
        compare_hellaswag(
            (a, b),
            file=file,
            limit=limit,
            convention=convention,
            batch_size=batch_size,
            device=device,
            as_json=json,
        )
    else:
        compare_loss(
            (a, b),
            corpus=named(corpus),
            limit=limit,
            stride=stride,
            batch_size=batch_size,
            device=device,
            as_json=json,
        )


def _check_kind(task: str | None, limit: int | None, out: Path | None) -> None:
    """Raises EvaluationError for what only a task has, or only two runs."""
    if task is None and limit is not None:
        raise EvaluationError(
            "--limit belongs to a task, but none is given: add --task hellaswag or --task loss"
        )
    if task is not None and out is not None:
        raise EvaluationError(
            f"--out is where the curves of two runs are drawn, but the task is {task}: leave one "
            "out"
        )
