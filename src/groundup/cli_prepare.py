"""`groundup prepare` on the command line: thin and lazy."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from groundup.errors import GroundupError


def prepare_corpus(
    source: Annotated[
        str,
        Parameter(
            help="A file or folder of text, JSON lines (.jsonl, also .gz or .zst) or parquet; or python-docs, "
            "shakespeare, fineweb-edu, openwebtext, hf://datasets/OWNER/NAME/FOLDER."
        ),
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="The folder for the shards; train on it with --corpus.")],
    sample: Annotated[str, Parameter(help="Of fineweb-edu: 10BT, 100BT or 350BT tokens; 10BT if left out.")] = "",
    tokenizer: Annotated[
        str, Parameter(help="gpt2, characters, or a folder with a tokenizer.json (see `groundup tokenizer train`).")
    ] = "gpt2",
    column: Annotated[str, Parameter(help="Where JSON lines and parquet files have their text.")] = "text",
    tokens: Annotated[int, Parameter(help="Stop after the document that reaches so many; 0 takes all.")] = 0,
    validation: Annotated[
        float | None,
        Parameter(help="Share of the documents kept for validation; 0.1 if left out, 0.001 of a corpus of the web."),
    ] = None,
    seed: Annotated[int, Parameter(help="Of the order of the documents.")] = 1337,
    deduplicate: Annotated[bool, Parameter(help="Keep one of documents that are equal.", negative=())] = False,
    encoding_errors: Annotated[
        Literal["refuse", "replace"],
        Parameter(help="What to do with bytes that aren't UTF-8; U+FFFD can stand for them."),
    ] = "refuse",
    workers: Annotated[int, Parameter(help="Processes; 0 takes the cores there are.")] = 0,
    ray: Annotated[str, Parameter(help="Work on the Ray cluster at this address instead; `auto` finds one here.")] = "",
) -> None:
    """Turn any text into shuffled, verified shards of tokens. Stopped anywhere, the same command goes on."""
    from groundup.data.preparation import Preparation
    from groundup.data.prepare import default_validation, prepare

    if workers < 0:
        raise GroundupError(f"--workers {workers} must be a number of processes, from 1; 0 takes the cores there are")
    preparation = Preparation(
        source=source,
        sample=sample,
        tokenizer=tokenizer,
        column=column,
        replace_errors=encoding_errors == "replace",
        seed=seed,
        validation=default_validation(source) if validation is None else validation,
        deduplicate=deduplicate,
        limit=tokens,
    )
    prepare(preparation, out, workers, ray)
