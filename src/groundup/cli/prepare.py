"""`groundup prepare` on the command line: its flags, and what it prints at the end."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from groundup.errors import GroundupError

Source = Annotated[
    str,
    Parameter(
        help=(
            "A file or folder of text, JSON lines (.jsonl, also .gz or .zst) or parquet; or "
            "python-docs, shakespeare, fineweb-edu, openwebtext, hf://datasets/OWNER/NAME/FOLDER."
        )
    ),
]
Out = Annotated[Path, Parameter(help="The folder for the shards; train on it with --corpus.")]
Sample = Annotated[
    str, Parameter(help="Of fineweb-edu: 10BT, 100BT or 350BT tokens; 10BT if left out.")
]
TokenizerName = Annotated[
    str,
    Parameter(
        help="gpt2, characters, or a folder with a tokenizer.json (see `groundup tokenizer train`)."
    ),
]
Column = Annotated[str, Parameter(help="Where JSON lines and parquet files have their text.")]
Tokens = Annotated[
    int, Parameter(help="Stop after the document that reaches so many; 0 takes all.")
]
Validation = Annotated[
    float | None,
    Parameter(
        help=(
            "Share of the documents kept for validation; 0.1 if left out, 0.001 of a corpus of "
            "the web."
        )
    ),
]
Seed = Annotated[int, Parameter(help="Of the order of the documents.")]
Deduplicate = Annotated[bool, Parameter(help="Keep one of documents that are equal.", negative=())]
EncodingErrors = Annotated[
    Literal["refuse", "replace"],
    Parameter(help="Of bytes that aren't UTF-8: `replace` puts U+FFFD there."),
]
WorkerCount = Annotated[int, Parameter(help="Processes; 0 takes the cores there are.")]
Strict = Annotated[
    bool, Parameter(help="Exit with status 1 if the data doctor warns.", negative=())
]
HellaSwag = Annotated[
    Path | None,
    Parameter(help="HellaSwag's validation items, not to learn from; the cache's if left out."),
]
Ray = Annotated[
    str, Parameter(help="Work on the Ray cluster at this address instead; `auto` finds one here.")
]


def prepare_corpus(
    source: Source,
    /,
    *,
    out: Out,
    sample: Sample = "",
    tokenizer: TokenizerName = "gpt2",
    column: Column = "text",
    tokens: Tokens = 0,
    validation: Validation = None,
    seed: Seed = 1337,
    deduplicate: Deduplicate = False,
    encoding_errors: EncodingErrors = "refuse",
    workers: WorkerCount = 0,
    strict: Strict = False,
    hellaswag: HellaSwag = None,
    ray: Ray = "",
) -> None:
    """Turn any text into shuffled, verified shards of tokens.

    Stopped anywhere, the same command goes on.
    """
    from groundup.cli.data import exit_status, print_report
    from groundup.data.hellaswag_items import read_items
    from groundup.data_inspection.report import report_on
    from groundup.prepare.pipeline import Preparation, default_validation, prepare

    if workers < 0:
        raise GroundupError(
            f"--workers {workers} must be a number of processes, from 1; 0 takes the cores there "
            "are"
        )
    share = default_validation(source) if validation is None else validation
    replace_errors, how = encoding_errors == "replace", (seed, share, deduplicate, tokens)
    preparation = Preparation(source, tokenizer, sample, column, replace_errors, *how)
    if hellaswag is not None:
        read_items(hellaswag)  # a wrong file is said before the work
    folder = prepare(preparation, out, workers, ray)
    found = report_on(folder.path, hellaswag)
    print_report(found)
    sys.stdout.write(f"train on it: groundup train --corpus {shlex.quote(str(out))}\n")
    raise SystemExit(exit_status(found, strict))
