"""The stages that a token passes in every model that has them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from groundup.generation.settings import SamplingSettings
from groundup.inspection.stages import Lines, Place, Stage, Values, code, one_vector
from groundup.models import readable, sampling

SHOWN = 20  # most probable tokens of a distribution
QUERY = (
    "The head multiplies the vector that was brought to one size by a learned matrix. The result "
    "is the token's query, a kind of question to itself and to every earlier token: it is compared "
    "with each token's key, and the better they match, the more this token reads from that one."
)
Code = tuple[Lines, ...]


def embedding(table: str, place: Place, row: Tensor, lines: Code) -> Stage:
    """The stage at which a token becomes a vector."""
    return one_vector(
        "embedding",
        "model",
        "Embedding",
        "Each token has a row of numbers of its own in a table, learned in training: the vector "
        "that stands for this token wherever it occurs.",
        f"{table}[{place.inspection.tokens[place.position]}]",
        *lines,
        of=Values("embedding", row),
    )


def stream(place: Place, formula: str, lines: Code) -> Stage:
    """The stage at which the residual stream begins."""
    return one_vector(
        "stream",
        "model",
        "Residual stream",
        "This vector begins the residual stream of this token, which runs through all blocks: each "
        "block reads the stream and adds to it another vector, what it has found for the token.",
        formula,
        *lines,
        of=Values("hidden", place.inspection.stream[0, place.position]),
    )


def residual_in(place: Place, lines: Code) -> Stage:
    """The stage at which a block takes the residual stream."""
    return one_vector(
        "residual_in",
        "block",
        "The stream before this block",
        f"Block {place.layer + 1} gets the residual stream: the token's vector with all that "
        "earlier blocks have added.",
        "hidden",
        *lines,
        of=Values("hidden", place.residual(0)),
    )


def asking(
    numbers: Mapping[str, Tensor], formula: str, lines: Code, key_more: str = "", group: str = ""
) -> list[Stage]:
    """The stages of a token's query, key and value in one head.

    Args:
        numbers: The vectors of query, key and value, in this order.
        formula: How each is computed, with NAME in place of its name.
        lines: The code.
        key_more: What else happens to a key before queries meet it.
        group: What is said of heads that share keys and values.
    """
    sentences = {
        "query": QUERY,
        "key": "Another learned matrix makes the token's key, which stands for what it has to "
        f"offer: queries of this and later tokens are compared with it{key_more}.{group}",
        "value": f"The value is what a token hands over to the tokens that find it.{group}",
    }
    return [
        one_vector(
            name,
            "head",
            name.capitalize(),
            sentences[name],
            formula.replace("NAME", name),
            *lines,
            of=Values(name, vector),
        )
        for name, vector in numbers.items()
    ]


def looking(place: Place, lines_of: Mapping[str, Code]) -> list[Stage]:
    """The stages from scores to what a head has found.

    Args:
        place: The token and the head.
        lines_of: The code of each stage, by its name.
    """
    seen = torch.zeros(len(place.inspection.tokens))
    seen[: place.position + 1] = 1
    told = (
        (
            "scores",
            "Scores",
            "Query and key are multiplied number by number and added up, to one number for each "
            "token that is read: the better the two fit, the higher it is.",
            "scores = query · keyᵀ / √head_dim",
            Values("scores", place.scores(), "tokens"),
        ),
        (
            "mask",
            "Mask",
            "While it learns, the model predicts the next token at every place of a text at once. "
            "Without a mask a token could simply look at the answer, the token after it; so it "
            "reads only itself and those before it, and the others get a share of 0.",
            "scores[later tokens] = −∞",
            Values("seen", seen, "tokens", "probability"),
        ),
        (
            "softmax",
            "Softmax",
            "Softmax turns the scores into shares between 0 and 1 that sum to 1: how much the "
            "token reads from each token.",
            "weights = exp(scores) / Σ exp(scores)",
            Values("weights", place.weights(place.head), "tokens", "probability"),
        ),
        (
            "weighted_sum",
            "Weighted sum",
            "The values of the tokens are added up, each times its share: this is what the head "
            "has found for the token.",
            "found = weights · value",
            Values("found", place.picked(place.head)),
        ),
    )
    return [
        Stage(name, "head", title, sentence, formula, (values,), lines_of[name])
        for name, title, sentence, formula, values in told
    ]


def concatenate(picked: Tensor, lines: Code) -> Stage:
    """The stage at which the heads' findings are put side by side."""
    return one_vector(
        "concatenate",
        "block",
        "All heads side by side",
        "What all heads of the block have found is put into one long vector.",
        "found = [head 1, head 2, …]",
        *lines,
        of=Values("found", picked),
    )


def projection(formula: str, numbers: Tensor, lines: Code) -> Stage:
    """The stage at which a matrix mixes what the heads found."""
    return one_vector(
        "projection",
        "block",
        "Projection",
        "A learned matrix mixes what the heads have found into a vector of the stream's width.",
        formula,
        *lines,
        of=Values("projection", numbers),
    )


def residual_mid(place: Place, lines: Code) -> Stage:
    """The stage at which attention adds to the residual stream."""
    return one_vector(
        "residual_mid",
        "block",
        "Added to the stream",
        "The result of attention is added to the stream; what was there before stays in the sum.",
        "hidden = hidden + attention(norm(hidden))",
        *lines,
        of=Values("hidden", place.residual(1)),
    )


def mlp_norm(formula: str, numbers: Tensor, lines: Code) -> Stage:
    """The stage of the norm before the MLP."""
    return one_vector(
        "mlp_norm",
        "block",
        "Norm before the MLP",
        "The stream is brought to one size again, with learned numbers of the MLP's own.",
        formula,
        *lines,
        of=Values("normed", numbers),
    )


def residual_out(place: Place, lines: Code) -> Stage:
    """The stage at which the MLP adds to the residual stream."""
    return one_vector(
        "residual_out",
        "block",
        "The stream after this block",
        "The result of the MLP is added to the stream, which goes on to the next block or, after "
        "the last one, to the end.",
        "hidden = hidden + mlp(norm(hidden))",
        *lines,
        of=Values("hidden", place.residual(2)),
    )


def final_norm(place: Place, lines: Code) -> Stage:
    """The stage after all blocks."""
    return one_vector(
        "final_norm",
        "model",
        "Last norm",
        "The stream has usually grown with each addition. All its numbers are divided by one "
        "common size, so that the prediction depends on how they compare with each other (the "
        "vector's direction) and not on how large they have become (its length).",
        "norm(hidden)",
        *lines,
        of=Values("normed", place.inspection.hidden[place.position]),
    )


def first_stage(place: Place, token_bytes: bytes) -> Stage:
    """The stage at which a text is tokens.

    Args:
        place: The token.
        token_bytes: The bytes that it stands for.
    """
    token = place.inspection.tokens[place.position]
    return Stage(
        "token",
        "model",
        "Bytes and token",
        "A text is cut into pieces that the model knows, its tokens; the model sees only the "
        "number of each piece. From the tokens so far it guesses the next one: these cards follow "
        "one token on the way to that guess.",
        f"token = {token}",
        (
            Values("bytes", torch.tensor(list(token_bytes)), kind="bytes"),
            Values("token", torch.tensor([token]), kind="bytes"),
        ),
        (),
        shape="a number",
    )


def last_stages(
    place: Place, head_code: Code, settings: SamplingSettings, written: int
) -> list[Stage]:
    """The stages from logits to the token that is drawn.

    Args:
        place: The token after which one is drawn.
        head_code: The lines that compute logits.
        settings: How it is drawn.
        written: The number of tokens that were written before, which decides the random number.
    """
    inspection = place.inspection
    logits = inspection.model.logits(inspection.hidden[place.position][None])[:, : inspection.known]
    logits = sampling.precise(logits)
    best = tuple(logits[0].topk(min(SHOWN, inspection.known)).indices.tolist())
    probabilities = torch.zeros_like(logits[0])
    probabilities[best[0]] = 1.0
    if settings.temperature:
        probabilities = sampling.probabilities_of(
            logits, settings.temperature, settings.top_k, settings.top_p, settings.min_p
        )[0]
    size = f"[vocab] = [{inspection.known:,}]; {len(best)} are shown"
    of_head = (
        "The output layer (it is called the head, too, but is none of attention's) compares the "
        "finished vector with one learned vector for each token of the vocabulary; the better they "
        "fit, the higher that token's score, its logit."
    )
    of_table = (
        "The table has a row for each token: how likely each token is to come next, as scores, "
        "which are called logits."
    )
    is_table = inspection.parts is None
    return [
        Stage(
            "logits",
            "model",
            "Logits",
            of_table if is_table else of_head,
            "logits = table[token]" if is_table else "logits = hidden · W_headᵀ",
            (Values("logits", logits[0, list(best)], "vocabulary", tokens=best),),
            head_code,
            shape=size,
        ),
        _distribution(probabilities, best, settings, size),
        _draw(probabilities, best[0], settings, written),
    ]


def _distribution(
    probabilities: Tensor, best: tuple[int, ...], settings: SamplingSettings, size: str
) -> Stage:
    """The stage at which scores become probabilities. probabilities: [vocab]"""
    left = int((probabilities > 0).sum())
    cuts = f"{left:,} of {len(probabilities):,} tokens are left after top-k, top-p and min-p."
    return Stage(
        "distribution",
        "model",
        "Distribution",
        "Softmax turns the scores into probabilities that sum to 1. Here the temperature is "
        f"{settings.temperature:g}: below 1 likely tokens get likelier, above 1 all get more "
        f"alike, and 0 takes the likeliest. {cuts}",
        "probabilities = softmax(logits / temperature)",
        (_probabilities("probabilities", probabilities, best),),
        code(readable.most_probable, "(logits / temperature).softmax"),
        shape=size,
    )


def _draw(probabilities: Tensor, best: int, settings: SamplingSettings, written: int) -> Stage:
    """The stage at which a token is drawn. probabilities: [vocab]"""
    if not settings.temperature:
        return Stage(
            "draw",
            "model",
            "The draw",
            "The temperature is 0: the token with the highest score is taken, without chance.",
            "next = argmax(logits)",
            (_probabilities("drawn", probabilities, (best,)),),
            code(readable.ReadableGPT.generate, "newest = logits.argmax"),
            shape="a token",
        )
    uniform = sampling.uniform_of(settings.seed, 0, written)
    drawn = int(sampling.draw(probabilities[None], torch.tensor([uniform]).double()))
    until = probabilities.cumsum(dim=0)[drawn]
    edges = torch.stack([until - probabilities[drawn], until])
    return Stage(
        "draw",
        "model",
        "The draw",
        "All probabilities are laid end to end on a line from 0 to 1, in the vocabulary's order. A "
        f"random number, here {uniform:.4f}, falls on the part of one token: that token is drawn.",
        f"next = the token at {uniform:.6f}",
        (
            _probabilities("drawn", probabilities, (drawn,)),
            Values("uniform", torch.tensor([uniform]), range="probability"),
            Values("from, to", edges, range="probability"),
        ),
        code(readable.token_at, "up_to = ", "return"),
        shape="a token",
    )


def _probabilities(name: str, probabilities: Tensor, tokens: tuple[int, ...]) -> Values:
    return Values(name, probabilities[list(tokens)], "vocabulary", "probability", tokens)
