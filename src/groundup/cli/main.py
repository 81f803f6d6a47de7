"""The command line: thin, and lazy, so that `groundup --help` never imports torch."""

import os
import sys
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

import groundup
from groundup.cli.bench import bench
from groundup.cli.compare import compare
from groundup.cli.data import data
from groundup.cli.evaluate import evaluate
from groundup.cli.export import export
from groundup.cli.plan import plan
from groundup.cli.prepare import prepare_corpus
from groundup.cli.recipes import recipes
from groundup.cli.runs import runs
from groundup.cli.tokenizer import tokenizers
from groundup.cli.train import train
from groundup.cli.verify import verify_claims
from groundup.console import messages_to, report
from groundup.errors import GroundupError

app = App(
    name="groundup",
    version=groundup.__version__,
    help="GPT language models, built from the ground up.",
)

COMMANDS = (
    *(app.command(prepare_corpus, name="prepare"), app.command(data), app.command(tokenizers)),
    *(app.command(evaluate), app.command(compare)),
    app.command(verify_claims, name="verify"),
    *(app.command(export), app.command(recipes), app.command(runs)),
    *(app.command(train), app.command(bench), app.command(plan)),
)


@app.command
def generate(
    run: Annotated[
        str,
        Parameter(help="A run, the path of a run or model folder, gpt2, or OWNER/NAME of the hub."),
    ],
    /,
    *,
    prompt: Annotated[str, Parameter(help="The text to go on from.")] = "",
    interactive: Annotated[
        bool,
        Parameter(help="Ask for prompt, temperature and length, again and again.", negative=()),
    ] = False,
    length: Annotated[int, Parameter(help="Tokens to write.")] = 500,
    temperature: Annotated[
        float, Parameter(help="Below 1 safer, above 1 wilder; 0 is greedy.")
    ] = 0.8,
    top_k: Annotated[
        int | None, Parameter(help="Draw only from the K most probable tokens.")
    ] = None,
    top_p: Annotated[
        float,
        Parameter(
            help=(
                "Draw only from the most probable tokens that make up this share of the "
                "probability."
            )
        ),
    ] = 1.0,
    greedy: Annotated[
        bool, Parameter(help="Always take the most probable token.", negative=())
    ] = False,
    seed: Annotated[
        int | None,
        Parameter(
            help="The same seed writes the same text; a fresh one is taken, and said, if left out."
        ),
    ] = None,
    samples: Annotated[int, Parameter(help="How many texts; text i has the seed SEED + i.")] = 1,
    strict: Annotated[
        bool,
        Parameter(
            help="Refuse a prompt longer than the model's context, instead of keeping its end.",
            negative=(),
        ),
    ] = False,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Write text with a trained model, as it is made."""
    from groundup.cli.generate import generate_texts
    from groundup.generation.stream import SamplingSettings

    if top_k is not None and top_k < 1:
        raise GroundupError(
            f"top-k = {top_k} must be a number of tokens, from 1; leave it out to keep all"
        )
    if interactive and samples != 1:
        raise GroundupError(
            "--samples and --interactive don't go together: ask again for another text"
        )
    if samples < 1:
        raise GroundupError(f"samples = {samples} must be at least 1")
    settings: SamplingSettings = SamplingSettings(
        length=length,
        temperature=0.0 if greedy else temperature,
        top_k=top_k or 0,
        top_p=top_p,
        seed=int.from_bytes(os.urandom(4), "little") if seed is None else seed,
    )
    generate_texts(
        run,
        prompt,
        settings,
        samples=samples,
        interactive=interactive,
        strict=strict,
        device=device,
    )


def main() -> None:
    """Run the command line; what a user did wrong is one line on stderr and exit status 2."""
    try:
        with messages_to(report):
            app(sys.argv[1:], exit_on_error=False, print_error=False)
    except (CycloptsError, GroundupError) as error:
        process = f" [process {os.environ['RANK']}]" if os.environ.get("RANK", "0") != "0" else ""
        sys.stderr.write(f"groundup{process}: {' '.join(str(error).split())}\n")
        raise SystemExit(getattr(error, "exit_status", 2)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # `groundup generate ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
