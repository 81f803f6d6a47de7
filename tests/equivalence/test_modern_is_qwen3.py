"""The modern model is Qwen3: the same names, logits and gradients as transformers' own, on
perturbed weights.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3 import modeling_qwen3

from conftest import perturb
from groundup import Modern, ModernConfig
from groundup.errors import ConfigError
from groundup.models.modern import rotate
from groundup.recipes.schema import ModelSection, Recipe

SHAPES = [
    pytest.param(
        ModernConfig(24, 37, 2, 4, 4, 32, 8, 48, 10_000.0, tied=True), id="plain heads, tied"
    ),
    pytest.param(
        ModernConfig(24, 37, 2, 4, 2, 32, 16, 40, 1e6, tied=False), id="grouped heads, untied"
    ),
    pytest.param(
        ModernConfig(24, 37, 1, 6, 1, 24, 4, 64, 10_000.0, tied=True), id="one head of keys, tied"
    ),
]


def qwen3_config(config: ModernConfig) -> Qwen3Config:
    """The same shape in transformers' words."""
    return Qwen3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=config.n_inner,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_kv_head,
        head_dim=config.head_dim,
        max_position_embeddings=config.block_size,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tied,
        attention_bias=False,
        attn_implementation="sdpa",
    )


def pair(config: ModernConfig, dtype: torch.dtype) -> tuple[Modern, Qwen3ForCausalLM]:
    """Ours, perturbed, and transformers' with the same weights under the same names."""
    torch.manual_seed(0)
    ours = Modern(config).to(dtype)
    perturb(ours)
    theirs = Qwen3ForCausalLM(qwen3_config(config)).to(dtype).eval()
    theirs.load_state_dict(ours.state_dict())  # strict: every name and shape is theirs
    return ours, theirs


def assert_equal(ours: Modern, theirs: Qwen3ForCausalLM, tolerance: float) -> None:
    """Logits and every gradient agree, relative to the largest of each."""
    tokens = torch.randint(37, (3, 21), generator=torch.Generator().manual_seed(1))
    logits, loss = ours(tokens[:, :-1], tokens[:, 1:])
    their_logits = theirs(input_ids=tokens[:, :-1]).logits
    assert (logits - their_logits).abs().max() <= tolerance * their_logits.abs().max()
    loss.backward()
    F.cross_entropy(their_logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        difference = (parameter.grad - gradients[name]).abs().max()
        assert difference <= tolerance * gradients[name].abs().max(), name


@pytest.mark.parametrize("config", SHAPES)
def test_in_float32(config: ModernConfig) -> None:
    assert_equal(*pair(config, torch.float32), tolerance=1e-5)


@pytest.mark.parametrize("config", SHAPES)
def test_in_float64_where_their_norm_and_rotations_do_not_round(
    config: ModernConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_qwen3, "Qwen3RMSNorm", ExactNorm)
    monkeypatch.setattr(modeling_qwen3, "Qwen3RotaryEmbedding", ExactRotary)
    assert_equal(*pair(config, torch.float64), tolerance=1e-10)


class ExactNorm(nn.Module):
    """Qwen3RMSNorm by its formula, without the cast to float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * hidden / (hidden.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()


class ExactRotary(nn.Module):
    """Qwen3RotaryEmbedding by its formula, in the precision of the states."""

    def __init__(self, config: Qwen3Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.head_dim, self.theta = config.head_dim, config.rope_parameters["rope_theta"]

    def forward(self, states: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        inverse = [self.theta ** (-2 * pair / self.head_dim) for pair in range(self.head_dim // 2)]
        angles = position_ids[..., None].double() * torch.tensor(inverse, dtype=torch.float64)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(states), angles.sin().to(states)


def test_a_block_starts_as_nothing() -> None:
    model = Modern(ModernConfig(8, 11, 3, 2, 1, 8, 4, 16))
    tokens = torch.arange(6)[None]
    assert torch.equal(model.hidden(tokens), model.model.norm(model.model.embed_tokens(tokens)))


def test_only_the_distance_between_positions_matters() -> None:
    """What rotary positions promise: a text moved along gives the same attention, where it sees the
    same tokens.
    """
    model = Modern(ModernConfig(32, 11, 1, 2, 2, 8, 4, 16)).double()
    perturb(model)
    query, key = torch.randn(2, 1, 1, 1, 4, dtype=torch.float64).unbind()
    rotation = model.model.rotary(torch.arange(32)[None])
    turned_query, turned_key = (rotate(one.expand(1, 1, 32, 4), rotation) for one in (query, key))
    scores = turned_query[0, 0] @ turned_key[0, 0].mT
    for distance in (0, 1, 7):
        torch.testing.assert_close(
            scores.diagonal(-distance), scores[distance, 0].expand(32 - distance)
        )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_head": 4, "n_kv_head": 3}, "n_head = 4 is not divisible by n_kv_head = 3"),
        ({"head_dim": 5}, "head_dim = 5 is odd"),
        ({"n_inner": -1}, "n_inner = -1 is below 1"),
        ({"n_head": 5}, "n_embd = 768 is not divisible by n_head = 5"),
        ({"n_kv_head": False}, "n_kv_head = False isn't a whole number"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_name(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ModernConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "shape",
    [
        {"n_layer": 2, "n_head": 2, "n_embd": 64},
        {"n_layer": 1, "n_head": 4, "n_embd": 100, "head_dim": 16},
        {"n_layer": 12, "n_head": 12, "n_embd": 768},
    ],
)
def test_a_shape_in_python_is_filled_in_as_a_recipes_is(shape: dict[str, int]) -> None:
    section = ModelSection(architecture="modern", block_size=1024, **shape)
    assert ModernConfig(vocab_size=11, **shape) == Recipe(model=section).model_config(11)
    assert ModernConfig(n_head=2, n_embd=64) == ModernConfig(
        n_head=2, n_kv_head=2, n_embd=64, head_dim=32, n_inner=176
    )


def test_rotations_survive_a_detour_through_bfloat16_and_are_exact_in_float64() -> None:
    """The tables are computed anew for every dtype: angles rounded to bfloat16 would be off by up
    to 0.4%.
    """
    model = Modern(ModernConfig(64, 11, 1, 2, 2, 8, head_dim=4, n_inner=8))
    rotary, expected = model.model.rotary, model.model.rotary.cosine.clone()
    assert not torch.equal(model.bfloat16().model.rotary.cosine.float(), expected)
    assert torch.equal(model.float().model.rotary.cosine, expected)
    angles = torch.arange(64, dtype=torch.float64)[:, None] * torch.tensor(
        [1.0, 1e-2], dtype=torch.float64
    )
    torch.testing.assert_close(
        model.double().model.rotary.sine[:, :2], angles.sin(), rtol=0, atol=1e-15
    )
    assert rotary is model.model.rotary
