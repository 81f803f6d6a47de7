"""`groundup data` on the command line: as thin and as lazy as the rest of it."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

data = App(name="data", help="Look at what a model is to learn from.")


@data.command(name="check")
def check_data(
    folder: Annotated[
        Path,
        Parameter(
            help="What `groundup prepare` made, or a folder with .bin files of nanoGPT or llm.c."
        ),
    ],
    /,
    *,
    strict: Annotated[
        bool, Parameter(help="Exit with status 1 if there is a warning.", negative=())
    ] = False,
    hellaswag: Annotated[
        Path | None,
        Parameter(
            help="HellaSwag's validation items: hellaswag_val.jsonl; the cache's if left out."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        Parameter(
            help="What made .bin files that have no index: gpt2, or a folder with a tokenizer.json."
        ),
    ] = None,
    json: Annotated[
        bool, Parameter(help="One JSON object instead of a table.", negative=())
    ] = False,
) -> None:
    """Verify every shard, and report what a training run should know: sizes, damage, copies,
    overlap.
    """
    from groundup.cli.data_report import check

    raise SystemExit(check(folder, hellaswag, tokenizer, strict, json))
