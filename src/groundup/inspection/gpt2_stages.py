"""One token's way through a GPT-2, told by the lines of the readable model."""

import torch
from torch.nn import functional as F

from groundup.inspection import shared_stages as shared
from groundup.inspection.stages import Place, Stage, Values, code, one_vector
from groundup.models import readable
from groundup.models.gpt2 import GPT2

HEAD = readable.Head.forward
NORM = code(readable.LayerNorm.forward, "mean = ", "variance = ", "return")
QUERY_KEY_VALUE = code(HEAD, "query, key, value = ")
LOOKING = {
    "scores": code(HEAD, "scores = query"),
    "mask": code(HEAD, "future_of(scores)"),
    "softmax": code(HEAD, "scores.softmax"),
    "weighted_sum": code(HEAD, "scores.softmax"),
}
LOGITS = code(readable.ReadableGPT.logits, "return")


def gpt2_stages(place: Place) -> list[Stage]:
    """The stages from a token to the vector that the head reads, in one layer and head."""
    normed = place.block.ln_1(place.residual(0)[None])
    norm = one_vector(
        "attention_norm",
        "block",
        "Norm before attention",
        "A copy of the stream is brought to mean 0 and variance 1, then scaled and shifted by "
        "learned numbers, so that attention always reads numbers of the same size.",
        "scale · (hidden − mean) / √(variance + 1e-5) + shift",
        *NORM,
        of=Values("normed", normed[0]),
    )
    return [
        *_entering(place),
        shared.residual_in(place, code(readable.ReadableGPT.hidden, "hidden = block(hidden)")),
        norm,
        *_reading(place),
        *shared.looking(place, LOOKING),
        *_mixing(place),
        *_thinking(place),
        shared.final_norm(place, (*code(readable.ReadableGPT.hidden, "return self.norm"), *NORM)),
    ]


def _entering(place: Place) -> list[Stage]:
    """The stages before the first block."""
    model, device = place.inspection.model, place.inspection.device
    assert isinstance(model, GPT2)
    row = torch.tensor([place.inspection.tokens[place.position], place.position], device=device)
    forward = readable.ReadableGPT.hidden
    added = code(forward, "self.token_embedding(tokens)")
    return [
        shared.embedding("token_embedding", place, model.transformer.wte(row[:1])[0], added),
        one_vector(
            "position",
            "model",
            "Position",
            "A second learned table has a row for each position, because otherwise the model "
            "couldn't tell where in the text a token stands.",
            "position_embedding[position]",
            *code(forward, "positions = torch.arange"),
            *added,
            of=Values("position", model.transformer.wpe(row[1:])[0]),
        ),
        shared.stream(
            place, "hidden = token_embedding[token] + position_embedding[position]", added
        ),
    ]


def _reading(place: Place) -> list[Stage]:
    """The stages of the token's query, key and value."""
    query = place.inspection.queries[place.layer, place.head, place.position]
    numbers = {"query": query, "key": place.key(), "value": place.value()}
    return shared.asking(numbers, "NAME = normed · W_NAMEᵀ + b_NAME", QUERY_KEY_VALUE)


def _mixing(place: Place) -> list[Stage]:
    """The stages from what all heads found to the stream after attention."""
    picked = place.all_picked()
    forward = readable.MultiHeadAttention.forward
    return [
        shared.concatenate(picked, code(forward, "found = torch.cat")),
        shared.projection(
            "projection = found · W_projectionᵀ + b_projection",
            place.block.attn.c_proj(picked[None])[0],
            code(forward, "self.projection(found)"),
        ),
        shared.residual_mid(
            place, code(readable.Block.forward, "hidden = hidden + self.attention")
        ),
    ]


def _thinking(place: Place) -> list[Stage]:
    """The stages of the MLP."""
    mlp = place.block.mlp
    normed = place.block.ln_2(place.residual(1)[None])
    expanded = mlp.c_fc(normed)
    active = F.gelu(expanded, approximate="tanh")
    line = code(readable.MLP.forward, "return")
    return [
        shared.mlp_norm("scale · (hidden − mean) / √(variance + 1e-5) + shift", normed[0], NORM),
        one_vector(
            "expand",
            "block",
            "Widen",
            "The MLP works on each token alone: a learned matrix makes a vector that is four "
            "times as wide, each number of which answers to one pattern in the stream.",
            "expanded = normed · W_expandᵀ + b_expand",
            *line,
            of=Values("expanded", expanded[0]),
        ),
        one_vector(
            "gelu",
            "block",
            "GELU",
            "GELU keeps large positive numbers nearly as they are, and takes negative ones to "
            "nearly 0: only the patterns that are clearly there go on.",
            "active = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))",
            *code(readable.GELU.forward, "return"),
            of=Values("active", active[0]),
        ),
        one_vector(
            "contract",
            "block",
            "Narrow",
            "A second learned matrix turns the active patterns into what the MLP adds to the "
            "stream.",
            "contracted = active · W_contractᵀ + b_contract",
            *line,
            of=Values("contracted", mlp.c_proj(active)[0]),
        ),
        shared.residual_out(place, code(readable.Block.forward, "return")),
    ]
