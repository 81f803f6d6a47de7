"""Adapters: nothing at first, all that learns then, and the same model once they are merged."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import perturb
from groundup.errors import MachineError
from groundup.generation.engine import Engine
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import stream_tokens
from groundup.generation.writer import Precision
from groundup.models.config import GPTConfig, ModelConfig, ModernConfig, adapter_parameter_count
from groundup.models.lora import LoRALinear, adapt, adaptable_layers, adapter_of, merge
from groundup.models.registry import Model, build, build_on_meta
from groundup.optim.groups import LORA_RULES, group_parameters
from groundup.training.objective import NextTokenLoss, compiled_parts

CONFIGS: dict[str, ModelConfig] = {
    "gpt2": GPTConfig(block_size=12, vocab_size=19, n_layer=2, n_head=2, n_embd=16),
    "modern": ModernConfig(
        12, 19, 2, n_head=4, n_kv_head=2, n_embd=16, head_dim=6, n_inner=20, tied=False
    ),
}
EXPECTED = {  # the linear layers of a block, as their families call them
    "gpt2": {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"},
    "modern": {f"self_attn.{name}_proj" for name in "qkvo"}
    | {f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
of_both = pytest.mark.parametrize("architecture", CONFIGS)


def built(architecture: str, dtype: torch.dtype = torch.float64) -> Model:
    """A model whose every tensor was moved."""
    torch.manual_seed(0)
    model = build(architecture, CONFIGS[architecture])
    perturb(model)
    return model.to(dtype).eval()


def adapted(model: Model, rank: int, alpha: float) -> Model:
    """The model again, with adapters that have learned something."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    adapt(model, rank, alpha)
    for number, (name, tensor) in enumerate(adapter_of(model).items()):
        if name.endswith("lora_B.weight"):
            tensor.normal_(generator=torch.Generator().manual_seed(number))
    return model


def tokens(time: int = 12) -> torch.Tensor:
    return torch.randint(19, (3, time), generator=torch.Generator().manual_seed(0))


@of_both
def test_every_linear_layer_of_the_blocks_is_adapted_and_nothing_else_trains(
    architecture: str,
) -> None:
    model, blocks = (
        built(architecture),
        "transformer.h" if architecture == "gpt2" else "model.layers",
    )
    expected = {f"{blocks}.{layer}.{name}" for layer in range(2) for name in EXPECTED[architecture]}
    assert adaptable_layers(model).keys() == expected
    adapt(model, 3, 16.0)
    assert {
        name for name, layer in model.named_modules() if isinstance(layer, LoRALinear)
    } == expected
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert (
        trained
        == {f"{name}.lora_{factor}.weight" for name in expected for factor in "AB"}
        == set(adapter_of(model))
    )
    ((_, members),) = group_parameters(model, LORA_RULES)
    assert members.keys() == trained
    assert sum(parameter.numel() for parameter in members.values()) == adapter_parameter_count(
        model.config, 3
    )
    _, loss = model(tokens(), tokens())
    assert loss is not None
    loss.backward()
    assert {
        name for name, parameter in model.named_parameters() if parameter.grad is not None
    } == trained


@of_both
def test_they_begin_as_nothing_with_a_first_factor_by_the_seed(architecture: str) -> None:
    model = built(architecture)
    begun, again, other = copy.deepcopy(model), copy.deepcopy(model), copy.deepcopy(model)
    for seed, with_adapters in ((0, begun), (0, again), (1, other)):
        torch.manual_seed(seed)
        adapt(with_adapters, 4, 16.0)
    assert torch.equal(begun(tokens())[0], model(tokens())[0])
    for name, tensor in adapter_of(begun).items():
        assert torch.equal(tensor, adapter_of(again)[name])
        if name.endswith("lora_A.weight"):
            assert not torch.equal(tensor, adapter_of(other)[name])
            # uniform in +-1/sqrt(in)
            assert 0.5 < tensor.abs().max() * tensor.size(1) ** 0.5 <= 1.0
        else:
            assert not tensor.any()


@of_both
@settings(max_examples=10)
@given(rank=st.integers(1, 8), alpha=st.floats(0.5, 64.0))
def test_merged_is_base_and_adapter(architecture: str, rank: int, alpha: float) -> None:
    model = built(architecture)
    with_adapters = adapted(model, rank, alpha)
    expected = with_adapters(tokens())[0]
    assert (expected - model(tokens())[0]).abs().max() > 1e-3
    merge(model, adapter_of(with_adapters), lambda _: alpha / rank)
    assert (model(tokens())[0] - expected).abs().max() < 1e-9


@of_both
def test_merged_in_float32_is_within_the_bound(architecture: str) -> None:
    model = built(architecture, torch.float32)
    with_adapters = adapted(model, 4, 2.0)
    expected = with_adapters(tokens())[0]
    merge(model, adapter_of(with_adapters), lambda _: 0.5)
    assert (model(tokens())[0] - expected).abs().max() < 1e-5


@of_both
def test_the_cache_knows_of_them(architecture: str) -> None:
    model = adapted(built(architecture), 4, 16.0)
    greedy = SamplingSettings(length=8, temperature=0.0)
    cached = list(stream_tokens(model, torch.tensor([[3, 1, 4]]), greedy))
    assert cached == model.generate(torch.tensor([[3, 1, 4]]), 8, temperature=0.0)[0, 3:].tolist()


@of_both
def test_an_engine_writes_with_them_by_torch(architecture: str) -> None:
    model = adapted(built(architecture, torch.float32), 4, 16.0)
    engine = Engine(model, slots=1)
    assert engine.writer.kernels is None
    written = list(engine.submit([3, 1, 4], SamplingSettings(length=8, temperature=0.0)))
    expected = model.generate(torch.tensor([[3, 1, 4]]), 8, temperature=0.0)[0, 3:].tolist()
    assert [each.token for each in written] == expected
    with pytest.raises(MachineError, match="a model of float32 on cpu, with adapters"):
        Engine(model, precision=Precision(compile="on"))


@of_both
def test_a_block_with_them_is_one_graph(architecture: str) -> None:
    """What torch.compile traces, without what it makes of that: the same loss and gradients, block
    by block.
    """
    models = [adapted(built(architecture), 4, 16.0) for _ in range(2)]
    for block in compiled_parts(models[1]):
        block.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    gradients = []
    for model in models:
        NextTokenLoss(model, "float64")(tokens(), tokens()).backward()
        gradients.append(
            {
                name: tensor.grad
                for name, tensor in model.named_parameters()
                if tensor.grad is not None
            }
        )
    assert gradients[0].keys() == gradients[1].keys() == adapter_of(models[0]).keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("architecture", "config", "parameters", "adapters"),
    [
        ("gpt2", GPTConfig(), 124_439_808, 8 * 12 * 16 * 768),
        (
            "modern",
            ModernConfig(40_960, 151_936, 28, 16, 8, 1024, 128, 3072, 1e6),
            596_049_920,
            8 * 28 * 22_528,
        ),
    ],
    ids=["gpt2", "Qwen3-0.6B"],
)
def test_under_two_percent_of_published_models_train_at_rank_8(
    architecture: str, config: ModelConfig, parameters: int, adapters: int
) -> None:
    model = build_on_meta(architecture, config)
    adapt(model, 8, 16.0)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == adapters == adapter_parameter_count(config, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters + adapters
    assert trained / (parameters + adapters) < 0.02
