"""One token's way: every stage is what the model's own modules compute, beside its own lines."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import groundup
from groundup import Engine, ModernConfig, Precision, SamplingSettings
from groundup.inspection.learned import in_words, learned_numbers
from groundup.inspection.reading import Inspection
from groundup.inspection.stages import Place, Stage, code
from groundup.inspection.way import stages_of
from groundup.models import readable
from groundup.models.modern import Modern
from inspection.test_reading import ARCHITECTURES, CONFIG, TOKENS, made, readable_of

SOURCE = Path(groundup.__file__).parent
ONE = SamplingSettings(temperature=1.0)


def way(inspection: Inspection, position: int, layer: int, head: int) -> dict[str, Stage]:
    stages = stages_of(Place(inspection, position, layer, head), b"x", ONE)
    found = {stage.name: stage for stage in stages}
    assert len(found) == len(stages)
    return found


def numbers(stage: Stage, which: int = 0) -> Tensor:
    return stage.values[which].numbers


def recorded(
    model: readable.ReadableGPT, position: int, layer: int, head: int
) -> dict[str, Tensor]:
    """What the readable model's own modules give at one position, by the names of the stages."""
    block, found = model.blocks[layer], dict[str, Tensor]()
    looked = block.attention.heads[head]
    outputs = {
        "embedding": model.token_embedding,
        "attention_norm": block.attention_norm,
        "query": looked.query,
        "key": looked.key,
        "value": looked.value,
        "weighted_sum": looked,
        "projection": block.attention.projection,
        "mlp_norm": block.mlp_norm,
        "expand": block.mlp.expand,
        "gelu": block.mlp.gelu,
        "contract": block.mlp.contract,
        "residual_out": block,
        "final_norm": model.norm,
        "logits": model.head,
    }
    inputs = {
        "residual_in": block,
        "residual_mid": block.mlp_norm,
        "concatenate": block.attention.projection,
        "stream": model.blocks[0],
    }
    for name, module in outputs.items():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: found.update({name: output[0, position]})
        )
    for name, module in inputs.items():
        module.register_forward_pre_hook(
            lambda _module, given, name=name: found.update({name: given[0][0, position]})
        )
    whole = dict[str, Tensor]()
    looked.query.register_forward_hook(lambda *each: whole.update(query=each[2][0]))
    looked.key.register_forward_hook(lambda *each: whole.update(key=each[2][0]))
    with torch.no_grad():
        model(torch.tensor([TOKENS]))
    scores = (whole["query"] @ whole["key"].mT / math.sqrt(6))[position, : position + 1]
    found |= {"scores": scores, "softmax": scores.softmax(dim=-1)}
    found["position"] = model.position_embedding.weight[position].detach()
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("position", "layer", "head"), [(0, 0, 0), (17, 1, 4), (39, 2, 5)])
def test_every_stage_of_a_gpt2_is_the_readable_models(
    packed: bool, position: int, layer: int, head: int
) -> None:
    model = made("gpt2")
    read = Engine(model, precision=Precision(compile="on"), slots=1) if packed else model
    found = way(groundup.inspect(read, TOKENS), position, layer, head)
    expected = recorded(readable_of(model), position, layer, head)
    expected["mask"] = (torch.arange(40) <= position).float()
    logits = expected.pop("logits")
    assert set(expected) == set(found) - {"token", "logits", "distribution", "draw"}
    for name, values in expected.items():
        torch.testing.assert_close(numbers(found[name]), values, atol=1e-5, rtol=1e-5, msg=name)
    best = list(found["logits"].values[0].tokens)
    assert best == logits.topk(20).indices.tolist()
    torch.testing.assert_close(numbers(found["logits"]).float(), logits[best], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        numbers(found["distribution"]).float(), logits.softmax(dim=-1)[best], atol=1e-5, rtol=1e-4
    )


def by_hand(model: Modern, position: int, layer: int, head: int) -> dict[str, Tensor]:
    """The stages of a Qwen3 written out once more, in float64 and from its formulas alone."""
    weights = {name: value.double() for name, value in model.state_dict().items()}
    config, time = model.config, position + 1

    def norm(x: Tensor, name: str) -> Tensor:
        return weights[name] * x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()

    def rotated(x: Tensor) -> Tensor:
        half = config.head_dim // 2
        angles = torch.arange(time).double()[:, None] / config.rope_theta ** (
            torch.arange(half).double() / half
        )
        first, second = x[:, :half], x[:, half:]
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    stream, found = weights["model.embed_tokens.weight"][TOKENS[:time]], dict[str, Tensor]()
    found["embedding"] = found["stream"] = stream[-1]
    for number in range(config.n_layer):
        at = f"model.layers.{number}."
        own: dict[str, Tensor] = {"residual_in": stream[-1]}
        normed = norm(stream, at + "input_layernorm.weight")
        own["attention_norm"] = normed[-1]
        outputs = []
        for each in range(config.n_head):
            shared = each // (config.n_head // config.n_kv_head)
            rows = slice(each * config.head_dim, (each + 1) * config.head_dim)
            shared_rows = slice(shared * config.head_dim, (shared + 1) * config.head_dim)
            query = normed @ weights[at + "self_attn.q_proj.weight"][rows].T
            key = normed @ weights[at + "self_attn.k_proj.weight"][shared_rows].T
            value = normed @ weights[at + "self_attn.v_proj.weight"][shared_rows].T
            named = {"query": query, "key": key, "value": value}
            named["query_norm"] = norm(query, at + "self_attn.q_norm.weight")
            named["key_norm"] = norm(key, at + "self_attn.k_norm.weight")
            turned, key = rotated(named["query_norm"]), rotated(named["key_norm"])
            named["rotary"] = turned
            scores = turned @ key.T / math.sqrt(config.head_dim)
            future = torch.ones(time, time, dtype=torch.bool).triu(1)
            shares = scores.masked_fill(future, -math.inf).softmax(dim=-1)
            named |= {"scores": scores, "softmax": shares, "weighted_sum": shares @ value}
            outputs.append(shares @ value)
            if each == head:
                own |= {name: value[-1] for name, value in named.items()}
        together = torch.cat(outputs, dim=-1)
        projected = together @ weights[at + "self_attn.o_proj.weight"].T
        stream = stream + projected
        own |= {"concatenate": together[-1], "projection": projected[-1]}
        own["residual_mid"] = stream[-1]
        normed = norm(stream, at + "post_attention_layernorm.weight")
        gate = normed @ weights[at + "mlp.gate_proj.weight"].T
        up = normed @ weights[at + "mlp.up_proj.weight"].T
        active = gate / (1 + (-gate).exp()) * up
        down = active @ weights[at + "mlp.down_proj.weight"].T
        stream = stream + down
        own |= {"mlp_norm": normed[-1], "gate": gate[-1], "up": up[-1], "swiglu": active[-1]}
        own |= {"down": down[-1], "residual_out": stream[-1]}
        if number == layer:
            found |= own
    found["final_norm"] = norm(stream, "model.norm.weight")[-1]
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("position", "layer", "head"), [(0, 0, 0), (17, 1, 4), (39, 2, 5)])
def test_every_stage_of_a_modern_is_that_of_its_formulas(
    packed: bool, position: int, layer: int, head: int
) -> None:
    torch.manual_seed(0)
    model = Modern(ModernConfig(40, 31, 3, 6, 2, 36, 8)).eval()
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.2)
    read = Engine(model, precision=Precision(compile="on"), slots=1) if packed else model
    found = way(groundup.inspect(read, TOKENS), position, layer, head)
    expected = by_hand(model, position, layer, head)
    assert set(expected) == set(found) - {"token", "mask", "logits", "distribution", "draw"}
    for name, values in expected.items():
        torch.testing.assert_close(
            numbers(found[name]).double(), values, atol=1e-5, rtol=1e-5, msg=name
        )
    key = numbers(found["rotary"], 1)
    assert key.norm().item() == pytest.approx(numbers(found["key_norm"]).norm().item(), rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_lines_beside_a_stage_are_in_the_source(architecture: str) -> None:
    inspection = groundup.inspect(made(architecture), TOKENS)
    for name, stage in way(inspection, 20, 0, 0).items():
        assert bool(stage.code) == (name != "token"), name
        for lines in stage.code:
            text = (SOURCE / lines.file).read_text("utf-8").splitlines()
            assert tuple(text[lines.first - 1 :][: len(lines.lines)]) == lines.lines
            assert lines.lines


def test_a_line_that_has_gone_is_an_error() -> None:
    with pytest.raises(AssertionError, match="0 statements"):
        code(readable.Head.forward, "no such line")
    with pytest.raises(AssertionError, match="2 statements"):
        code(readable.Head.forward, "scores = ")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sentences_are_whole_and_shapes_stated(architecture: str) -> None:
    for stage in way(groundup.inspect(made(architecture), TOKENS), 20, 0, 0).values():
        assert stage.sentence.endswith(".")
        assert stage.sentence[0].isupper()
        assert stage.formula
        assert stage.scope in ("model", "block", "head")
        for values in stage.values:
            finite = torch.as_tensor(values.numbers).double().isfinite()
            assert finite.all(), stage.name


@pytest.mark.parametrize(
    "chosen",
    [
        SamplingSettings(length=12, temperature=1.0, seed=3),
        SamplingSettings(length=12, temperature=1.5, top_k=9, seed=4),
        SamplingSettings(length=12, temperature=0.8, top_p=0.8, min_p=0.05, seed=5),
        SamplingSettings(length=12, temperature=0.0),
    ],
)
def test_the_draw_is_the_engines(chosen: SamplingSettings) -> None:
    """The token at the end of the way is the one that the engine writes."""
    model = made("gpt2")
    engine, prompt = Engine(model, precision=Precision(compile="off")), TOKENS[:9]
    text = [*prompt, *(w.token for w in engine.submit(prompt, chosen) if w.token is not None)]
    inspection = groundup.inspect(model, text)
    for written in range(12):
        place = Place(inspection, len(prompt) + written - 1)
        draw = stages_of(place, b"x", chosen, written)[-1]
        assert draw.values[0].tokens == (text[len(prompt) + written],)
        if chosen.temperature:
            start, end = numbers(draw, 2).tolist()
            assert start <= numbers(draw, 1).item() <= end


def test_probabilities_of_a_distribution_sum_to_one() -> None:
    inspection = groundup.inspect(made("bigram"), TOKENS)
    stages = stages_of(Place(inspection, 3), b"x", SamplingSettings(temperature=1.0, top_k=5))
    assert numbers(stages[-2]).sum().item() == pytest.approx(1.0)
    assert (numbers(stages[-2]) > 0).sum().item() == 5
    assert F.one_hot(torch.tensor(TOKENS[3]), CONFIG.vocab_size).sum() == 1


SHAPES = {
    "gpt2": CONFIG,
    "modern": ModernConfig(40, 31, 3, 6, 2, 36, 8, tied=False),
    "bigram": CONFIG,
}


@pytest.mark.parametrize("architecture", SHAPES)
def test_every_parameter_is_learned_in_one_stage(architecture: str) -> None:
    """What the stages of all layers and heads say they use, added up, is the whole model."""
    config = SHAPES[architecture]
    heads = dict.fromkeys(("query", "key", "value"), 6)
    if isinstance(config, ModernConfig):
        heads |= {"key": 2, "value": 2}  # shared by three heads of queries each
    of_model = "token", "embedding", "position", "final_norm", "logits"
    total = 0
    for name, found in learned_numbers(architecture, config).items():
        layers = 1 if name in of_model else 3
        total += layers * heads.get(name, 1) * sum(math.prod(sizes) for _, sizes in found)
        assert in_words(found)
    assert total == groundup.parameter_count(architecture, config)
