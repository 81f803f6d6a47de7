"""Floating-point operations: how many a token needs, and how many the machine does in a second."""

import time

import torch

from groundup.config import GPTConfig, ModelConfig, ModernConfig, parameter_count

PEAK_SIZE, PEAK_REPEATS = 2048, 9
GPU_PEAK_SIZE, GPU_PEAK_PRODUCTS = 8192, 20  # so long that starting them doesn't count


def operations_per_token(architecture: str, config: ModelConfig) -> float:
    """Of forward and backward: 6 N + 12 n_layer width block_size (Chowdhery et al. 2022, appendix B).

    N: parameters in matrix products: all but norms, biases and the tables that are only looked up; a tied table counts
    once, as the head. width: of all heads together. The bigram has the one product of its head.
    """
    if architecture == "bigram":
        return 6.0 * config.vocab_size**2
    width = config.n_head * config.head_dim if isinstance(config, ModernConfig) else config.n_embd
    return 6.0 * product_parameters(architecture, config) + 12.0 * config.n_layer * width * config.block_size


def product_parameters(architecture: str, config: ModelConfig) -> int:
    """N of the formula above."""
    everything, width = parameter_count(architecture, config), config.n_embd
    if isinstance(config, GPTConfig):
        vectors = config.n_layer * 13 * width + 2 * width
        return everything - vectors - config.block_size * width
    vectors = config.n_layer * 2 * (width + config.head_dim) + width
    return everything - vectors - (0 if config.tied else config.vocab_size * width)


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second in square products, of 2048 (on a GPU 8192): the fastest of several, after one to warm up."""
    size, products = (PEAK_SIZE, 1) if device.type == "cpu" else (GPU_PEAK_SIZE, GPU_PEAK_PRODUCTS)
    square = torch.rand(size, size, device=device).to(dtype)
    seconds = []
    for _ in range(PEAK_REPEATS + 1):
        started = time.perf_counter()
        last = [square @ square for _ in range(products)][-1]
        last[0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 * products / min(seconds[1:])
