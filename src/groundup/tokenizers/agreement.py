"""Whether two tokenizers give the same ids to all texts, and in what they differ."""

from collections.abc import Mapping
from typing import Any

from groundup.errors import SlowTokenizerError
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.bytepair import (
    OTHER_MARKS,
    OTHER_MERGING,
    ByteLevelTokenizer,
    parse,
    pattern_of,
)

SHOWN = 3  # tokens that are named


def disagreement(first: Tokenizer, second: Tokenizer) -> str:
    """Say why documents would get other ids by one tokenizer than by the other.

    Special tokens don't matter, because no text becomes one, except for the one that separates
    documents.

    Returns:
        The reason in words; empty where all documents get the same ids.
    """
    if first.identity == second.identity:
        return ""
    both = _deciding(first), _deciding(second)
    if both[0].keys() != both[1].keys():
        return "only one of them is of characters"
    for what in both[0]:
        mine, other = (parts[what] for parts in both)
        if isinstance(mine, dict) and isinstance(other, dict) and mine != other:
            return f"they differ in {what}: {_differing(mine, other)}"
        if mine != other:
            return f"they differ in {what}"
    if first.end_of_text != second.end_of_text:
        ends = " and ".join(str(each.end_of_text) for each in (first, second))
        return f"they differ in the token that separates documents: {ends}"
    return ""


def special_difference(first: Tokenizer, second: Tokenizer) -> str:
    """Name the special tokens that only one of two tokenizers has, or that have two ids."""
    return _differing(first.special_tokens, second.special_tokens)


def _differing(first: Mapping[Any, int], second: Mapping[Any, int]) -> str:
    """The entries in which two tables differ, the first few of them by name."""
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    shown = [
        f"{name!r} is {first.get(name, 'missing')} in the first and "
        f"{second.get(name, 'missing')} in the second"
        for name in names[:SHOWN]
    ]
    more = [f"{len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return ", ".join(shown + more)


def _deciding(tokenizer: Tokenizer) -> dict[str, object]:
    """What decides the ids of texts, by what it is in words."""
    if not isinstance(tokenizer, ByteLevelTokenizer):
        return {"characters": {tokenizer.decode([at]): at for at in range(tokenizer.vocab_size)}}
    contents, model = tokenizer.contents, tokenizer.contents["model"]
    vocabulary, merges, _ = parse(contents, "")
    added = contents.get("added_tokens") or ()
    found = {token["content"]: token for token in added if not token.get("special")}
    try:
        words: object = pattern_of(contents | {"added_tokens": []}, "")
    except SlowTokenizerError:  # what only the library `tokenizers` does
        flags = {key: model.get(key) for key in (*OTHER_MERGING, *OTHER_MARKS) if model.get(key)}
        words = contents.get("normalizer"), contents.get("pre_tokenizer"), flags
    return {
        "tokens": vocabulary,
        "tokens that are found in texts": {name: token["id"] for name, token in found.items()},
        "how these are found": [{**token, "id": None} for token in found.values()],
        "merges": merges,
        "how texts are cut into words": words,
    }
