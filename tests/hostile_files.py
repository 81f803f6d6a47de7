"""Model files that lie, a number each: valid ones changed where a parser, a size or a shape can be
led astray.

JSON is changed as a tree whose objects are lists of pairs, so that keys can come twice, and whose
numbers can be any text; then, at times, its bytes are.
"""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

HUGE = [2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, int("7" * 4000)]
NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "-0.0",
    "0.5",
    "1.5",
    "1e-300",
    "1e308",
    "1e999",
    "NaN",
    "Infinity",
    "-Infinity",
]
NUMBERS += (
    [str(number) for number in HUGE] + [f"-{number}" for number in HUGE] + ["9" * 5000, "1e5", "-5"]
)
TEXTS = [
    "",
    "x",
    "5",
    "a\nb",
    "\x1b[2J\x07",
    "\0",
    "\ud800",
    "\udfff\ud800",
    "é",
    "中",
    "😀",
    "../../etc/passwd",
    "A" * 3000,
]
TEXTS += [
    "gpt2",
    "qwen3",
    "modern",
    "bigram",
    "readable",
    "BPE",
    "WordLevel",
    "Unigram",
    "WordPiece",
    "ByteLevel",
]
TEXTS += [
    "Sequence",
    "Split",
    "NFC",
    "Isolated",
    "Removed",
    "F32",
    "I64",
    "BF16",
    "F8_E4M3",
    "U64",
    "__metadata__",
]
TEXTS += [
    "transformer.wte.weight",
    "lm_head.weight",
    "h.0.attn.bias",
    "model-00001-of-00002.safetensors",
    "<|endoftext|>",
]
PATTERNS = [
    "(a+)+b",
    "(",
    "[",
    "(?:a{1000}){1000}",
    "a{4294967296}",
    "x*",
    "",
    ".",
    "(?<n>a)",
    "(?i:A)",
    r"\p{L}+",
    r"\p{Q}",
]
PATTERNS += [
    r"(?:\s|\S)",
    r"\1",
    "(?=a)",
    "(?<=b)a",
    "[[:alpha:]]",
    "(" * 500 + "a" + ")" * 500,
    r"[^\s\S]",
    "(?P>x)",
]
PATTERNS += [
    r"(\s*)*x",
    "(.|a)+$",
    "(a|a)*c",
    "(?>a+)",
    "a{,5}",
    "a{5,1}",
    r"\p{Han}",
    "(?s).",
    "(?#x)",
    r"\u{41}",
    r"\K",
]
PATTERNS += [
    r"\w*" * 40 + "!",
    r"(?:\w{1,40}){1,40}!",
    r"[a-z]*[a-z]*[a-z]*!|\s|\S",
    r"(?:\s?\p{L}+)+\d|\s|\S",
    r"(?:a|aa)+$|.",
    r"^\s+|\S+|\s",
    r" ?\p{L}+| ?[^\s\p{L}]+|\s+",
]
DTYPES = ["F64", "F16", "BF16", "I8", "I32", "U32", "BOOL", "C64", "F4", "F33", "f32", ""]
PLACES = [16, 80, 2**63, 2**64 - 1]
DEPTHS = [5, 90, 130, 400, 900, 1100, 100_000]


class Text(str):
    """JSON, word for word."""


class Pairs(list):
    """An object of JSON: its keys and values, in their order, a key as often as it comes."""


def parsed(text: str | bytes) -> Any:
    """JSON as a tree with `Pairs`."""
    return json.loads(text, object_pairs_hook=Pairs)


def written(tree: Any) -> str:
    """A tree as JSON."""
    if isinstance(tree, Text):
        return str(tree)
    if isinstance(tree, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{written(value)}" for key, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(written, tree)) + "]"
    return json.dumps(tree)


def any_value(chosen: random.Random) -> Any:
    """A value that nobody expects."""
    kind = chosen.randrange(12)
    if kind < 4:
        return Text(chosen.choice(NUMBERS))
    if kind < 7:
        return chosen.choice(TEXTS)
    if kind == 7:
        return chosen.choice(PATTERNS)
    if kind == 8:
        return chosen.choice([None, True, False])
    if kind == 9:
        left, right = chosen.choice(["[]", ('{"a":', "}"), "[]"])
        depth = chosen.choice(DEPTHS)
        return Text(left * depth + "1" * (left != "[") + right * depth)
    if kind == 10:
        return chosen.choice([[], [[]], [1, 2], ["a", "b"], [None], [[1]], [0] * 1000])
    return chosen.choice(
        [Pairs(), Pairs([("type", "x")]), Pairs([("a", Pairs())]), Pairs([("Regex", "(")])]
    )


def places(tree: Any, chosen: random.Random) -> tuple[Any, int] | None:
    """A container and the index of something in it, found by walking down from the root by
    chance.
    """
    place = None
    while isinstance(tree, list) and tree:
        index = chosen.randrange(len(tree))
        place = (tree, index)
        tree = tree[index][1] if isinstance(tree, Pairs) else tree[index]
        if chosen.random() < 0.3:
            break
    return place


def changed(
    tree: Any, chosen: random.Random, value: Callable[[random.Random], Any] = any_value
) -> Any:
    """The tree with one thing in it changed, in place or as a whole."""
    place = places(tree, chosen)
    if place is None or chosen.random() < 0.02:
        return value(chosen)
    where, index = place
    keyed = isinstance(where, Pairs)
    old = where[index][1] if keyed else where[index]
    key = where[index][0] if keyed else ""
    kind = chosen.randrange(10)
    new: Any = value(chosen)
    if kind == 4:
        new = [old] if chosen.random() < 0.5 else Pairs([("x", old)])
    elif kind == 5:
        new = str(old) if not isinstance(old, list) else Text(written(old))
    elif kind == 6 and type(old) in (int, float):
        new = chosen.choice(
            [old + 1, old - 1, -old, 2 * old, 0, old * 2**32, float(old), bool(old)]
        )
    elif kind == 7 and (other := places(tree, chosen)):
        new = Text(
            written(other[0][other[1]][1] if isinstance(other[0], Pairs) else other[0][other[1]])
        )
    if kind == 0:
        del where[index]
    elif kind == 1:
        where.insert(chosen.randrange(len(where) + 1), (key, new) if keyed else new)
    elif kind == 2 and keyed:
        where[index] = (chosen.choice([*TEXTS, key + "x", key.upper(), key[:-1]]), old)
    elif kind == 3 and keyed:
        where.insert(index, (chosen.choice([*TEXTS, f"h.{len(where)}.attn.bias"]), new))
    else:
        where[index] = (key, new) if keyed else new
    return tree


def hurt(content: bytes, chosen: random.Random) -> bytes:
    """The bytes with some flipped, cut, doubled or put in; or read as another encoding
    writes them.
    """
    begin = chosen.randrange(len(content) + 1)
    end = min(len(content), begin + chosen.choice([1, 1, 2, 8, 100]))
    kind = chosen.randrange(7)
    if kind == 0:
        return content[:begin]
    if kind == 1:
        return content[:begin] + content[end:]
    if kind == 2:
        return content[:end] + content[begin:]
    if kind == 3:
        return content[:begin] + chosen.randbytes(chosen.randrange(1, 9)) + content[end:]
    if kind == 4:
        return chosen.choice(
            [
                b"\xef\xbb\xbf" + content,
                content + b"}",
                content + b"\0",
                content.decode("latin-1").encode("utf-16"),
            ]
        )
    flipped = bytearray(content)
    for _ in range(chosen.choice([1, 1, 3])):
        if flipped:
            flipped[chosen.randrange(len(flipped))] ^= 1 << chosen.randrange(8)
    return bytes(flipped)


def hostile_json(content: bytes, chosen: random.Random) -> bytes:
    """A JSON file that was changed in one place, or in a few."""
    tree = parsed(content)
    for _ in range(chosen.choice([1, 1, 1, 2, 3])):
        tree = changed(tree, chosen, any_number if chosen.random() < 0.4 else any_value)
    text = written(tree).encode("utf-8")
    return hurt(text, chosen) if chosen.random() < 0.15 else text


def doubling(contents: dict[str, Any], chosen: random.Random) -> bytes:
    """A `tokenizer.json` whose merges double a letter again and again, deep or wide."""
    letters, merges = dict(list(contents["model"]["vocab"].items())[:256]), []
    deep = chosen.choice([3, 8, 14])
    for letter in list(letters)[: chosen.choice([1, 1, 40])]:
        for power in range(min(deep, 14 if letter == next(iter(letters)) else 8)):
            merges.append([letter * 2**power] * 2)
            letters[letter * 2 ** (power + 1)] = len(letters)
    contents["model"] |= {"vocab": letters, "merges": merges}
    contents["added_tokens"] = []
    return json.dumps(contents).encode("utf-8")


def hostile_tokenizer(content: bytes, chosen: random.Random) -> bytes:
    """A `tokenizer.json` that was changed: in a quarter of them, the pattern that cuts words, where
    there is one; in some, the merges.
    """
    if (kind := chosen.random()) < 0.05 and b'"BPE"' in content:
        return doubling(json.loads(content), chosen)
    if kind < 0.25:
        contents = json.loads(content)
        pattern = (
            {"Regex": chosen.choice(PATTERNS)}
            if chosen.random() < 0.9
            else any_value(random.Random(0))
        )
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        split["behavior"] = chosen.choice(
            ["Isolated", "Isolated", "Removed", "MergedWithNext", "Contiguous", None]
        )
        letters = {
            "type": "ByteLevel",
            "add_prefix_space": chosen.random() < 0.1,
            "use_regex": False,
        }
        letters["trim_offsets"] = True
        contents["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, letters]}
        content = json.dumps(contents).encode("utf-8")
        if chosen.random() < 0.7:
            return content
    return hostile_json(content, chosen)


def any_number(chosen: random.Random) -> Any:
    """A shape's or an offset's."""
    return Text(chosen.choice(NUMBERS)) if chosen.random() < 0.7 else chosen.randrange(200)


def hostile_safetensors(content: bytes, chosen: random.Random) -> bytes:
    """A safetensors file whose header, or the length before it, says something else than it did."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    if chosen.random() < 0.8:
        tree = parsed(header)
        for _ in range(chosen.choice([1, 1, 1, 2, 3])):
            tree = _changed_header(tree, chosen)
        header = written(tree).encode("utf-8")
    if chosen.random() < 0.2:
        header = hurt(header, chosen)
    if chosen.random() < 0.05:
        data = chosen.choice([data[:-1], data[:10], b"", data + b"\0", data * 2])
    length = len(header)
    if chosen.random() < 0.1:
        length = chosen.choice(
            [
                0,
                1,
                7,
                length - 1,
                length + 1,
                length + len(data),
                *(2**bits - 1 for bits in range(8, 65, 8)),
            ]
        )
    whole = struct.pack("<Q", max(0, length)) + header + data
    return whole[: chosen.randrange(12)] if chosen.random() < 0.02 else whole


def _changed_header(tree: Any, chosen: random.Random) -> Any:
    """The header with a tensor's entry or anything else changed."""
    entries = (
        [entry for _, entry in tree if isinstance(entry, Pairs)] if isinstance(tree, Pairs) else []
    )
    if not entries or chosen.random() < 0.25:
        return changed(tree, chosen, any_value if chosen.random() < 0.5 else any_number)
    entry, kind = chosen.choice(entries), chosen.randrange(8)
    at = {key: index for index, (key, _) in enumerate(entry)}
    if kind == 0 and "shape" in at:
        entry[at["shape"]] = (
            "shape",
            [any_number(chosen) for _ in range(chosen.choice([0, 1, 2, 2, 3, 9]))],
        )
    elif kind == 5 and "shape" in at:  # as many numbers, in another form
        shape = entry[at["shape"]][1]
        forms = [shape[::-1], [*shape, 1], [1, *shape]] if isinstance(shape, list) else []
        entry[at["shape"]] = ("shape", chosen.choice([*forms, [20], [80], []]))
    elif kind == 6:  # a tensor of nothing, for which there is room anywhere
        place = chosen.choice([0, 0, 0, *PLACES])
        shape = [any_number(chosen), 0, any_number(chosen)]
        pairs = [
            ("dtype", chosen.choice(["F32", "I64", "F4"])),
            ("shape", shape),
            ("data_offsets", [place, place]),
        ]
        tree.append((chosen.choice(TEXTS), Pairs(pairs)))
    elif kind == 7:  # the tensors, under each other's names
        one, other = chosen.randrange(len(tree)), chosen.randrange(len(tree))
        tree[one], tree[other] = (tree[one][0], tree[other][1]), (tree[other][0], tree[one][1])
    elif kind == 1 and "data_offsets" in at:
        entry[at["data_offsets"]] = (
            "data_offsets",
            [any_number(chosen) for _ in range(chosen.choice([0, 1, 2, 2, 3]))],
        )
    elif kind == 2 and "dtype" in at:
        entry[at["dtype"]] = ("dtype", chosen.choice(DTYPES))
    elif kind == 3:
        entry.append((chosen.choice(["x", "dtype", "shape"]), any_value(chosen)))
    else:
        tree.append((f"more{chosen.randrange(9)}", Pairs(entry)))
    return tree
