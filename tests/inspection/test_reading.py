"""What is kept of a text while a model reads it is what the readable model computes."""

import itertools
import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import groundup
from conftest import model_of, perturb
from equivalence.test_modern_is_qwen3 import pair
from groundup import Engine, GPTConfig, ModernConfig, Precision, SamplingSettings
from groundup.errors import GenerationError
from groundup.generation.packed import Matrix
from groundup.inspection.parts import parts_of
from groundup.inspection.reading import Inspection
from groundup.models.correspondence import gpt2_from_readable, readable_from_gpt2
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern, rotate
from groundup.models.readable import ReadableGPT
from groundup.models.registry import Model

CONFIG = GPTConfig(block_size=40, vocab_size=31, n_layer=3, n_head=6, n_embd=36, dropout=0.3)
TOKENS = [(7 * place + place**2) % 31 for place in range(40)]
LAYERS = [(layer, head) for layer in range(3) for head in range(6)]
ARCHITECTURES = "bigram", "readable", "gpt2", "modern"


def made(architecture: str) -> Model:
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG)
    perturb(model, scale=0.3)
    return model.eval()


def readable_of(model: GPT2) -> ReadableGPT:
    """The readable model with the same weights."""
    readable = ReadableGPT(model.config)
    readable.load_state_dict(readable_from_gpt2(model.state_dict(), 3, 6))
    return readable.eval()


def explicit(readable: ReadableGPT, tokens: list[int]) -> dict[tuple[int, int], Tensor]:
    """The weights of all heads by the readable model's own lines, its modules' inputs recorded."""
    found: dict[tuple[int, int], Tensor] = {}

    def keep(layer: int, head: int):
        def hook(module, inputs, _output) -> None:
            (hidden,) = inputs
            query, key = module.query(hidden), module.key(hidden)
            scores = query @ key.mT / math.sqrt(key.size(-1))
            future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            found[layer, head] = scores.masked_fill(future, -math.inf).softmax(dim=-1)[0]

        return hook

    for layer, block in enumerate(readable.blocks):
        for head, module in enumerate(block.attention.heads):
            module.register_forward_hook(keep(layer, head))
    with torch.no_grad():
        readable(torch.tensor([tokens]))
    return found


@settings(max_examples=25)
@given(length=st.integers(1, 40), piece=st.integers(1, 40))
def test_attention_is_the_readable_models(length: int, piece: int) -> None:
    model = made("gpt2")
    expected = explicit(readable_of(model), TOKENS[:length])
    found = Inspection(model, TOKENS[:length], piece=piece).read_all()
    for layer, head in LAYERS:
        weights = found.attention(layer, head)
        torch.testing.assert_close(weights, expected[layer, head], atol=1e-5, rtol=0)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(length), atol=1e-5, rtol=0)


# the largest difference of a weight of attention from that of the trained weights
BOUNDS = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.2}


def rounded(model: GPT2, dtype: torch.dtype) -> GPT2:
    """A model in float32 whose matrices have the values that packed ones stand for."""
    found = GPT2(model.config)
    matrices = {
        name: Matrix(weight, dtype)
        for name, weight in model.state_dict().items()
        if weight.ndim == 2 and "wpe" not in name
    }
    scaled = {
        name: each.weight.float() * (1.0 if each.scale is None else each.scale[:, None])
        for name, each in matrices.items()
    }
    found.load_state_dict(model.state_dict() | scaled)
    return found


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_packed_model_shows_what_it_computes_itself(kind: str) -> None:
    model = made("gpt2")
    how = {"quantize": "int8"} if kind == "int8" else {"dtype": kind}
    engine = Engine(model, precision=Precision(compile="on", **how), slots=2)
    found = groundup.inspect(engine, TOKENS)
    assert engine.writer.slots is not None
    by_float32 = engine.writer.slots.piece_dtype == torch.float32
    for reference, bound in (
        (model, BOUNDS[kind]),
        (rounded(model, engine.writer.dtype), 1e-4 if by_float32 else 0.05),
    ):
        expected = explicit(readable_of(reference), TOKENS)
        differences = [
            (found.attention(*place) - expected[place]).abs().max().item() for place in LAYERS
        ]
        assert max(differences) < bound
        if reference is model:
            assert (max(differences) > 1e-5) == (kind != "float32")
    # the log-probabilities of a prompt are those that the engine gives
    request = engine.submit(TOKENS, SamplingSettings(length=1), logprobs=5, prompt_logprobs=True)
    list(request)
    scores = [prediction.logprob for prediction in found.predictions[:-1]]
    assert scores == [score.logprob for score in request.prompt_scores]
    assert found.predictions[-1].logprob is None


def test_modern_attention_is_that_of_transformers() -> None:
    model, theirs = pair(ModernConfig(40, 31, 3, 6, 2, 36, 8), torch.float32)
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        expected = theirs(torch.tensor([TOKENS]), output_attentions=True).attentions
    found = Inspection(model.eval(), TOKENS, piece=7).read_all()
    for layer, head in LAYERS:
        weights = found.attention(layer, head)
        torch.testing.assert_close(weights, expected[layer][0, head], atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_predictions_are_the_models_own(architecture: str) -> None:
    model = made(architecture).double()
    with torch.no_grad():
        logprobs = F.log_softmax(model(torch.tensor([TOKENS]))[0][0], dim=-1)
    found = Inspection(model, TOKENS, piece=9).read_all()
    for at, prediction in enumerate(found.predictions):
        row = logprobs[at]
        if at + 1 < len(TOKENS):
            assert prediction.logprob == pytest.approx(row[TOKENS[at + 1]].item(), abs=1e-9)
        assert prediction.entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-9)
        best = row.topk(20)
        assert [token for token, _ in prediction.top] == best.indices.tolist()
        assert [score for _, score in prediction.top] == pytest.approx(best.values.tolist())
        assert found.logprobs(at).tolist() == pytest.approx(row.tolist())


@pytest.mark.parametrize("architecture", ["readable", "gpt2", "modern"])
def test_the_lens_ends_with_the_prediction_and_its_changes_with_the_loss(architecture: str) -> None:
    found = Inspection(made(architecture), TOKENS, piece=9).read_all()
    for at in (0, 5, 38, 39):
        lens = found.lens(at, 20)
        assert len(lens) == 7
        last, prediction = lens[-1], found.predictions[at]
        assert [token for token, _ in last.top] == [token for token, _ in prediction.top]
        assert last.entropy == pytest.approx(prediction.entropy, abs=1e-4)
        if at == 39:
            assert last.logprob is None
            continue
        losses = [-each.logprob for each in lens if each.logprob is not None]
        changes = [after - before for before, after in itertools.pairwise(losses)]
        assert losses[0] + sum(changes) == pytest.approx(-(prediction.logprob or 0), abs=1e-4)
        assert max(map(abs, changes)) > 0.01


def test_the_stream_is_what_the_readable_models_blocks_give() -> None:
    model = made("gpt2")
    readable, points = readable_of(model), list[Tensor]()
    for block in readable.blocks:
        block.register_forward_pre_hook(lambda _module, inputs: points.append(inputs[0][0]))
        block.mlp_norm.register_forward_pre_hook(
            lambda _module, inputs: points.append(inputs[0][0])
        )
    readable.norm.register_forward_pre_hook(lambda _module, inputs: points.append(inputs[0][0]))
    with torch.no_grad():
        readable(torch.tensor([TOKENS]))
    found = Inspection(model, TOKENS, piece=11).read_all()
    torch.testing.assert_close(found.stream, torch.stack(points), atol=1e-4, rtol=1e-4)
    norms = found.norms()
    assert norms.shape == (10, 40)
    torch.testing.assert_close(norms[0], points[0].norm(dim=-1))
    torch.testing.assert_close(norms[1], (points[1] - points[0]).norm(dim=-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norms[5], (points[4] - points[3]).norm(dim=-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norms[9], points[6].norm(dim=-1), atol=1e-4, rtol=1e-4)


def test_a_readable_model_is_read_through_the_gpt2_that_computes_the_same() -> None:
    readable = made("readable")
    twin = GPT2(CONFIG)
    twin.load_state_dict(gpt2_from_readable(readable.state_dict(), 3, 6))
    both = [Inspection(model, TOKENS).read_all() for model in (readable, twin.eval())]
    assert torch.equal(both[0].stream, both[1].stream)


@pytest.mark.parametrize("architecture", ["readable", "gpt2", "modern"])
def test_looking_leaves_nothing_behind(architecture: str) -> None:
    """A model in training goes on with its dropout, and nothing listens to its modules any more."""
    model = made(architecture).train()
    before = [weight.clone() for weight in model.parameters()]
    first = Inspection(model, TOKENS).read_all()
    assert model.training
    modules = [*model.modules(), *first.model.modules()]
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in modules)
    assert all(map(torch.equal, before, model.parameters()))
    assert torch.equal(first.stream, Inspection(model.eval(), TOKENS).read_all().stream)


def test_an_error_on_the_way_leaves_no_hook() -> None:
    model = made("gpt2")
    model.transformer.h[1].mlp.c_proj.forward = lambda _x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        Inspection(model, TOKENS).read_all()
    assert not any(each._forward_hooks for each in model.modules())


@pytest.mark.parametrize(
    ("tokens", "what"),
    [([], "empty"), ([0] * 41, "41 tokens.*context is 40"), ([3, 31], "31"), ([-1], "-1")],
)
def test_what_cannot_be_read_is_refused(tokens: list[int], what: str) -> None:
    with pytest.raises(GenerationError, match=what):
        groundup.inspect(made("gpt2"), tokens)


def test_a_bigram_has_predictions_alone() -> None:
    model = made("bigram")
    found = groundup.inspect(model, TOKENS)
    assert (found.n_layer, found.n_head, parts_of(model)) == (0, 0, None)
    assert len(found.predictions) == 40
    assert found.stream.shape == (0, 40, 31)


def test_rotary_positions_decide_attention() -> None:
    """The same tokens at other positions have other queries and keys: the check can fail."""
    model = made("modern")
    assert isinstance(model, Modern)
    found = Inspection(model, [5] * 10).read_all()
    assert not torch.allclose(found.queries[0, 0, 0], found.queries[0, 0, 9])
    tables = model.model.rotary(torch.tensor([[9]]))
    turned = rotate(found.queries[0, 0, 0][None, None, None], tables)[0, 0, 0]
    torch.testing.assert_close(turned, found.queries[0, 0, 9], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["bigram", "gpt2", "modern"])
@pytest.mark.parametrize("shared", [0, 5, 8, 23, 30, 40])
def test_a_shared_beginning_is_taken_over_bit_for_bit(architecture: str, shared: int) -> None:
    """A text that has grown, or changed, is as if it had been read alone."""
    engine = Engine(made(architecture), slots=1)
    other = Inspection.by_engine(engine, TOKENS[:33]).read_all()
    tokens = [*TOKENS[:shared], *[(token + 1) % 31 for token in TOKENS[shared:]]]
    found = Inspection.by_engine(engine, tokens)
    found.adopt(other)
    assert found.length == min(shared, 33) // 10 * 10
    alone = Inspection.by_engine(engine, tokens).read_all()
    found.read_all()
    assert found.predictions == alone.predictions
    assert torch.equal(found.stream, alone.stream)
    if found.n_layer:
        assert torch.equal(found.attention(2, 5), alone.attention(2, 5))
        assert torch.equal(found.values, alone.values)


def test_texts_that_are_written_meanwhile_do_not_come_between() -> None:
    """Another thread writes by the same modules, by torch, while a text is looked at again."""
    engine = Engine(made("gpt2"), slots=2, precision=Precision(compile="off"))
    expected = Inspection.by_engine(engine, TOKENS).read_all()
    writing = threading.Event()

    def write() -> None:
        for _ in engine.submit(TOKENS[:3], SamplingSettings(length=300, ignore_ends=True)):
            writing.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert writing.wait(20)
    for _ in range(5):
        found = Inspection.by_engine(engine, TOKENS).read_all()
        assert torch.equal(found.stream, expected.stream)
    thread.join()
