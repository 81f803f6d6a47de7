"""The model card: what a model is, what it learned from and how well, in plain words, from its
run's own records.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import groundup
from groundup.checkpoints.find import on_hub
from groundup.checkpoints.model_folder import LoadedModel
from groundup.evaluation.results import saved_results
from groundup.evaluation.units import loss_in_units, perplexity
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RECIPE_FILE, run_or_path
from groundup.tokenizers.characters import CharacterTokenizer

CARD_FILE = "README.md"
CURVE_FILE = "loss.png"
MOST_ROWS = 12  # of the table of losses

Lines = list[dict[str, Any]]  # of metrics.jsonl


def model_card(loaded: LoadedModel, repository: str, *, has_curve: bool) -> str:
    """The card of a model, Markdown below the hub's metadata. Raises what a damaged run raises.

    has_curve: whether `loss.png` goes with it.
    """
    title = repository.rpartition("/")[2]
    parts = [_metadata(loaded), f"# {title}", _what(loaded), _usage(loaded, repository)]
    if loaded.run is None:
        parts.append(
            "## Training\n\nNothing is on record: the model was uploaded from a folder, not from "
            "a run."
        )
    else:
        recipe, facts, lines = (
            loaded.run.read_recipe(),
            loaded.run.read_facts(),
            loaded.run.read_metrics(),
        )
        step = int(loaded.folder.name.removeprefix("step-"))
        parts += [
            _data(recipe, facts),
            _training(recipe, facts, lines, step),
            _losses(lines, step, has_curve),
        ]
        parts += [
            _SAY[result["task"]](result)
            for result in saved_results(loaded.folder)
            if result["task"] in _SAY
        ]
    return "\n\n".join([*parts, _limits(loaded)]) + "\n"


def _began_with(loaded: LoadedModel) -> str | None:
    """What somebody calls the model whose weights these were at first; None where training began
    with random ones.
    """
    return (loaded.run.read_recipe().train.init or None) if loaded.run else loaded.repository


def _metadata(loaded: LoadedModel) -> str:
    """What the hub reads: no licence, which only the owner can give."""
    task = ["pipeline_tag: text-generation"] if loaded.tokenizer else []
    began_with = _began_with(loaded)
    repository = on_hub(began_with) if began_with and not run_or_path(began_with).exists() else None
    base = [f"base_model: {repository.name}"] if repository else []
    return "\n".join(
        ["---", "library_name: transformers", *task, *base, "tags:", "- groundup", "---"]
    )


def _what(loaded: LoadedModel) -> str:
    tokenizer, config = loaded.tokenizer, loaded.model.config
    shape = "a table of which token follows which"
    if loaded.architecture != "bigram":
        shape = f"{config.n_layer} layers, {config.n_head} heads, width {config.n_embd}"
    kind = "of characters" if isinstance(tokenizer, CharacterTokenizer) else "of byte-level BPE"
    words = (
        f"{config.vocab_size:,} tokens {kind}"
        if tokenizer
        else f"{config.vocab_size:,} tokens (no tokenizer)"
    )
    made = ""
    if loaded.run:
        init = loaded.run.read_recipe().train.init
        made = (
            f" It began with the weights of `{_cell(init)}`."
            if init
            else " It began with random weights."
        )
        if rank := loaded.run.read_recipe().lora.rank:
            made += f" Only adapters of rank {rank} were trained (LoRA), and then merged."
    return (
        f"A language model of {loaded.parameters:,} parameters: {loaded.architecture}, {shape}, "
        f"context {config.block_size:,}, {words}.{made} "
        f"{'Trained' if loaded.run else 'Uploaded'} with groundup "
        f"{groundup.__version__}.\n\n{_licence(loaded)}"
    )


def _licence(loaded: LoadedModel) -> str:
    stated = "No licence is stated. Until its owner adds one, nobody else may assume one."
    began_with = _began_with(loaded)
    return (
        f"{stated} That of `{_cell(began_with)}`, where the weights come from, holds on."
        if began_with
        else stated
    )


def _usage(loaded: LoadedModel, repository: str) -> str:
    if loaded.tokenizer is None:
        return (
            "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{repository}")\n```'
        )
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repository}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{repository}")\n'
        'tokens = tokenizer("a prompt", return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**tokens, max_new_tokens=50)[0]))\n```"
    )


def _data(recipe: Recipe, facts: dict[str, Any]) -> str:
    corpus = facts["corpus"]
    parts = corpus.get("parts") or {corpus["name"]: corpus["fingerprint"]}
    rows = "\n".join(f"| {_cell(name)} | `{fingerprint}` |" for name, fingerprint in parts.items())
    return (
        f"## Data\n\n{corpus['training_tokens']:,} tokens to learn from and "
        f"{corpus['validation_tokens']:,} to be measured on, of `{recipe.data.corpus}`.\n\n| text "
        f"| fingerprint |\n|---|---|\n{rows}"
    )


def _training(recipe: Recipe, facts: dict[str, Any], lines: Lines, step: int) -> str:
    done = next((line for line in lines if line["kind"] == "step" and line["step"] == step), None)
    train, optim = recipe.train, recipe.optim
    rates = (
        f"{optim.learning_rate:g} at most, {optim.schedule}, {optim.warmup_steps:,} steps of "
        "warm-up"
    )
    tokens = (
        f"{done['tokens']:,}, {recipe.tokens_per_step:,} a step"
        if done
        else f"{recipe.tokens_per_step:,} a step"
    )
    rows = {
        "steps": f"{step:,} of {train.steps:,}",
        "tokens": tokens,
        "time": _duration(done["seconds"]) if done else "not on record",
        "optimizer": optim.optimizer,
        "learning rate": rates,
        "dropout": f"{recipe.model.dropout:g}",
        "device": f"{train.device}, {train.precision}, processes: {facts['processes']}",
        "seed": str(train.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    }
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items())
    given = (
        "with the same text and the same weights to begin with"
        if train.init
        else "with the same text"
    )
    return (
        f"## Training\n\n| | |\n|---|---|\n{table}\n\nEverything that decided the run is in "
        f"[{RECIPE_FILE}]({RECIPE_FILE}); {given}, `groundup train --config {RECIPE_FILE}` does "
        "it again."
    )


def _losses(lines: Lines, step: int, has_curve: bool) -> str:
    """The losses that were measured, this checkpoint's first."""
    measured = [line for line in lines if line["kind"] == "evaluation" and line["step"] <= step]
    text = ["## Evaluation"]
    if here := [line for line in measured if line["step"] == step]:
        loss = here[-1]["validation_loss"]
        text.append(
            f"Validation loss {loss:.4f} nats a token (perplexity {perplexity(loss):.2f}, "
            f"{here[-1]['bits_per_byte']:.3f} bits a byte), on text held back from the same "
            "loaded. It says nothing of other texts, and a perplexity compares only with models "
            "of the same tokenizer."
        )
    else:
        text.append("This checkpoint was not measured.")
    if has_curve:
        text.append(f"![the losses over the steps]({CURVE_FILE})")
    if measured:
        rows = "\n".join(
            f"| {line['step']:,} | {line['tokens']:,} | {_number(line['train_loss'])} | "
            f"{line['validation_loss']:.4f} |"
            for line in _some(measured)
        )
        text.append(
            f"| step | tokens | training loss | validation loss |\n|---:|---:|---:|---:|\n{rows}"
        )
    return "\n\n".join(text)


def _hellaswag(result: dict[str, Any]) -> str:
    """A result that `groundup evaluate` kept, with what a reader must know to compare it."""
    items, of = result["items"], result["of"]
    asked = f"all {of:,} items" if items == of else f"{items:,}, evenly spread, of {of:,} items"
    what = "the official validation file"
    if not result["official"]:
        what = (
            f"`{_cell(Path(result['file']).name)}`. UNOFFICIAL: not the file of the published "
            "figures"
        )
    rows = "\n".join(
        f"| {row['convention']} | {row['measure']} | {100 * row['accuracy']:.2f}% | "
        f"{100 * row['interval'][0]:.2f} to {100 * row['interval'][1]:.2f}% |"
        for row in result["results"]
    )
    return (
        f"### HellaSwag\n\nThis checkpoint, on {asked} of {what}; guessing is right in 25%. "
        "`completion` is build-nanogpt's convention, `harness` that of lm-evaluation-harness; "
        "figures of different conventions don't compare.\n\n| convention | measure | right | 95% "
        f"interval |\n|---|---|---:|---:|\n{rows}"
    )


def _text_loss(result: dict[str, Any]) -> str:
    """The loss on a text, as `groundup evaluate` kept it."""
    return (
        f"### Loss on `{_cell(Path(result['corpus']).name)}`\n\nThis checkpoint, on "
        f"{result['part']} ({result['tokens']:,} tokens): {', '.join(loss_in_units(result))}, in "
        f"windows of {result['block_size']:,} tokens with stride {result['stride']:,}. Whether "
        "the model has seen this text in training is not on record."
    )


# by task
_SAY: dict[str, Callable[[dict[str, Any]], str]] = {"hellaswag": _hellaswag, "loss": _text_loss}


def _limits(loaded: LoadedModel) -> str:
    if (began_with := _began_with(loaded)) is not None:
        known = (
            f"What it was trained for and tested for before, the card of `{_cell(began_with)}` "
            "says."
        )
    elif loaded.run is None:
        known = "What it was trained for and tested for is not on record."
    else:
        known = (
            "It wasn't trained to follow instructions or to be truthful, and nobody tested it for "
            "bias or for repeating its training text."
        )
    return f"## Limits\n\nThe model continues text. {known} Don't rely on what it writes."


def _some(lines: Lines) -> Lines:
    """At most `MOST_ROWS` of them, evenly spread, the first and the last included."""
    if len(lines) <= MOST_ROWS:
        return lines
    return [lines[round(place * (len(lines) - 1) / (MOST_ROWS - 1))] for place in range(MOST_ROWS)]


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return (
        f"{seconds:.0f} s"
        if seconds < 60
        else f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min"
    )


def _number(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _cell(text: str) -> str:
    """Text that can't end a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
