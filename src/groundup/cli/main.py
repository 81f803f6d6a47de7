"""The command line: thin, and lazy, so that `groundup --help` never imports torch."""

import os
import sys
from dataclasses import asdict, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

import groundup
from groundup.cli.compare import compare
from groundup.cli.data import data
from groundup.cli.evaluate import evaluate
from groundup.cli.export import export
from groundup.cli.prepare import prepare_corpus
from groundup.cli.recipes import recipes
from groundup.cli.runs import runs
from groundup.cli.tokenizer import tokenizers
from groundup.cli.verify import verify_claims
from groundup.console import messages_to, report
from groundup.errors import GroundupError
from groundup.recipes.files import (
    Layer,
    load_recipe,
    model_to_start_from,
    overrides,
    packaged,
    recipe_file,
)
from groundup.recipes.scaling import scaled
from groundup.recipes.schema import OLDER_NAMES, SECTIONS, Recipe, Tables, field_types

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
)

# of the classes made below: left to itself, it says they are built in
NAMESPACE = {"__module__": __name__}


def _optional_section(name: str) -> type:
    """A recipe section for the command line: every field may be left out, which is not the same as
    its default.
    """
    flags = [
        (key, Annotated[kind | None, Parameter(help=text, negative=())], None)
        for key, (kind, text) in field_types(name).items()
    ]
    for older, key in OLDER_NAMES.items() if name == "eval" else ():
        kind = field_types(name)[key][0]
        flags.append((older, Annotated[kind | None, Parameter(show=False, negative=())], None))
    return make_dataclass(f"{name.capitalize()}Flags", flags, namespace=NAMESPACE)


def _recipe_flags() -> type:
    """Every recipe field as `--section.field`."""
    sections = {name: _optional_section(name) for name in SECTIONS if name != "about"}
    return make_dataclass(
        "RecipeFlags",
        [(name, section, field(default_factory=section)) for name, section in sections.items()],
        namespace=NAMESPACE,
    )


RecipeFlags = _recipe_flags()


RecipeName = Annotated[
    str | None,
    Parameter(
        help=(
            "A packaged recipe (see `groundup recipes`); `quickstart` if neither it nor --config "
            "is given."
        )
    ),
]
ConfigFile = Annotated[
    Path | None, Parameter(help="A recipe file of your own; its values go over those of RECIPE.")
]
Size = Annotated[
    int | None,
    Parameter(help="Layers: scales the recipe's width, heads, batch and learning rates with them."),
]
CorpusName = Annotated[
    str | None,
    Parameter(
        help=(
            "Short for --data.corpus: python-docs, shakespeare, a file or folder, or a mixture: "
            "a:0.7,b:0.3."
        )
    ),
]
VocabSize = Annotated[
    int, Parameter(help="Measure on random tokens of so many kinds; 0 takes the recipe's own.")
]
AsJson = Annotated[bool, Parameter(help="One JSON object instead of a table.", negative=())]


def _given(flags: Any, short: Tables) -> Tables:
    """The fields that were given on the command line, long or short."""
    tables: Tables = {name: {} for name in SECTIONS}
    for name, section in vars(flags).items() if flags else ():
        tables[name] |= {key: value for key, value in asdict(section).items() if value is not None}
    for name, section in short.items():
        for key, value in section.items():
            if value is not None and tables[name].setdefault(key, value) != value:
                raise GroundupError(
                    f"--{key} {value} and --{name}.{key} {tables[name][key]} contradict each other"
                )
    return {name: section for name, section in tables.items() if section}


@app.command
def train(
    recipe: RecipeName = None,
    /,
    *,
    config: ConfigFile = None,
    size: Size = None,
    corpus: CorpusName = None,
    steps: Annotated[
        int | None, Parameter(help="Short for --train.steps: the length in optimizer steps.")
    ] = None,
    seed: Annotated[int | None, Parameter(help="Short for --train.seed.")] = None,
    name: Annotated[
        str | None, Parameter(help="The run's folder in runs/; RECIPE-N if left out.")
    ] = None,
    init: Annotated[
        str | None,
        Parameter(
            help=(
                "Short for --train.init: a run, folder, gpt2 or OWNER/NAME of the hub to start "
                "from."
            )
        ),
    ] = None,
    resume: Annotated[
        str | None,
        Parameter(
            help="Go on with this run, exactly. Only --steps may be given with it, to train longer."
        ),
    ] = None,
    accept_changed_data: Annotated[
        bool,
        Parameter(
            help="Resume even though the corpus isn't the one that the run began with.", negative=()
        ),
    ] = False,
    flags: Annotated[RecipeFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
) -> None:
    """Train a model by a recipe, and write what it learned."""
    from groundup.cli.train import resume_training, start_training

    given = _given(
        flags, {"data": {"corpus": corpus}, "train": {"steps": steps, "seed": seed, "init": init}}
    )
    if resume is not None:
        unwanted = {"RECIPE": recipe, "--config": config, "--size": size, "--name": name}
        _finish(
            resume_training(
                resume,
                given,
                [flag for flag, value in unwanted.items() if value],
                accept_changed_data,
            )
        )
    recipe_name = recipe or "quickstart"
    if config is not None:  # a run's own recipe.toml stands for the run
        recipe_name = config.stem if config.name != "recipe.toml" else config.resolve().parent.name
    _finish(start_training(_load(recipe, config, size, given), recipe_name, name))


@app.command
def bench(
    recipe: RecipeName = None,
    /,
    *,
    config: ConfigFile = None,
    size: Size = None,
    repeat: Annotated[
        int, Parameter(help="Steps to measure, once whole and once phase by phase.")
    ] = 20,
    vocab_size: VocabSize = 0,
    json: AsJson = False,
    flags: Annotated[RecipeFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
) -> None:
    """Measure a recipe's training step on this machine, on random tokens: speed, share of the peak,
    memory, phases.
    """
    from groundup.profiling.bench import print_bench

    if repeat < 1:
        raise GroundupError(f"--repeat {repeat} must be at least 1")
    print_bench(_load(recipe, config, size, _given(flags, {})), vocab_size, repeat, json)


@app.command
def plan(
    recipe: RecipeName = None,
    /,
    *,
    config: ConfigFile = None,
    size: Size = None,
    corpus: CorpusName = None,
    steps: Annotated[
        int | None, Parameter(help="Short for --train.steps: the length in optimizer steps.")
    ] = None,
    vocab_size: VocabSize = 0,
    gpu: Annotated[
        str | None,
        Parameter(help="Estimate on paper for such a GPU instead: h100, a100, rtx4090 ..."),
    ] = None,
    gpus: Annotated[int, Parameter(help="With --gpu: how many.")] = 1,
    json: AsJson = False,
    flags: Annotated[RecipeFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
) -> None:
    """Predict what a recipe will need on this machine, from a few measured steps: memory, time,
    largest micro-batch.
    """
    from groundup.profiling.estimate import print_estimate
    from groundup.profiling.plan import print_plan

    loaded = _load(
        recipe, config, size, _given(flags, {"data": {"corpus": corpus}, "train": {"steps": steps}})
    )
    if gpu is not None:
        print_estimate(loaded, vocab_size, gpu, gpus, json)
    elif gpus != 1:
        raise GroundupError(
            "--gpus is for an estimate on paper: say which, --gpu h100 for instance"
        )
    else:
        print_plan(loaded, vocab_size, json)


def _load(recipe: str | None, config: Path | None, size: int | None, given: Tables) -> Recipe:
    """The packaged recipe, a file over it, both scaled to a size, and the flags over all.

    Below all is the shape of the model to start from, if there is one: it holds where nobody states
    another.
    """
    layers: list[Layer] = []
    if recipe is not None or config is None:
        layers.append(packaged(recipe or "quickstart"))
    if config is not None:
        layers.append(recipe_file(config))
    if init := model_to_start_from(*layers, overrides(given)):
        from groundup.training.initial import shape_layer

        layers.insert(0, shape_layer(init))
    if size is not None:
        layers.append(Layer(scaled(load_recipe(*layers), size), source=f"--size {size}"))
    return load_recipe(*layers, overrides(given))


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


def _finish(status: int) -> NoReturn:
    """Leave with the training's status; one of several processes at once, because gloo's threads
    can abort an exit.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


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
