"""The model card: what a model is, what it learned from and how well, by its run's records."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import groundup
from groundup.checkpoints.find import on_hub
from groundup.checkpoints.model_folder import LoadedModel
from groundup.evaluation.results import saved_results
from groundup.evaluation.units import loss_in_units, perplexity
from groundup.files import is_there
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RECIPE_FILE, RunFolder, run_or_path
from groundup.tokenizers.characters import CharacterTokenizer

CARD_FILE = "README.md"
CURVE_FILE = "loss.png"
MOST_ROWS = 12  # of the table of losses

USE_WITHOUT_TOKENIZER = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{repository}")
"""
USE = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repository}")
model = AutoModelForCausalLM.from_pretrained("{repository}")
tokens = tokenizer("a prompt", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=50)[0]))
"""

Lines = list[dict[str, Any]]  # of metrics.jsonl


def model_card(loaded: LoadedModel, repository: str, *, has_curve: bool) -> str:
    """Return the card of a model, which is Markdown below the hub's metadata.

    Args:
        loaded: The model.
        repository: OWNER/NAME that the card is for.
        has_curve: Whether the picture `loss.png` goes with the card.

    Raises:
        GroundupError: The records of the model's run are damaged.
    """
    run = loaded.run
    recipe = run.read_recipe() if run else None
    # what somebody calls the model whose weights these were at first, if there was one
    origin = origin_of(run, recipe) if run and recipe else loaded.repository
    title = repository.rpartition("/")[2]
    code = (USE if loaded.tokenizer else USE_WITHOUT_TOKENIZER).format(repository=repository)
    parts = [_metadata(loaded, origin), f"# {title}", _what(loaded, recipe, origin)]
    parts.append(f"## Use\n\n```python\n{code}```")
    if run is None or recipe is None:
        parts.append(
            "## Training\n\nNothing is on record: the model was uploaded from a folder, not from "
            "a run."
        )
    else:
        facts, lines = run.read_facts(), run.read_metrics()
        step = int(loaded.folder.name.removeprefix("step-"))
        parts += [_data(recipe, facts), _training(recipe, facts, lines, step)]
        parts.append(_losses(lines, step, has_curve))
        results = saved_results(loaded.folder)
        parts += [_SAY[result["task"]](result) for result in results if result["task"] in _SAY]
    return "\n\n".join([*parts, _limits(recipe, origin)]) + "\n"


def _metadata(loaded: LoadedModel, origin: str | None) -> str:
    """What the hub reads: no licence, which only the owner can give."""
    task = "pipeline_tag: text-generation\n" if loaded.tokenizer else ""
    base = on_hub(origin) if origin and not run_or_path(origin).exists() else None
    of_hub = f"base_model: {base.name}\n" if base else ""
    return f"---\nlibrary_name: transformers\n{task}{of_hub}tags:\n- groundup\n---"


def _what(loaded: LoadedModel, recipe: Recipe | None, origin: str | None) -> str:
    """What the model is and how it was made, and the licence that isn't stated."""
    tokenizer, config, made = loaded.tokenizer, loaded.model.config, ""
    shape = "a table of which token follows which"
    if loaded.architecture != "bigram":
        shape = f"{config.n_layer} layers, {config.n_head} heads, width {config.n_embd}"
    kind = "of characters" if isinstance(tokenizer, CharacterTokenizer) else "of byte-level BPE"
    kind = kind if tokenizer else "(no tokenizer)"
    if recipe:
        weights = f"the weights of {_code(public_origin(origin))}" if origin else "random weights"
        made = f" It began with {weights}."
        if rank := recipe.lora.rank:
            made += f" Only adapters of rank {rank} were trained (LoRA), and then merged."
    licence = "No licence is stated. Until its owner adds one, nobody else may assume one."
    if origin:
        where = f"{_code(public_origin(origin))}, where the weights come from"
        licence += f" That of {where}, holds on."
    return (
        f"A language model of {loaded.parameters:,} parameters: {loaded.architecture}, {shape}, "
        f"context {config.block_size:,}, {config.vocab_size:,} tokens {kind}.{made} "
        f"{'Trained' if recipe else 'Uploaded'} with groundup {groundup.__version__}.\n\n{licence}"
    )


def _data(recipe: Recipe, facts: dict[str, Any]) -> str:
    corpus = facts["corpus"]
    parts = corpus.get("parts") or {corpus["name"]: corpus["fingerprint"]}
    rows = [(_code(without_folders(name)), f"`{digest}`") for name, digest in parts.items()]
    name = _code(without_folders(recipe.data.corpus))
    return (
        f"## Data\n\n{corpus['training_tokens']:,} tokens to learn from and "
        f"{corpus['validation_tokens']:,} to be measured on, of {name}.\n\n"
        f"{_table('| text | fingerprint |', '|---|---|', rows)}"
    )


def _training(recipe: Recipe, facts: dict[str, Any], lines: Lines, step: int) -> str:
    """How long and how the model was trained, and how to do it again."""
    done = next((line for line in lines if line["kind"] == "step" and line["step"] == step), None)
    train, optim = recipe.train, recipe.optim
    warm_up = f"{optim.warmup_steps:,} steps of warm-up"
    rows = {
        "steps": f"{step:,} of {train.steps:,}",
        "tokens": (f"{done['tokens']:,}, " if done else "") + f"{recipe.tokens_per_step:,} a step",
        "time": _duration(done["seconds"]) if done else "not on record",
        "optimizer": optim.optimizer,
        "learning rate": f"{optim.learning_rate:g} at most, {optim.schedule}, {warm_up}",
        "dropout": f"{recipe.model.dropout:g}",
        "device": f"{train.device}, {train.precision}, processes: {facts['processes']}",
        "seed": str(train.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    }
    table = _table("| | |", "|---|---|", [(name, _cell(value)) for name, value in rows.items()])
    weights = " and the same weights to begin with" if train.init else ""
    again = f"with the same text{weights}, `groundup train --config {RECIPE_FILE}` does it again."
    changes = [change for change in facts.get("changes", []) if change["step"] < step]
    if changes:
        said = (f"{change['what']} from step {change['step']:,} on" for change in changes)
        again = f"the recipe is that of the end. On the way there were changes: {', '.join(said)}."
    decided = f"Everything that decided the run is in [{RECIPE_FILE}]({RECIPE_FILE}); {again}"
    return f"## Training\n\n{table}\n\n{decided}"


def _losses(lines: Lines, step: int, has_curve: bool) -> str:
    """The losses that were measured, this checkpoint's first."""
    measured = [line for line in lines if line["kind"] == "evaluation" and line["step"] <= step]
    text = ["## Evaluation"]
    if here := [line for line in measured if line["step"] == step]:
        loss = here[-1]["validation_loss"]
        text.append(
            f"Validation loss {loss:.4f} nats a token (perplexity {perplexity(loss):.2f}, "
            f"{here[-1]['bits_per_byte']:.3f} bits a byte), on text held back from the same "
            "source. It says nothing of other texts, and a perplexity compares only with models "
            "of the same tokenizer."
        )
    else:
        text.append("This checkpoint was not measured.")
    if has_curve:
        text.append(f"![the losses over the steps]({CURVE_FILE})")
    if measured:
        rows = []
        for line in _some(measured):
            train_loss = "-" if line["train_loss"] is None else f"{line['train_loss']:.4f}"
            counts = f"{line['step']:,}", f"{line['tokens']:,}"
            rows.append((*counts, train_loss, f"{line['validation_loss']:.4f}"))
        head = "| step | tokens | training loss | validation loss |"
        text.append(_table(head, "|---:|---:|---:|---:|", rows))
    return "\n\n".join(text)


def _hellaswag(result: dict[str, Any]) -> str:
    """A result that `groundup evaluate` kept, with what a reader must know to compare it."""
    items, of = result["items"], result["of"]
    asked = f"all {of:,} items" if items == of else f"{items:,}, evenly spread, of {of:,} items"
    other = f"{_code(Path(result['file']).name)}. UNOFFICIAL: not the file of the published figures"
    what = "the official validation file" if result["official"] else other
    rows = []
    for row in result["results"]:
        low, high = (100 * bound for bound in row["interval"])
        right = f"{100 * row['accuracy']:.2f}%"
        rows.append((row["convention"], row["measure"], right, f"{low:.2f} to {high:.2f}%"))
    table = _table("| convention | measure | right | 95% interval |", "|---|---|---:|---:|", rows)
    return (
        f"### HellaSwag\n\nThis checkpoint, on {asked} of {what}; guessing is right in 25%. "
        "`completion` is build-nanogpt's convention, `harness` that of lm-evaluation-harness; "
        f"figures of different conventions don't compare.\n\n{table}"
    )


def _text_loss(result: dict[str, Any]) -> str:
    """The loss on a text, as `groundup evaluate` kept it."""
    return (
        f"### Loss on {_code(without_folders(result['corpus']))}\n\nThis checkpoint, on "
        f"{result['part']} ({result['tokens']:,} tokens): {', '.join(loss_in_units(result))}, in "
        f"windows of {result['block_size']:,} tokens with stride {result['stride']:,}. Whether "
        "the model has seen this text in training is not on record."
    )


# by task
_SAY: dict[str, Callable[[dict[str, Any]], str]] = {"hellaswag": _hellaswag, "loss": _text_loss}


def _limits(recipe: Recipe | None, origin: str | None) -> str:
    known = (
        "It wasn't trained to follow instructions or to be truthful, and nobody tested it for "
        "bias or for repeating its training text."
    )
    if origin is not None:
        card = f"the card of {_code(public_origin(origin))} says"
        known = f"What it was trained for and tested for before, {card}."
    elif recipe is None:
        known = "What it was trained for and tested for is not on record."
    return f"## Limits\n\nThe model continues text. {known} Don't rely on what it writes."


def _table(head: str, line: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown, from cells that can't end one."""
    return "\n".join([head, line, *(f"| {' | '.join(row)} |" for row in rows)])


def _some(lines: Lines) -> Lines:
    """At most `MOST_ROWS` of them, evenly spread, the first and the last included."""
    if len(lines) <= MOST_ROWS:
        return lines
    return [lines[round(place * (len(lines) - 1) / (MOST_ROWS - 1))] for place in range(MOST_ROWS)]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def origin_of(run: RunFolder, recipe: Recipe) -> str | None:
    """Return the model that a run began with: the path of a run or folder, or a hub's name."""
    if not recipe.train.init:
        return None
    place = run_or_path(recipe.train.init, run.folders(run.read_facts()))
    return str(place) if is_there(place) else recipe.train.init


def public_origin(name: str) -> str:
    """Return a model's name without folders; a repository of the hub keeps its owner."""
    is_of_hub = on_hub(name) and not run_or_path(name).exists()
    return name if is_of_hub else without_folders(name)


def without_folders(name: str) -> str:
    """Return the name of a text, or of a mixture, without the folders that lead to it."""
    whole = name.rstrip("/")
    if Path(whole).exists() or "," not in whole:
        return whole.rpartition("/")[2]
    return ",".join(part.rstrip("/").rpartition("/")[2] for part in whole.split(","))


def _code(text: str) -> str:
    """Text as code in Markdown, which nothing in it can end."""
    text = _cell(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks, space = "`" * (longest + 1), " " if longest else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _cell(text: str) -> str:
    """Text that can't end a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
