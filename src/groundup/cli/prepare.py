"""`groundup prepare` on the command line: its flags, and what it prints at the end."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from groundup.cli.flags import shorter_context
from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.data.shard_folder import ShardFolder


def prepare_corpus(
    source: str,
    /,
    *,
    out: Path,
    sample: str = "",
    tokenizer: str = "gpt2",
    column: str = "text",
    tokens: int = 0,
    validation: float | None = None,
    validation_corpus: str = "",
    separator: str = "",
    seed: int = 1337,
    deduplicate: bool = False,
    encoding_errors: Literal["refuse", "replace"] = "refuse",
    workers: int = 0,
    strict: bool = False,
    hellaswag: Path | None = None,
    ray: str = "",
) -> None:
    """Turn any text into shuffled, verified shards; stopped anywhere, the same command goes on.

    Args:
        source: A file or folder of text, JSON, CSV (also .gz or .zst), parquet or Arrow; or
            python-docs, shakespeare, fineweb-edu, openwebtext, hf://datasets/OWNER/NAME/FOLDER.
        out: The folder for the shards; train on it with --corpus.
        sample: Of fineweb-edu: 10BT, 100BT or 350BT tokens; 10BT if left out.
        tokenizer: gpt2, characters, or a folder with a tokenizer.json (`groundup tokenizer train`).
        column: Where JSON, CSV, parquet and Arrow files have their text.
        tokens: Stop after the document that reaches so many; 0 takes all.
        validation: Share of documents kept for it; 0.1 if left out, 0.001 of a corpus of the web.
        validation_corpus: A file or folder whose documents are for validation, all others not.
        separator: A text that ends documents: <|endoftext|> for instance.
        seed: Of the order of the documents.
        deduplicate: Keep one of documents that are equal.
        encoding_errors: Of bytes that aren't UTF-8: `replace` puts U+FFFD there.
        workers: Processes; 0 takes the cores there are.
        strict: Exit with status 1 if the data doctor warns.
        hellaswag: HellaSwag's validation items, not to learn from; the cache's if left out.
        ray: Work on the Ray cluster at this address instead; `auto` finds one here.
    """
    from groundup.prepare.pipeline import Preparation, prepare

    _check(workers, hellaswag)
    replace_errors, how = encoding_errors == "replace", (seed, validation, deduplicate, tokens)
    more = *how, validation_corpus, separator
    preparation = Preparation(source, tokenizer, sample, column, replace_errors, *more)
    folder = prepare(preparation, out, workers, ray)
    raise SystemExit(_report(folder, out, hellaswag, strict))


def _check(workers: int, hellaswag: Path | None) -> None:
    """Refuse a number of workers and a file of items that can't be, before the work."""
    from groundup.data.hellaswag_items import read_items

    if workers < 0:
        wanted = "a number of processes, from 1; 0 takes the cores there are"
        raise GroundupError(f"--workers {workers} must be {wanted}")
    if hellaswag is not None:
        read_items(hellaswag)


def _report(folder: "ShardFolder", out: Path, hellaswag: Path | None, strict: bool) -> int:
    """Print what was found in the new shards, and how to train on them; the exit status."""
    from groundup.cli.data import print_report
    from groundup.data_inspection.report import report_on

    found = report_on(folder.path, hellaswag)
    print_report(found)
    sys.stdout.write(_next_step(folder, out) + "\n")
    return int(strict and found.warnings > 0)


def _next_step(folder: "ShardFolder", out: Path) -> str:
    """The command that trains on the shards, or what they lack for it."""
    longest = {
        split: max((len(shard.tokens) for shard in shards), default=0)
        for split, shards in folder.shards.items()
    }
    if longest["validation"] < 2:
        remedy = "give more text, --validation 0.1 or --validation-corpus, and another --out"
        return f"no document for validation: {remedy}"
    shorter = shorter_context(longest["train"])
    if shorter is None:
        return f"{longest['train']:,} tokens are too few to train on: give more text"
    return f"train on it: {shlex.join(['groundup', 'train', '--corpus', str(out), *shorter])}"
