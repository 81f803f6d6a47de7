"""The command line: a file for each command, and a line for an error of the user.

`groundup --help` never imports torch: a command imports what it needs when it runs.
"""

import errno
import io
import os
import sys
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter

import groundup
from groundup.cli.bench import bench
from groundup.cli.compare import compare
from groundup.cli.data import data
from groundup.cli.evaluate import evaluate
from groundup.cli.export import export
from groundup.cli.generate import generate
from groundup.cli.importing import imports
from groundup.cli.ladder import ladder
from groundup.cli.lessons import lessons
from groundup.cli.look import look
from groundup.cli.plan import plan
from groundup.cli.prepare import prepare_corpus
from groundup.cli.recipes import recipes
from groundup.cli.runs import runs
from groundup.cli.serve import serve
from groundup.cli.tokenizer import tokenizers
from groundup.cli.train import train
from groundup.cli.verify import verify_claims
from groundup.console import messages_to, report
from groundup.errors import GroundupError


def command_line() -> App:
    """Put the commands together."""
    about = "GPT language models, built from the ground up."
    plain = Parameter(negative=())  # --strict has no --no-strict
    name, version = "groundup", groundup.__version__
    commands = App(name=name, version=version, help=about, default_parameter=plain)
    named = train, bench, plan, generate, serve, recipes, runs, data, tokenizers, evaluate
    named += compare, export, imports, look, ladder, lessons
    for command in named:
        commands.command(command)
    commands.command(prepare_corpus, name="prepare")
    commands.command(verify_claims, name="verify")
    return commands


app = command_line()


def main() -> None:
    """Run a command; an error of the user is one line on stderr, and sets the exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the command
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # what a terminal or pipe can't show is escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    status = run(sys.argv[1:])
    if os.environ.get("WORLD_SIZE", "1") != "1":  # see `join_world`: nothing is freed on the way
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


def run(words: list[str]) -> int:
    """Run the command that consists of these words.

    Returns:
        The exit status.
    """
    try:
        with messages_to(report):
            app(words, exit_on_error=False, print_error=False)
    except SystemExit as ended:
        return int(ended.code or 0)
    except (CycloptsError, GroundupError) as error:
        process = f" [process {os.environ['RANK']}]" if os.environ.get("RANK", "0") != "0" else ""
        sys.stderr.write(f"groundup{process}: {' '.join(str(error).split())}\n")
        return getattr(error, "exit_status", 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `groundup generate ... | head`
        _forget_output()
        return 141
    except (RuntimeError, MemoryError) as error:
        from groundup.machine.memory import is_out_of_memory
        from groundup.training.failures import others_hold

        if not is_out_of_memory(error):
            raise
        advice = "take less at once where the command can, or --device cpu"
        sys.stderr.write(f"groundup: out of memory: {advice}{others_hold()}\n")
        return 2
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) and error.filename is None:
            _forget_output()
            sys.stderr.write(f"groundup: can't write: {error.strerror}\n")
            return 2
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = str(error.filename)
        too_long = f"{len(name):,} characters are too long for a name"
        remedy = "A text to go on from is given with --prompt"
        sys.stderr.write(f"groundup: {name[:60]!r}...: {too_long}. {remedy}\n")
        return 2
    return 0


def _forget_output() -> None:
    """Throw away what is still to be written on stdout, and can't be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
