"""The slow way to score an item: one ending at a time, the whole text through the model, no batch,
no cache.
"""

import re
from typing import Any

import torch


def log_probability(model: Any, context: list[int], ending: list[int]) -> float:
    """The sum over the ending's tokens, from full logits; the beginning goes where the context is
    too short.
    """
    tokens = torch.tensor((context + ending)[-(model.block_size + 1) :])
    with torch.no_grad():
        logits = model(tokens[None, :-1])[0][0]
    normalised = logits.log_softmax(dim=-1)
    rows = torch.arange(len(tokens) - 1 - len(ending), len(tokens) - 1)
    return float(normalised[rows, tokens[1:][-len(ending) :]].sum())


def completion_pairs(item: dict[str, Any], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """As build-nanogpt encodes an item."""
    context = tokenizer.encode(item["ctx"]).tolist()
    return [(context, tokenizer.encode(" " + ending).tolist()) for ending in item["endings"]]


def preprocess(text: str) -> str:
    """As lm-evaluation-harness 0.4 does for hellaswag."""
    text = text.strip()
    text = text.replace(" [title]", ". ")
    text = re.sub("\\[.*?\\]", "", text)
    return text.replace("  ", " ")


def harness_pairs(item: dict[str, Any], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """As lm-evaluation-harness 0.4 makes its requests, and its HFLM encodes them."""
    text = item["ctx_a"] + " " + item["ctx_b"].capitalize() if "ctx_a" in item else item["ctx"]
    query, pairs = preprocess(item["activity_label"] + ": " + text), []
    for ending in item["endings"]:
        context, continuation = query, " " + preprocess(ending)
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        encoded = tokenizer.encode(context).tolist()
        pairs.append((encoded, tokenizer.encode(context + continuation).tolist()[len(encoded) :]))
    return pairs


PAIRS = {"completion": completion_pairs, "harness": harness_pairs}


def sums(model: Any, tokenizer: Any, item: dict[str, Any], convention: str) -> list[float]:
    """Of each ending."""
    return [log_probability(model, *pair) for pair in PAIRS[convention](item, tokenizer)]


def choices(model: Any, tokenizer: Any, item: dict[str, Any], convention: str) -> dict[str, int]:
    """The ending that each measure chooses."""
    found = torch.tensor(sums(model, tokenizer, item, convention), dtype=torch.float64)
    if convention == "completion":
        lengths = {"acc_norm": [len(ending) for _, ending in completion_pairs(item, tokenizer)]}
    else:
        texts = [preprocess(ending) for ending in item["endings"]]
        lengths = {
            "acc_norm": [len(text) for text in texts],
            "acc_bytes": [len(text.encode()) for text in texts],
        }
    chosen = {"acc": int(found.argmax())}
    return chosen | {
        measure: int((found / torch.tensor(size)).argmax()) for measure, size in lengths.items()
    }
