"""What a recipe would need on GPUs that aren't here: on paper, with every assumption shown."""

from dataclasses import dataclass

from rich.table import Table

from groundup.console import show
from groundup.errors import RecipeError
from groundup.models.config import ModelConfig, adapter_parameter_count, parameter_count
from groundup.profiling.operations import operations_per_token
from groundup.profiling.plan import in_mib, in_words
from groundup.recipes.schema import Recipe

MFU = 0.4  # what a compiled bfloat16 GPT of this class reaches on one GPU, cautiously
# a layer, token and unit of width, without recomputation (Korthikanti et al. 2022, equation 2)
ACTIVATION_BYTES = 34
HEADROOM = 0.9


@dataclass(frozen=True)
class Gpu:
    """Operations a second in dense bfloat16, and bytes of memory, from the maker's data sheet."""

    operations: float
    memory: float


GPUS = {
    "b200": Gpu(2250e12, 180e9),
    "h200": Gpu(989e12, 141e9),
    "h100": Gpu(989e12, 80e9),
    "a100": Gpu(312e12, 80e9),
    "l40s": Gpu(362e12, 48e9),
    "rtx4090": Gpu(165e12, 24e9),
    "rtx3090": Gpu(71e12, 24e9),
}


@dataclass(frozen=True)
class Estimate:
    """On paper. Bytes are a GPU's."""

    gpu: str
    gpus: int
    parameters: int
    operations_per_token: float
    tokens: int
    seconds: float | None  # None for a recipe whose length isn't in steps
    fixed_memory: int
    memory_each: int  # a sequence of a forward pass
    micro_batch_size: int
    peak_memory: int
    largest_micro_batch: int
    assumptions: list[str]


def print_estimate(recipe: Recipe, vocab_size: int, gpu: str, gpus: int, as_json: bool) -> None:
    """A table, or one JSON object. Raises RecipeError."""
    result = estimate(recipe, vocab_size or recipe.about.vocab_size, gpu, gpus)
    show(result, table_of(result), as_json)


def estimate(recipe: Recipe, vocab_size: int, gpu: str, gpus: int) -> Estimate:
    """Operations over the GPUs' peak, and bytes by the dtypes of weights, gradients and states.
    Raises RecipeError.
    """
    gpu = gpu.lower()
    if gpu not in GPUS:
        raise RecipeError(f"--gpu {gpu} isn't in the table. Known: {', '.join(GPUS)}.")
    if gpus < 1:
        raise RecipeError(f"--gpus {gpus} is below 1.")
    if vocab_size < 1:
        raise RecipeError(
            "the recipe doesn't state its vocabulary: give --vocab-size (GPT-2's tokens: 50257)"
        )
    if recipe.train.batch_size % (gpus * (recipe.train.micro_batch_size or 1)):
        micro = (
            f" x micro_batch_size = {recipe.train.micro_batch_size}"
            if recipe.train.micro_batch_size
            else ""
        )
        raise RecipeError(
            f"train.batch_size = {recipe.train.batch_size} can't be divided by {gpus} GPUs{micro}."
        )
    config = recipe.model_config(vocab_size)
    parameters = parameter_count(recipe.model.architecture, config)
    operations = operations_per_token(recipe.model.architecture, config, recipe.lora.rank)
    adapters = adapter_parameter_count(config, recipe.lora.rank) if recipe.lora.rank else 0
    share = recipe.train.batch_size // gpus
    rows = recipe.train.micro_batch_size or share
    fixed, each = (
        4 * (parameters + adapters) + (4 + 8) * (adapters or parameters),
        activation_bytes(config, recipe),
    )
    fitting = (HEADROOM * GPUS[gpu].memory - fixed) / each
    tokens = recipe.train.steps * recipe.tokens_per_step
    seconds = operations * tokens / (MFU * GPUS[gpu].operations * gpus) if tokens else None
    return Estimate(
        gpu=gpu,
        gpus=gpus,
        parameters=parameters,
        operations_per_token=operations,
        tokens=tokens,
        seconds=seconds,
        fixed_memory=fixed,
        memory_each=each,
        micro_batch_size=rows,
        peak_memory=fixed + rows * each,
        largest_micro_batch=max(
            (n for n in range(1, share + 1) if share % n == 0 and n <= fitting), default=0
        ),
        assumptions=[
            f"{gpu}: {GPUS[gpu].operations / 1e12:,.0f} trillion dense bfloat16 operations a "
            f"second and {GPUS[gpu].memory / 1e9:,.0f} GB, by its data sheet",
            f"{MFU:.0%} of that peak is reached, on {gpus} as on one (gradients travel while "
            "others are computed)",
            "bfloat16 products; weights, gradients and AdamW's two states in float32 on every GPU "
            "(Muon has one: less)"
            + (
                f"; gradients and states of {adapters:,} parameters of adapters alone"
                if adapters
                else ""
            ),
            f"{ACTIVATION_BYTES} bytes of activations a layer, token and unit of width; logits in "
            "chunks",
            f"{1 - HEADROOM:.0%} of the memory stays free; evaluations and start-up aren't counted",
        ],
    )


def activation_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """Of one sequence: what the backward pass needs from the forward pass."""
    layers = 0 if recipe.model.architecture == "bigram" else config.n_layer
    return ACTIVATION_BYTES * config.block_size * config.n_embd * (layers + 1)


def table_of(result: Estimate) -> Table:
    """The estimate and its assumptions as a table."""
    title = f"on paper: {result.gpus} x {result.gpu}, {result.parameters:,} parameters"
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_row("operations a token", f"{result.operations_per_token:,.0f}")
    table.add_row(
        "memory of a GPU",
        f"{in_mib(result.peak_memory)} with {result.micro_batch_size} sequences at once",
    )
    table.add_row("  of it fixed", in_mib(result.fixed_memory))
    table.add_row("  a sequence", in_mib(result.memory_each))
    table.add_row(
        "largest micro-batch",
        f"{result.largest_micro_batch}" if result.largest_micro_batch else "none fits",
    )
    if result.seconds is not None:
        table.add_row("time", f"{in_words(result.seconds)} for {result.tokens:,} tokens")
    else:
        table.add_row("time", "the recipe's length isn't in steps: give --steps")
    for number, assumption in enumerate(result.assumptions, 1):
        table.add_row(f"assumption {number}", assumption)
    return table
