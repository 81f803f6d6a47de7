"""What a token needs and what the machine does in a second: operations, and bytes that it reads."""

import time

import torch

from groundup.machine.kinds import kind_of
from groundup.machine.timing import timed
from groundup.models.config import (
    GPTConfig,
    ModelConfig,
    ModernConfig,
    adapted_matrices,
    adapter_parameter_count,
    parameter_count,
)

PEAK_SIZE, PEAK_REPEATS = 2048, 9
NARROWEST, SLOW_PRODUCT = 128, 0.03  # columns; seconds
GPU_PEAK_SIZE, GPU_PEAK_PRODUCTS = 8192, 20  # so long that starting them doesn't count
READ_BYTES = {True: 2**30, False: 2**28}  # on a GPU, on a CPU: more than their caches hold


def operations_per_token(architecture: str, config: ModelConfig, lora_rank: int = 0) -> float:
    """Count the floating-point operations that a token needs, forward and backward.

    Their number is 6 N + 12 n_layer width block_size (Chowdhery et al. 2022, appendix B). N are the
    parameters in matrix products: all but norms, biases and the tables that are only looked up; a
    tied table counts once, as the head. The width is that of all heads together. For the bigram
    only the product with its head counts. With LoRA adapters (Hu et al. 2021) the adapters'
    parameters take 6 operations each, and the frozen ones 4, because their gradients aren't
    computed; nor is the gradient of the first block's input.

    Args:
        architecture: The name of the architecture.
        config: The shape of the model.
        lora_rank: The rank of adapters; 0 trains the whole model.
    """
    if architecture == "bigram":
        return 6.0 * config.vocab_size**2
    width = config.n_head * config.head_dim if isinstance(config, ModernConfig) else config.n_embd
    products = product_parameters(architecture, config)
    attention = 12.0 * config.n_layer * width * config.block_size
    if not lora_rank:
        return 6.0 * products + attention
    # queries, keys and values
    first = adapted_matrices(config)[: 3 if isinstance(config, ModernConfig) else 1]
    spared = sum(inputs * (outputs + lora_rank) for inputs, outputs in first)
    adapters = adapter_parameter_count(config, lora_rank)
    return 4.0 * products + 6.0 * adapters + attention - 2.0 * spared


def product_parameters(architecture: str, config: ModelConfig) -> int:
    """Count the parameters of a model that take part in matrix products."""
    everything, width = parameter_count(architecture, config), config.n_embd
    if isinstance(config, GPTConfig):
        vectors = config.n_layer * 13 * width + 2 * width
        return everything - vectors - config.block_size * width
    vectors = config.n_layer * 2 * (width + config.head_dim) + width
    return everything - vectors - (0 if config.tied else config.vocab_size * width)


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Measure how many floating-point operations a second a device does in matrix products.

    The matrices are square, 2048 wide on a CPU and 8192 on a GPU. A processor without units for a
    dtype would need minutes for those: it gets narrower ones. After one measurement to warm up, the
    fastest of several counts.
    """
    size, products = (PEAK_SIZE, 1) if device.type == "cpu" else (GPU_PEAK_SIZE, GPU_PEAK_PRODUCTS)
    if device.type == "cpu":
        while size > NARROWEST and _product(dtype, device, size // 4, 1) > SLOW_PRODUCT:
            size //= 4
    times = [_product(dtype, device, size, products) for _ in range(PEAK_REPEATS + 1)]
    return 2.0 * size**3 * products / min(times[1:])


def _product(dtype: torch.dtype, device: torch.device, size: int, products: int) -> float:
    """Measure the seconds of some products of square matrices."""
    square = torch.rand(size, size, device=device).to(dtype)
    product = torch.empty_like(square)
    started = time.perf_counter()
    for _ in range(products):
        torch.mm(square, square, out=product)
    product[0, 0].item()  # waits for a GPU
    return time.perf_counter() - started


def read_bandwidth(device: torch.device) -> float:
    """Measure how many bytes a second a device reads, by summing a large tensor.

    After one measurement to warm up, the fastest of several counts.
    """
    numbers = torch.ones(READ_BYTES[kind_of(device).is_gpu] // 4, device=device)
    seconds = [timed(numbers.sum, device) for _ in range(PEAK_REPEATS + 1)]
    return numbers.nbytes / min(seconds[1:])
