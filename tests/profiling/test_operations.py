"""The formula counts what torch counts, and memory is what the machine says."""

from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from groundup.machine import memory
from groundup.models import attention, cache
from groundup.models.bigram import Bigram
from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.gpt2 import GPT2
from groundup.models.lora import adapt
from groundup.models.modern import Modern
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model
from groundup.profiling.operations import matmul_peak, operations_per_token

CPU = torch.device("cpu")


def counted(model: Model, rows: int = 3) -> float:
    """Operations a token of forward and backward, as torch's counter sees every product."""
    tokens = torch.randint(0, model.config.vocab_size, (rows, model.block_size))
    with FlopCounterMode(display=False) as counter:
        _, loss = model(tokens, tokens)
        assert loss is not None
        loss.backward()
    return counter.get_total_flops() / tokens.numel()


@settings(max_examples=15)
@given(
    n_layer=st.integers(1, 3),
    n_head=st.integers(1, 4),
    head_dim=st.integers(1, 8),
    block_size=st.integers(1, 20),
)
def test_a_gpt_needs_what_torch_counts(
    n_layer: int, n_head: int, head_dim: int, block_size: int
) -> None:
    config = GPTConfig(block_size, 17, n_layer, n_head, n_head * head_dim)
    assert operations_per_token("gpt2", config) == operations_per_token("readable", config)
    assert counted(ReadableGPT(config)) == operations_per_token("readable", config)


@pytest.mark.parametrize("tied", [True, False])
def test_a_modern_model_needs_what_torch_counts(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # all products
    monkeypatch.setattr(cache, "causal_attention", attention.attention_by_products)
    config = ModernConfig(16, 17, 2, 4, 2, 24, head_dim=8, n_inner=40, tied=tied)
    assert counted(Modern(config)) == operations_per_token("modern", config)


@settings(max_examples=10)
@given(
    n_layer=st.integers(1, 3),
    n_head=st.integers(1, 3),
    head_dim=st.sampled_from([2, 4]),
    rank=st.integers(1, 4),
)
def test_adapters_need_what_torch_counts(
    n_layer: int, n_head: int, head_dim: int, rank: int
) -> None:
    """No gradient of a frozen matrix is computed, nor any below the first one that learns."""
    classic = GPTConfig(16, 17, n_layer, n_head, n_head * head_dim)
    grouped = ModernConfig(16, 17, n_layer, 2 * n_head, n_head, 24, head_dim, n_inner=40)
    for name, model in (("gpt2", GPT2(classic)), ("modern", Modern(grouped))):
        adapt(model, rank, alpha=16.0)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cache, "causal_attention", attention.attention_by_products)
            assert counted(model) == operations_per_token(name, model.config, rank)


def test_a_bigram_is_one_product_but_for_the_gradient_of_one_hot_vectors() -> None:
    config = GPTConfig(block_size=8, vocab_size=11)
    assert operations_per_token("bigram", config) == 6 * 11 * 11
    assert counted(Bigram(config)) <= operations_per_token("bigram", config)


def test_the_peak_is_a_speed() -> None:
    assert matmul_peak(torch.float32, CPU) > 1e8


class LiveProducts(TorchDispatchMode):
    """Counts the matrix products that are kept at once, and gives a 0 for any number asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: WeakValueDictionary[int, torch.Tensor] = WeakValueDictionary()
        self.products = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.0
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.mm:
            self.kept[id(result)] = result
            self.products, self.most = self.products + 1, max(self.most, len(self.kept))
        return result


def test_the_peak_keeps_one_product() -> None:
    """A product of 8192 x 8192 is 134 MB or more. On `meta` nothing is computed."""
    with LiveProducts() as live:
        matmul_peak(torch.float32, torch.device("meta"))
    assert live.products >= 20
    assert live.most == 1


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the kernel doesn't say")
def test_the_peak_of_memory_is_the_processes_and_can_be_forgotten() -> None:
    memory.forget_peak(CPU)
    before = memory.peak(CPU)
    block = torch.ones(50_000_000)  # 200 MB
    assert memory.peak(CPU) - before >= 190e6
    del block
    assert memory.peak(CPU) - before >= 190e6
    memory.forget_peak(CPU)
    assert memory.peak(CPU) - before < 100e6
    assert memory.available(CPU) > 0
