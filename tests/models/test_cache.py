"""What is read through a cache equals what is read whole, wherever a text is split and however it
goes on.
"""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import model_of, perturb
from groundup.models.attention import causal_attention
from groundup.models.cache import NO_CACHE, KVCache
from groundup.models.config import GPTConfig
from groundup.models.registry import cache_for, hidden_states

CONFIG = GPTConfig(block_size=12, vocab_size=13, n_layer=3, n_head=4, n_embd=16)


def made(architecture: str, dtype: torch.dtype = torch.float64) -> Any:
    """A model with every tensor moved, in evaluation mode; the modern one shares keys and values
    among heads.
    """
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG).to(dtype)
    perturb(model, scale=0.3)
    return model.eval()


MODELS = {name: made(name) for name in ("gpt2", "modern")}


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=60)
def test_every_split_of_a_text_computes_the_same(name: str, data: st.DataObject):
    model = MODELS[name]
    pieces = data.draw(
        st.lists(st.integers(1, 12), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) <= 12)
    )
    batch, seed = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 1000))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 13, (batch, sum(pieces)), generator=generator)
    cache = KVCache(CONFIG.n_layer)
    with torch.no_grad():
        found = torch.cat(
            [model.hidden(piece, cache) for piece in tokens.split(pieces, dim=1)], dim=1
        )
        torch.testing.assert_close(found, model.hidden(tokens), rtol=0, atol=1e-12)
    assert cache.length == sum(pieces)


@pytest.mark.parametrize("name", MODELS)
@given(prefix=st.integers(1, 8), times=st.integers(1, 4), batch=st.integers(1, 3))
@settings(max_examples=30)
def test_a_prefix_computed_once_goes_on_in_several_ways(
    name: str, prefix: int, times: int, batch: int
):
    model, generator = MODELS[name], torch.Generator().manual_seed(prefix)
    prefixes = torch.randint(0, 13, (batch, prefix), generator=generator)
    rests = torch.randint(0, 13, (batch * times, 4), generator=generator)
    rows = torch.randperm(batch * times, generator=generator) % batch
    with torch.no_grad():
        shared = KVCache(CONFIG.n_layer)
        model.hidden(prefixes, shared)
        whole = model.hidden(torch.cat([prefixes[rows], rests], dim=1))
        for _ in range(2):  # what went on from a copy left the original as it was
            found = model.hidden(rests, shared.rows(rows))
            torch.testing.assert_close(found, whole[:, prefix:], rtol=0, atol=1e-12)
    assert shared.length == prefix


@pytest.mark.parametrize("name", MODELS)
def test_a_cache_holds_no_more_than_the_context(name: str):
    model, cache = MODELS[name], KVCache(CONFIG.n_layer)
    with torch.no_grad():
        model.hidden(torch.zeros(1, 12, dtype=torch.int64), cache)
        with pytest.raises(AssertionError, match="13 tokens are more than block_size = 12"):
            model.hidden(torch.zeros(1, 1, dtype=torch.int64), cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_the_usual_precisions_go_through_a_cache_too(name: str, dtype: torch.dtype):
    model, tokens = made(name, dtype), torch.arange(12)[None] % 13
    cache = KVCache(CONFIG.n_layer)
    with torch.no_grad():
        found = torch.cat(
            [model.hidden(piece, cache) for piece in tokens.split([5, 4, 1, 2], dim=1)], dim=1
        )
        expected = model.hidden(tokens)
    assert found.dtype == expected.dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.15
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["bigram", "readable"])
def test_models_without_a_cache_are_read_whole(name: str):
    model = made(name)
    assert cache_for(model, 12) is None
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(hidden_states(model, tokens, None), model.hidden(tokens))
        with pytest.raises(AssertionError, match="without a cache"):
            hidden_states(model, tokens, KVCache(3))


@pytest.mark.parametrize("name", MODELS)
def test_a_cache_gives_each_row_its_positions(name: str):
    cache = cache_for(MODELS[name], 12)
    assert cache is not None
    for first, time in ((0, 5), (5, 1), (6, 4)):
        found = cache.positions(torch.zeros(2, time, dtype=torch.int64), CONFIG.block_size)
        assert found.tolist() == [list(range(first, first + time))] * 2
    assert NO_CACHE.positions(torch.zeros(2, 4), CONFIG.block_size).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(AssertionError, match="13 tokens are more than block_size = 12"):
        NO_CACHE.positions(torch.zeros(2, 13), CONFIG.block_size)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    room=st.integers(0, 12),
    shared=st.sampled_from([1, 2]),
)
def test_each_piece_is_attended_to_as_the_end_of_the_whole(
    sizes: list[int], room: int, shared: int
):
    """Whatever the room: what has no place in it is kept all the same, in its order."""
    generator = torch.Generator().manual_seed(sum(sizes))
    layers = [
        [
            torch.randn(2, heads, sum(sizes), 8, generator=generator, dtype=torch.float64)
            for heads in (4, 4 // shared, 4 // shared)
        ]
        for _ in range(2)
    ]
    cache, first = KVCache(2, room), 0
    for size in sizes:
        cache.positions(torch.zeros(2, size), sum(sizes))
        last = first + size
        for layer, (query, key, value) in enumerate(layers):
            whole = causal_attention(query[:, :, :last], key[:, :, :last], value[:, :, :last], 0.0)
            pieces = (tensor[:, :, first:last] for tensor in (query, key, value))
            found = cache.attention(layer)(*pieces, 0.0)
            torch.testing.assert_close(found, whole[:, :, first:], rtol=0, atol=1e-13)
            kept = cache._kept[layer, ..., :last, :]
            assert torch.equal(kept, torch.stack([key[:, :, :last], value[:, :, :last]]))
        first = last


def test_a_cache_with_enough_room_stays_where_it_is():
    cache, model, places = KVCache(CONFIG.n_layer, 12), MODELS["gpt2"], set()
    with torch.no_grad():
        for time in (5, 1, 6):
            model.hidden(torch.zeros(1, time, dtype=torch.int64), cache)
            places.add(cache._kept.data_ptr())
            assert cache._kept.size(-2) == 12
    assert len(places) == 1
