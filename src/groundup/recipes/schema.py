"""The fields of a recipe, in sections: everything that decides a run. files.py reads them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tomli_w

from groundup.models.config import GPTConfig, ModelConfig, ModernConfig, parameter_count

Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class About:
    """What the list of recipes says about a recipe, which changes nothing in the run."""

    summary: Annotated[str, "what the recipe is, in a line"] = ""
    vocab_size: Annotated[int, "the vocabulary to expect of its corpus"] = 0
    time: Annotated[str, "how long it takes, and on what"] = ""
    loss: Annotated[str, "the validation loss to expect"] = ""


@dataclass(frozen=True)
class ModelSection:
    """The architecture of the model, and its shape."""

    architecture: Annotated[
        Literal["bigram", "readable", "gpt2", "modern"], "the file in groundup/models"
    ] = "gpt2"
    block_size: Annotated[int, "context length in tokens"] = 256
    n_layer: Annotated[int, "transformer blocks"] = 6
    n_head: Annotated[int, "attention heads a block"] = 6
    n_embd: Annotated[int, "width of the residual stream"] = 384
    dropout: Annotated[float, "probability of zeroing an activation in training"] = 0.0
    n_kv_head: Annotated[
        int, "modern: heads of keys and values, which queries share; 0 takes n_head"
    ] = 0
    head_dim: Annotated[int, "modern: width of a head; 0 takes n_embd / n_head"] = 0
    n_inner: Annotated[
        int, "modern: width of the MLP; 0 takes 8/3 n_embd, rounded up to a multiple of 16"
    ] = 0
    rope_theta: Annotated[float, "modern: base of the rotary frequencies"] = 10_000.0
    head: Annotated[
        Literal["tied", "untied"], "modern: whether the table that reads tokens writes them too"
    ] = "tied"


@dataclass(frozen=True)
class DataSection:
    """The text to train on, its tokenizer, and how the text is cut."""

    corpus: Annotated[
        str,
        "python-docs, shakespeare, a file or folder of your own text or of shards, or a mixture: "
        "a:0.7,b:0.3",
    ] = "python-docs"
    tokenizer: Annotated[
        str,
        "characters, gpt2, or a folder with a tokenizer.json; auto takes train.init's, the "
        "shards' or characters",
    ] = "auto"
    column: Annotated[
        str, "where JSON lines, JSON arrays, CSV, parquet and Arrow files have their text"
    ] = "text"
    documents: Annotated[
        Literal["cut", "whole"], "whole: a window begins where a document does"
    ] = "cut"
    validation_corpus: Annotated[
        str, "a file or folder of text for validation; empty holds out a part of the corpus"
    ] = ""
    validation_fraction: Annotated[
        float, "share of the text, at its end, that is kept for validation"
    ] = 0.1


@dataclass(frozen=True)
class OptimSection:
    """AdamW, or Muon and AdamW, and their learning rates."""

    optimizer: Annotated[
        Literal["adamw", "muon"], "muon: for the blocks' matrices, and adamw for the rest"
    ] = "adamw"
    learning_rate: Annotated[float, "AdamW's peak"] = 1e-3
    min_learning_rate: Annotated[float, "where the decay ends"] = 1e-4
    muon_learning_rate: Annotated[float, "Muon's peak; it moves as AdamW's does"] = 0.02
    muon_momentum: Annotated[float, "Muon's averaging of gradients"] = 0.95
    warmup_steps: Annotated[int, "steps of linear warm-up to the peak"] = 100
    schedule: Annotated[
        Literal["cosine", "linear", "wsd", "constant"],
        "the decay after the warm-up; wsd holds the peak first",
    ] = "cosine"
    decay_share: Annotated[float, "of wsd: the share of all steps in which it decays"] = 0.4
    betas: Annotated[tuple[float, float], "AdamW's averaging of gradients and of their squares"] = (
        0.9,
        0.99,
    )
    weight_decay: Annotated[
        float, "of matrices; norms and biases never decay, nor does the embedding of modern"
    ] = 0.1
    clip_norm: Annotated[float, "the gradient's largest norm; 0 doesn't clip"] = 1.0


@dataclass(frozen=True)
class LoraSection:
    """Low-rank adapters (Hu et al. 2021), which learn instead of the model that they are on."""

    rank: Annotated[
        int,
        "of the adapters on the blocks' matrices, the usual 8; 0 trains the whole model instead",
    ] = 0
    alpha: Annotated[float, "what adapters add is scaled by alpha / rank"] = 16.0


@dataclass(frozen=True)
class TrainSection:
    """The length of training, the size of its batches, and the machine to train on."""

    steps: Annotated[int, "length in optimizer steps"] = 0
    epochs: Annotated[float, "length in passes over the training text"] = 0.0
    minutes: Annotated[
        float, "length in minutes from the first step to the last checkpoint, all reports included"
    ] = 0.0
    batch_size: Annotated[int, "sequences an optimizer step, over all processes"] = 64
    micro_batch_size: Annotated[
        int, "sequences a forward pass and process; 0 takes a process's whole share"
    ] = 0
    seed: Annotated[int, "of weights, order of the data, dropout and samples"] = 1337
    device: Annotated[str, "auto, cpu, cuda, cuda:1, mps"] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float64"],
        "of the products; weights stay float32 in bfloat16",
    ] = "auto"
    compile: Annotated[Literal["auto", "on", "off"], "torch.compile; auto where it pays"] = "auto"
    threads: Annotated[int, "CPU threads; 0 takes the cores there are"] = 0
    keep_checkpoints: Annotated[int, "newest checkpoints to keep, besides the best"] = 2
    init: Annotated[
        str, "a run, a model folder or a model of the hub to start from; model's shape is its"
    ] = ""
    log: Annotated[Literal["none", "tensorboard"], "where metrics go besides metrics.jsonl"] = (
        "none"
    )


@dataclass(frozen=True)
class EvalSection:
    """Measurements and samples while a run trains."""

    every: Annotated[
        int, "steps between evaluations, samples and checkpoints; 0 only at the end"
    ] = 250
    tokens: Annotated[
        int, "validation tokens to measure, evenly spread; 0 takes the whole split"
    ] = 0
    train_tokens: Annotated[int, "training tokens to measure beside them; 0 measures none"] = 16384
    patience: Annotated[
        int, "evaluations without a better loss before stopping early; 0 never stops"
    ] = 0
    sample_length: Annotated[int, "tokens of the sample at each evaluation; 0 writes none"] = 200
    task: Annotated[
        str, "what scores the model on the way: hellaswag, or choices, which needs a task_file"
    ] = "hellaswag"
    task_every: Annotated[int, "steps between scorings by the task's items; 0 never"] = 0
    task_items: Annotated[
        int, "items to score, always the same ones, evenly spread; 0 takes all"
    ] = 200
    task_file: Annotated[
        str, "items of your own as JSON lines; of hellaswag, the official ones if left out"
    ] = ""


@dataclass(frozen=True)
class Recipe:
    """All settings of a run.

    On a CPU the same recipe and corpus give the same weights, even if the run was interrupted.
    """

    about: About = field(default_factory=About)
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    optim: OptimSection = field(default_factory=OptimSection)
    lora: LoraSection = field(default_factory=LoraSection)
    train: TrainSection = field(default_factory=TrainSection)
    eval: EvalSection = field(default_factory=EvalSection)

    def to_toml(self) -> str:
        """Write what decides the run, without `about`, as TOML that `parse_toml` reads back."""
        tables = {section: values for section, values in asdict(self).items() if section != "about"}
        return tomli_w.dumps(tables)

    def model_config(self, vocab_size: int) -> ModelConfig:
        """Make the model's config, once the size of its vocabulary is known.

        Raises:
            ConfigError: A value of the model's shape is out of range or contradicts another.
        """
        section = self.model
        shape = {
            name: getattr(section, name) for name in ("block_size", "n_layer", "n_head", "n_embd")
        }
        if section.architecture != "modern":
            return GPTConfig(vocab_size=vocab_size, dropout=section.dropout, **shape)
        return ModernConfig(
            vocab_size=vocab_size,
            n_kv_head=section.n_kv_head,
            head_dim=section.head_dim,
            n_inner=section.n_inner,
            rope_theta=section.rope_theta,
            tied=section.head == "tied",
            dropout=section.dropout,
            **shape,
        )

    def parameter_count(self, vocab_size: int) -> int:
        """Count the model's parameters with a vocabulary of that size, without adapters."""
        config = self.model_config(vocab_size)
        return parameter_count(self.model.architecture, config)

    @property
    def tokens_per_step(self) -> int:
        """The number of tokens that an optimizer step learns from, over all processes."""
        return self.train.batch_size * self.model.block_size

    def with_steps(self, steps: int) -> "Recipe":
        """Return the same recipe with its length given in steps.

        A recipe that has a number of steps keeps the warm-up that these steps have room for.
        """
        train = replace(self.train, steps=steps, epochs=0.0, minutes=0.0)
        warmup_steps = min(self.optim.warmup_steps, self.train.steps or steps)
        return replace(self, train=train, optim=replace(self.optim, warmup_steps=warmup_steps))


def shape_of(architecture: str, config: ModelConfig) -> dict[str, Any]:
    """Return a model's shape as a recipe's section `model` states it.

    It is the inverse of `Recipe.model_config`. Dropout isn't part of the shape and is left out.
    """
    if architecture == "bigram":
        return {"architecture": architecture, "block_size": config.block_size}
    shape = {name: getattr(config, name) for name in ("block_size", "n_layer", "n_head", "n_embd")}
    if isinstance(config, ModernConfig):
        shape |= {
            name: getattr(config, name)
            for name in ("n_kv_head", "head_dim", "n_inner", "rope_theta")
        }
        shape["head"] = "tied" if config.tied else "untied"
    return {"architecture": architecture, **shape}


# Keys of the section `eval` as recipes had them when HellaSwag was the only task. Each is read as
# the field beside it, and says that eval.task is OLDER_TASK.
OLDER_NAMES = {
    "hellaswag_every": "task_every",
    "hellaswag_items": "task_items",
    "hellaswag_file": "task_file",
}
OLDER_TASK = "hellaswag"

ONLY_MODERN = ("n_kv_head", "head_dim", "n_inner", "rope_theta", "head")  # of the section model
SECTIONS = {section.name: get_type_hints(Recipe)[section.name] for section in fields(Recipe)}
LENGTHS = ("steps", "epochs", "minutes")


@cache
def field_types(section: str) -> dict[str, tuple[Any, str]]:
    """Return the type and the line of help of each field of a section, by the field's name."""
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    return {name: (get_args(hint)[0], get_args(hint)[1]) for name, hint in hints.items()}


def differences(old: Recipe, new: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """Find the fields in which two recipes differ, without those of `about`.

    Yields:
        `section.key`, the old value and the new one.
    """
    for section in SECTIONS:
        if section == "about":
            continue
        for key in field_types(section):
            before, after = getattr(getattr(old, section), key), getattr(getattr(new, section), key)
            if before != after:
                yield f"{section}.{key}", before, after
