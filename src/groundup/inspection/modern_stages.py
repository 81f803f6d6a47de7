"""One token's way through a modern GPT, told by the lines of its own file."""

import torch
from torch.nn import functional as F

from groundup.inspection import shared_stages as shared
from groundup.inspection.stages import Place, Stage, Values, code, one_vector
from groundup.models import attention, modern
from groundup.models.modern import Modern

FORWARD = modern.Attention.forward
# its arithmetic is torch's own: the class says so in its name and its docstring
NORM = (*code(modern.RMSNorm.__init__, "super().__init__"), *code(modern.RMSNorm.forward, "return"))
ATTEND = code(FORWARD, "found = attend")
PRODUCTS = attention.attention_by_products
LOOKING = {
    "scores": (*ATTEND, *code(PRODUCTS, "scores = (some @ keys")),
    "mask": (*ATTEND, *code(PRODUCTS, "scores.masked_fill")),
    "softmax": (*ATTEND, *code(PRODUCTS, "weights = (", "found.append")),
    "weighted_sum": (*ATTEND, *code(PRODUCTS, "picked = ", "found.append")),
}
LOGITS = code(modern.Modern.logits, "return")
SCALED = "scale · hidden / √(mean(hidden²) + 1e-6)"


def modern_stages(place: Place) -> list[Stage]:
    """The stages from a token to the vector that the head reads, in one layer and head."""
    model, block = place.inspection.model, place.block
    assert isinstance(model, Modern)
    token = torch.tensor([place.inspection.tokens[place.position]], device=place.inspection.device)
    entering = code(modern.Transformer.forward, "hidden = self.embed_tokens(tokens)")
    finished = code(modern.Transformer.forward, "return self.norm(hidden)")
    return [
        shared.embedding("embed_tokens", place, model.model.embed_tokens(token)[0], entering),
        shared.stream(place, "hidden = embed_tokens[token]", entering),
        shared.residual_in(place, code(modern.Transformer.forward, "hidden = layer(hidden")),
        one_vector(
            "attention_norm",
            "block",
            "Norm before attention",
            "A copy of the stream is divided by its root mean square, and each number is scaled by "
            "a learned factor, so that attention always reads numbers of the same size.",
            SCALED,
            *NORM,
            of=Values("normed", block.input_layernorm(place.residual(0)[None])[0]),
        ),
        *_reading(place),
        *shared.looking(place, LOOKING),
        *_mixing(place),
        *_thinking(place),
        shared.final_norm(place, (*finished, *NORM)),
    ]


def _reading(place: Place) -> list[Stage]:
    """The stages of the token's query, key and value, and of their rotation."""
    layer, shared_head = place.block.self_attn, place.inspection.shared(place.head)
    normed = place.block.input_layernorm(place.residual(0)[None])
    size = layer.head_dim
    query = layer.q_proj(normed)[0].unflatten(-1, (-1, size))[place.head]
    key = layer.k_proj(normed)[0].unflatten(-1, (-1, size))[shared_head]
    several = place.inspection.n_head // place.inspection.keys.size(1)
    group = f" {several} heads of queries share it." if several > 1 else ""
    found = shared.asking(
        {"query": query, "key": key, "value": place.value()},
        "NAME = normed · W_NAMEᵀ",
        code(FORWARD, "query, key, value = ("),
        ", after its norm and rotation",
        group,
    )
    return [*found, *_turning(place, layer.q_norm(query), layer.k_norm(key))]


def _turning(place: Place, query: torch.Tensor, key: torch.Tensor) -> list[Stage]:
    """The stages between a query or key and attention: its norm and its rotation."""
    told = "is divided by its root mean square and scaled, so that no score grows without bound."
    query_code = code(FORWARD, "query = rotate")
    key_code = code(FORWARD, "key, value = rotate")
    turned = place.inspection.queries[place.layer, place.head, place.position]
    rotary = Stage(
        "rotary",
        "head",
        "Rotary positions",
        "Query and key are rotated by angles that grow with the token's position: a score then "
        "depends on how far two tokens are apart.",
        "rotate(x) = x · cos(position · θ) + quarter_turn(x) · sin(position · θ)",
        (Values("query", turned), Values("key", place.key())),
        (*query_code, *key_code, *code(modern.rotate, "quarter_turn = ", "return")),
    )
    formula = "scale · x / √(mean(x²) + 1e-6)"
    return [
        one_vector(
            "query_norm",
            "head",
            "Norm of the query",
            f"The query {told}",
            formula,
            *query_code,
            *NORM,
            of=Values("query", query),
        ),
        one_vector(
            "key_norm",
            "head",
            "Norm of the key",
            f"The key {told}",
            formula,
            *key_code,
            *NORM,
            of=Values("key", key),
        ),
        rotary,
    ]


def _mixing(place: Place) -> list[Stage]:
    """The stages from what all heads found to the stream after attention."""
    picked = place.all_picked()
    line = code(FORWARD, "return")
    projected = place.block.self_attn.o_proj(picked[None])[0]
    added = code(modern.Block.forward, "found = self.self_attn", "hidden = hidden + ")
    return [
        shared.concatenate(picked, line),
        shared.projection("projection = found · W_oᵀ", projected, line),
        shared.residual_mid(place, added),
    ]


def _thinking(place: Place) -> list[Stage]:
    """The stages of the MLP."""
    mlp = place.block.mlp
    normed = place.block.post_attention_layernorm(place.residual(1)[None])
    gate, up = mlp.gate_proj(normed), mlp.up_proj(normed)
    active = F.silu(gate) * up
    line = code(modern.MLP.forward, "return")
    return [
        shared.mlp_norm(SCALED, normed[0], NORM),
        one_vector(
            "gate",
            "block",
            "Gate",
            "The MLP works on each token alone: a learned matrix computes for each of its units "
            "how far the unit is to open.",
            "gate = normed · W_gateᵀ",
            *line,
            of=Values("gate", gate[0]),
        ),
        one_vector(
            "up",
            "block",
            "Widen",
            "A second learned matrix computes what each unit has to say.",
            "up = normed · W_upᵀ",
            *line,
            of=Values("up", up[0]),
        ),
        one_vector(
            "swiglu",
            "block",
            "SwiGLU",
            "What a unit has to say is multiplied by its gate, which lets positive numbers "
            "through and nearly closes for negative ones.",
            "active = gate · sigmoid(gate) · up",
            *line,
            of=Values("active", active[0]),
        ),
        one_vector(
            "down",
            "block",
            "Narrow",
            "A third learned matrix turns the active units into what the MLP adds to the stream.",
            "down = active · W_downᵀ",
            *line,
            of=Values("down", mlp.down_proj(active)[0]),
        ),
        shared.residual_out(place, code(modern.Block.forward, "return")),
    ]
