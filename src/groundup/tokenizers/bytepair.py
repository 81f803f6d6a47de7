"""Byte-level BPE: a Hugging Face `tokenizer.json`, encoded by tiktoken where that gives the same
ids.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import regex
import tiktoken

from groundup.errors import ForeignTokenizerError, SlowTokenizerError, TokenizerError
from groundup.tokenizers.base import END_OF_TEXT, Contents, check_ids, check_text, write_files
from groundup.tokenizers.word_patterns import check_patterns, extent_of

# GPT-2's words: contractions, then letters, numbers or signs with at most one space before them,
# then white space.
# The possessive form (++) finds the same and can't run out of stack on a long run of one kind.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

OTHER_DIALECT = regex.compile(
    r"(?<!\[)\^|\$|\(\?[a-z]*m|\{[\d,]+\}\+|\\[wWbBAzZG]|\(\?P?<(?![=!])|\(\?'"
)

Merge = tuple[bytes, bytes]


class BytePairTokenizer:
    """Bytes, merged pair by pair in the order in which the pairs were learned (Sennrich et al.
    2016).

    contents: of a `tokenizer.json`; path: where it came from, for messages. Raises TokenizerError
    for what is damaged, ForeignTokenizerError for what isn't byte-level BPE, and SlowTokenizerError
    for what tiktoken can't encode alike.
    """

    special_tokens: Mapping[str, int]

    def __init__(self, contents: Contents, path: Path | str) -> None:
        vocabulary, merges, special = parse(contents, path)
        pattern, self.normal_form = pattern_of(contents, path)
        learned = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
        if missing := [token for token in learned if token not in vocabulary]:
            raise ForeignTokenizerError(
                f"{path} has no token for {missing[0]!r}, which texts need: it can't be used"
            )
        learned[:256] = sorted(learned[:256], key=vocabulary.__getitem__)
        ranks = {token: rank for rank, token in enumerate(learned)}
        check_merges(merges, ranks, path)
        # A special token that no text becomes: without any, tiktoken looks for an empty word at
        # every character.
        never = {END_OF_TEXT: len(ranks)}
        try:
            self._encoding = tiktoken.Encoding(
                str(path), pat_str=pattern, mergeable_ranks=ranks, special_tokens=never
            )
        except ValueError as error:  # a pattern of another dialect
            raise SlowTokenizerError(
                f"{path} cuts words in a way that tiktoken refuses: {_line_of(error)}"
            ) from error
        self.contents, self.special_tokens = contents, special
        self.identity = (vocabulary, merges, special, pattern, self.normal_form)
        # by tiktoken's rank
        self._ids = np.array([vocabulary[token] for token in ranks], dtype=np.int64)
        self._in_order = bool((self._ids == np.arange(len(ranks))).all())
        self._bytes = _bytes_by_id(vocabulary, special)

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> np.ndarray:
        """text -> ids: [tokens] int64. `<|endoftext|>` in a text is text. Raises TokenizerError."""
        check_text(text)
        if self.normal_form:
            text = unicodedata.normalize("NFC", text)
        try:
            ranks = self._encoding.encode_to_numpy(text, disallowed_special=())
        except ValueError as error:  # about a million spaces before a word
            raise TokenizerError(
                f"a run in this text is too long to be cut into words: {_line_of(error)}"
            ) from error
        return ranks.astype(np.int64) if self._in_order else self._ids[ranks]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """ids -> the bytes that they stand for; a special token gives its name."""
        return b"".join([self._bytes[token] for token in check_ids(ids, self.vocab_size)])

    def decode(self, ids: Iterable[int]) -> str:
        """ids -> text; bytes that aren't UTF-8, as at the end of half a character, become
        U+FFFD.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer
        loads.
        """
        write_files(folder, self.contents, special_roles(self.special_tokens))


def special_roles(special_tokens: Mapping[str, int]) -> dict[str, str]:
    """What `tokenizer_config.json` says of the special tokens."""
    return (
        {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
        if END_OF_TEXT in special_tokens
        else {}
    )


def contents_of(
    vocabulary: dict[str, int], merges: list[list[str]], special_tokens: dict[str, int]
) -> Contents:
    """The `tokenizer.json` of GPT-2's kind. vocabulary and merges: bytes written as `byte_letters`
    writes them.
    """
    letters = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    added = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": name, **added} for name, token in special_tokens.items()
        ],
        "normalizer": None,
        "pre_tokenizer": letters,
        "post_processor": None,
        "decoder": letters,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }


@cache
def byte_letters() -> dict[int, str]:
    """Each byte's letter in a `tokenizer.json`: itself where it can be seen, else the next one from
    U+0100 on.
    """
    seen = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {
        byte: chr(256 + place) for place, byte in enumerate(hidden)
    }


@cache
def _letter_bytes() -> dict[str, int]:
    return {letter: byte for byte, letter in byte_letters().items()}


def to_letters(token: bytes) -> str:
    """A token as it is written in a `tokenizer.json`."""
    letters = byte_letters()
    return "".join(letters[byte] for byte in token)


def to_bytes(letters: str) -> bytes:
    """The bytes of a token as it is written in a `tokenizer.json`. Raises KeyError."""
    known = _letter_bytes()
    return bytes([known[letter] for letter in letters])


def is_byte_level(contents: Contents) -> bool:
    """Whether these are the contents of a byte-level BPE tokenizer."""
    parts = [contents.get("pre_tokenizer"), contents.get("decoder")]
    steps = [step for part in parts for step in _steps(part)]
    return contents["model"].get("type") == "BPE" and any(
        step.get("type") == "ByteLevel" for step in steps
    )


def parse(
    contents: Contents, path: Path | str
) -> tuple[dict[bytes, int], list[Merge], dict[str, int]]:
    """What was learned: token -> id, and the merges in their order; and the special tokens' ids.

    Raises ForeignTokenizerError for what isn't byte-level BPE, TokenizerError for what can't be
    understood.
    """
    if not is_byte_level(contents):
        raise ForeignTokenizerError(
            f"{path} is a {contents['model'].get('type')} tokenizer, not byte-level BPE"
        )
    try:
        check_patterns(contents, path)
        special = special_tokens_of(contents)
        added = {token["content"] for token in contents.get("added_tokens") or ()}
        vocabulary = contents["model"]["vocab"]
        check_numbers(
            [
                *vocabulary.values(),
                *(number for name, number in special.items() if name not in vocabulary),
            ]
        )
        pairs = (
            merge.split(" ") if isinstance(merge, str) else merge
            for merge in contents["model"]["merges"]
        )
        merges = [(to_bytes(left), to_bytes(right)) for left, right in pairs]
        return (
            {to_bytes(name): number for name, number in vocabulary.items() if name not in added},
            merges,
            special,
        )
    except ForeignTokenizerError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(f"{path} is a damaged tokenizer: {_line_of(error)}") from error


def special_tokens_of(contents: Contents) -> dict[str, int]:
    """Name -> id of the tokens that were added to what was learned and that no text turns into."""
    added = contents.get("added_tokens") or ()
    special = {token["content"]: token["id"] for token in added if token.get("special")}
    "".join(special).encode("utf-8")  # half a surrogate pair can be written in JSON, but is no name
    return special


def check_numbers(ids: list[int]) -> None:
    """Ids are whole numbers from 0, each once, and few are left out. Raises ValueError."""
    for number in ids:
        if type(number) is not int or not 0 <= number < 2 * len(ids) + 1000:
            raise ValueError(f"{number!r} is no id of one of {len(ids):,} tokens")
    if len(set(ids)) < len(ids):
        raise ValueError("two tokens have one id")


def _line_of(error: Exception) -> str:
    """An error's first line, after its kind."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def pattern_of(contents: Contents, path: Path | str) -> tuple[str, bool]:
    """How a text is cut into words, and whether it is brought into NFC before. Raises
    SlowTokenizerError.
    """
    model, normalizers = contents["model"], list(_steps(contents.get("normalizer")))
    added = [
        token["content"] for token in contents.get("added_tokens") or () if not token.get("special")
    ]
    splits = list(_steps(contents.get("pre_tokenizer")))
    refused = [
        f"model.{key}"
        for key in ("ignore_merges", "dropout", "byte_fallback", "unk_token")
        if model.get(key)
    ]
    refused += [f"the token {name!r} wherever a text has it" for name in added[:1]]
    refused += [
        f"model.{key}"
        for key in ("continuing_subword_prefix", "end_of_word_suffix")
        if model.get(key)
    ]
    refused += [f"normalizer {step.get('type')}" for step in normalizers if step != {"type": "NFC"}]
    refused += [
        f"{step.get('type')}.add_prefix_space" for step in splits if step.get("add_prefix_space")
    ]
    *before, last = splits or [{}]
    if not before and last.get("type") == "ByteLevel" and last.get("use_regex", True):
        pattern = GPT2_PATTERN
    elif len(before) == 1 and last.get("type") == "ByteLevel" and not last.get("use_regex", True):
        pattern = _split_pattern(before[0])
        refused += [] if pattern else [f"pre_tokenizer {before[0].get('type')}"]
    else:
        pattern, refused = (
            "",
            [*refused, f"pre_tokenizer {', '.join(str(step.get('type')) for step in splits)}"],
        )
    if refused:
        raise SlowTokenizerError(
            f"{path} asks for {' and '.join(refused)}, which tiktoken doesn't do"
        )
    return pattern, bool(normalizers)


def _split_pattern(split: dict[str, Any]) -> str:
    """The words of a `Split` into matches and what lies between them, as one pattern; empty if it
    can't be one.

    `tokenizers` reads a pattern by other rules than tiktoken where it has anchors, dots, words of
    the dialect or groups with names, and a match of nothing would lose what comes after it.
    """
    pattern = split.get("pattern")
    pattern = pattern.get("Regex", "") if isinstance(pattern, dict) else ""
    isolated = (
        split.get("type") == "Split"
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
    )
    if not isolated or not isinstance(pattern, str) or not pattern or OTHER_DIALECT.search(pattern):
        return ""
    try:
        regex.compile(pattern)
        return rf"{pattern}|(?:(?!{pattern})[\s\S])+" if extent_of(pattern).least else ""
    except regex.error:
        return ""


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a part of the pipeline, sequences unfolded."""
    if isinstance(part, dict) and part.get("type") == "Sequence":
        inner = next((value for value in part.values() if isinstance(value, list)), [])
        for step in inner:
            yield from _steps(step)
    elif isinstance(part, dict):
        yield part


def check_merges(merges: list[Merge], ranks: dict[bytes, int], path: Path | str) -> None:
    """tiktoken merges any two tokens that make a third; that is the same if no token could be made
    in another way.

    A token's bytes, merged as far as lower ranks go, must end as the pair that the file lists: then
    no other pair ever stands where it could be merged. Raises SlowTokenizerError.
    """
    if len(ranks) < 256 + len(merges):
        raise SlowTokenizerError(f"{path} lists two merges for one token")
    for left, right in merges:
        if merged(left + right, ranks, ranks[left + right]) != [left, right]:
            raise SlowTokenizerError(
                f"{path} merges {left + right!r} in another order than tiktoken would"
            )


def merged(word: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """A word's bytes, merged lowest rank first as long as there is a rank lower than `below`."""
    parts = [word[place : place + 1] for place in range(len(word))]
    while len(parts) > 2:
        rank, place = min(
            (ranks.get(a + b, below), place) for place, (a, b) in enumerate(pairwise(parts))
        )
        if rank >= below:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _bytes_by_id(vocabulary: dict[bytes, int], special_tokens: Mapping[str, int]) -> list[bytes]:
    """The bytes of each id; an id that nothing has stands for none."""
    by_id = {token: data for data, token in vocabulary.items()}
    by_id |= {token: name.encode("utf-8") for name, token in special_tokens.items()}
    return [by_id.get(token, b"") for token in range(max(by_id) + 1)]
