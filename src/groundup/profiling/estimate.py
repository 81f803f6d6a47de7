"""What a recipe would need on GPUs that aren't here, calculated with every assumption shown."""

from dataclasses import dataclass

from groundup.errors import RecipeError
from groundup.models.config import ModelConfig, adapter_parameter_count, largest_divisor
from groundup.profiling.operations import operations_per_token
from groundup.profiling.writing import HEADROOM
from groundup.recipes.schema import Recipe

MFU = 0.4  # what a compiled bfloat16 GPT of this class reaches on one GPU, cautiously
# a layer, token and unit of width, without recomputation (Korthikanti et al. 2022, equation 2)
ACTIVATION_BYTES = 34


@dataclass(frozen=True)
class Gpu:
    """A GPU by its maker's data sheet.

    Attributes:
        operations: The number of operations a second in dense bfloat16.
        memory: The memory in bytes.
    """

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
    """The time and memory that training by a recipe would need. Bytes are those of one GPU.

    Attributes:
        gpu: The name of the GPU.
        gpus: The number of GPUs.
        parameters: The number of parameters of the model, without adapters.
        operations_per_token: The number of floating-point operations that a token needs.
        tokens: The number of tokens of all steps.
        seconds: The time of all steps; None for a recipe whose length isn't in steps.
        fixed_memory: The bytes of weights, gradients and optimizer states.
        memory_each: The bytes that every sequence of a forward pass adds.
        micro_batch_size: The number of sequences of a forward pass.
        peak_memory: The largest number of bytes in use at once.
        largest_micro_batch: The largest micro-batch that fits, 0 if not even one sequence does.
        assumptions: The assumptions of the estimate, in sentences.
    """

    gpu: str
    gpus: int
    parameters: int
    operations_per_token: float
    tokens: int
    seconds: float | None
    fixed_memory: int
    memory_each: int
    micro_batch_size: int
    peak_memory: int
    largest_micro_batch: int
    assumptions: list[str]


def estimate(recipe: Recipe, vocab_size: int, gpu: str, gpus: int) -> Estimate:
    """Estimate the time and memory that training by a recipe needs on GPUs that aren't here.

    The time follows from the number of operations and the GPUs' peak, and the memory from what a
    training step must hold.

    Args:
        recipe: The recipe.
        vocab_size: The size of the vocabulary; 0 takes what the recipe expects of its corpus.
        gpu: A key of `GPUS`, in small or capital letters.
        gpus: The number of GPUs.

    Raises:
        RecipeError: The GPU or the vocabulary isn't known, or the GPUs can't share the batch.
    """
    gpu, vocab_size = gpu.lower(), vocab_size or recipe.about.vocab_size
    check(recipe, vocab_size, gpu, gpus)
    config, rank = recipe.model_config(vocab_size), recipe.lora.rank
    parameters = recipe.parameter_count(vocab_size)
    operations = operations_per_token(recipe.model.architecture, config, rank)
    adapters = adapter_parameter_count(config, rank) if rank else 0
    share = recipe.train.batch_size // gpus
    rows = recipe.train.micro_batch_size or share
    fixed = 4 * (parameters + adapters) + (4 + 8) * (adapters or parameters)
    each = activation_bytes(config, recipe)
    tokens = recipe.train.steps * recipe.tokens_per_step
    return Estimate(
        gpu=gpu,
        gpus=gpus,
        parameters=parameters,
        operations_per_token=operations,
        tokens=tokens,
        seconds=operations * tokens / (MFU * GPUS[gpu].operations * gpus) if tokens else None,
        fixed_memory=fixed,
        memory_each=each,
        micro_batch_size=rows,
        peak_memory=fixed + rows * each,
        largest_micro_batch=largest_divisor(share, (HEADROOM * GPUS[gpu].memory - fixed) / each),
        assumptions=assumptions_of(gpu, gpus, adapters),
    )


def check(recipe: Recipe, vocab_size: int, gpu: str, gpus: int) -> None:
    """Check that the GPU and the vocabulary are known, and that the GPUs can share the batch.

    Raises:
        RecipeError: The GPU or the vocabulary isn't known, or the GPUs can't share the batch.
    """
    if gpu not in GPUS:
        raise RecipeError(f"--gpu {gpu} isn't in the table. Known: {', '.join(GPUS)}.")
    if gpus < 1:
        raise RecipeError(f"--gpus {gpus} is below 1.")
    if vocab_size < 1:
        raise RecipeError(
            "the recipe doesn't state its vocabulary: give --vocab-size (GPT-2's tokens: 50257)"
        )
    batch, rows = recipe.train.batch_size, recipe.train.micro_batch_size
    if batch % (gpus * (rows or 1)):
        micro = f" x micro_batch_size = {rows}" if rows else ""
        raise RecipeError(f"train.batch_size = {batch} can't be divided by {gpus} GPUs{micro}.")


def assumptions_of(gpu: str, gpus: int, adapters: int) -> list[str]:
    """State the assumptions of an estimate, in sentences.

    Args:
        gpu: A key of `GPUS`.
        gpus: The number of GPUs.
        adapters: The number of parameters of adapters, 0 where the whole model trains.
    """
    alone = f"; gradients and states of {adapters:,} parameters of adapters alone"
    return [
        f"{gpu}: {GPUS[gpu].operations / 1e12:,.0f} trillion dense bfloat16 operations a "
        f"second and {GPUS[gpu].memory / 1e9:,.0f} GB, by its data sheet",
        f"{MFU:.0%} of that peak is reached, on {gpus} as on one (gradients travel while "
        "others are computed)",
        "bfloat16 products; weights, gradients and AdamW's two states in float32 on every GPU "
        f"(Muon has one: less){alone if adapters else ''}",
        f"{ACTIVATION_BYTES} bytes of activations a layer, token and unit of width; logits in "
        "chunks",
        f"{1 - HEADROOM:.0%} of the memory stays free; evaluations and start-up aren't counted",
    ]


def activation_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """Compute the bytes that the backward pass of one sequence needs from its forward pass."""
    layers = 0 if recipe.model.architecture == "bigram" else config.n_layer
    return ACTIVATION_BYTES * config.block_size * config.n_embd * (layers + 1)
