"""Claim: inside a bfloat16 model on a CPU, short attention is faster as batched products than by
the fused kernel.

    python benchmarks/cpu_attention.py [--repeat 15]

Forward and backward, compiled and not, at several lengths: our two bfloat16 products with a float32
softmax against `F.scaled_dot_product_attention` in float32, which is the faster of its precisions
there.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from common import conclude
from groundup.machine.device import keep_freed_memory
from groundup.models.attention import attention_by_products

SHAPES = (
    (12, 4, 64, 32),
    (64, 4, 64, 32),
    (16, 4, 128, 48),
    (16, 6, 256, 64),
    (32, 4, 256, 32),
    (4, 6, 512, 64),
    (2, 6, 1024, 64),
)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Ours."""
    return attention_by_products(query, key, value, dropout=0.0)


def by_kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The fused kernel in float32."""
    return F.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), is_causal=True
    ).to(value.dtype)


def milliseconds(attend: Attention, shape: tuple[int, ...], repeat: int) -> float:
    """The median of a forward and backward pass."""
    batch, heads, length, head_dim = shape
    made = [torch.randn(batch, length, heads, head_dim, dtype=torch.bfloat16) for _ in range(3)]
    # as a model's projections leave them
    inputs = [tensor.transpose(1, 2).requires_grad_() for tensor in made]
    times = []
    for _ in range(repeat + 3):
        started = time.perf_counter()
        attend(*inputs).sum().backward()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[3:])


def main(words: list[str] | None = None) -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=15)
    given = parser.parse_args(words)
    keep_freed_memory()  # as training does
    print(
        "| batch, heads, time, head_dim | products | kernel | products, compiled | kernel, "
        "compiled |"
    )
    print("|---|---|---|---|---|")
    measured = {}
    for shape in SHAPES:
        plain: tuple[Attention, Attention] = (by_products, by_kernel)
        compiled = [torch.compile(attend, dynamic=False) for attend in plain]
        times = [milliseconds(attend, shape, given.repeat) for attend in (*plain, *compiled)]
        measured[shape] = times
        print(
            f"| {', '.join(map(str, shape))} | {' | '.join(f'{value:.2f} ms' for value in times)} "
            "|",
            flush=True,
        )
    ours, peer = measured[16, 6, 256, 64][2:]
    claim = (
        "compiled attention over 256 characters in a bfloat16 model is faster by products than by "
        "the kernel"
    )
    conclude(claim, ours=ours, peer=peer, ratio=peer / ours, unit="milliseconds")


if __name__ == "__main__":
    main()
