"""Byte-level BPE tokenizers that are read from a `tokenizer.json`.

tiktoken encodes the text where that gives the same ids.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken

from groundup.errors import ForeignTokenizerError, SlowTokenizerError, TokenizerError
from groundup.tokenizers import base
from groundup.tokenizers.base import END_OF_TEXT, Contents
from groundup.tokenizers.word_patterns import KNOWN, check_stretches, explained, steps_of

# GPT-2's words: contractions, then letters, numbers or signs with at most one space before them,
# then white space. The possessive form (++) finds the same and can't run out of stack on a long run
# of one kind.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

OTHER_MERGING = ("ignore_merges", "byte_fallback", "unk_token")
COMPARED = 1_000_000  # pairs of bytes, besides 100 for each merge: GPT-2's merges have 50 each
OTHER_MARKS = ("continuing_subword_prefix", "end_of_word_suffix")

Merge = tuple[bytes, bytes]
# tokens and their ids; the merges in their order; the special tokens' ids
Learned = tuple[dict[bytes, int], list[Merge], dict[str, int]]


class ByteLevelTokenizer:
    """What tokenizers of bytes share, namely how ids are decoded and how the files are written.

    Args:
        contents: What `tokenizer.json` says.
        special_tokens: The names and ids of the special tokens.
        by_id: The bytes of each id. An id that no token has stands for no bytes.
    """

    def __init__(
        self, contents: Contents, special_tokens: Mapping[str, int], by_id: dict[int, bytes]
    ) -> None:
        self.contents, self.special_tokens = contents, special_tokens
        self.end_of_text = special_tokens.get(END_OF_TEXT)
        self._by_id, self.vocab_size = by_id, max(by_id) + 1

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that ids stand for, which for a special token are those of its name.

        Raises:
            TokenizerError: An id is out of range.
        """
        return b"".join(
            [self._by_id.get(token, b"") for token in base.check_ids(ids, self.vocab_size)]
        )

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to a text.

        Bytes that aren't UTF-8, such as half a character, become U+FFFD.

        Raises:
            TokenizerError: An id is out of range.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers loads.

        Raises:
            OSError: A file can't be written.
        """
        names = [name for name, at in self.special_tokens.items() if at == self.end_of_text]
        # CTranslate2 loads no GPT-2 without an unk_token; no text becomes it
        of_gpt2 = ("bos_token", "eos_token", "unk_token")
        roles = of_gpt2 if END_OF_TEXT in names else ("eos_token",)
        base.write_files(folder, self.contents, dict.fromkeys(roles, names[0]) if names else {})


class BytePairTokenizer(ByteLevelTokenizer):
    """A tokenizer that merges bytes pair by pair, in the order in which the pairs were learned.

    The source is Sennrich et al. (2016).

    Args:
        contents: What a `tokenizer.json` says.
        path: Where the contents came from, for messages.

    Raises:
        TokenizerError: The contents are damaged.
        ForeignTokenizerError: The contents aren't byte-level BPE.
        SlowTokenizerError: tiktoken can't give the same ids.
    """

    def __init__(self, contents: Contents, path: Path | str) -> None:
        vocabulary, merges, special = parse(contents, path)
        pattern, self.normal_form = pattern_of(contents, path)
        learned = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
        if missing := [token for token in learned if token not in vocabulary]:
            lacks = f"no token for {missing[0]!r}, which texts need"
            raise ForeignTokenizerError(f"{path} has {lacks}: it can't be used")
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
            does = "cuts words in a way that tiktoken refuses"
            raise SlowTokenizerError(f"{path} {does}: {_line_of(error)}") from error
        by_id = {token: data for data, token in vocabulary.items()}
        by_id |= {token: name.encode("utf-8") for name, token in special.items()}
        super().__init__(contents, special, by_id)
        self.identity = (vocabulary, merges, special, pattern, self.normal_form)
        # by tiktoken's rank
        self._ids = np.array([vocabulary[token] for token in ranks], dtype=np.int64)
        self._in_order = bool((self._ids == np.arange(len(ranks))).all())

    def encode(self, text: str) -> np.ndarray:
        """Encode a text, in which `<|endoftext|>` is text like any other.

        Returns:
            [tokens] int64.

        Raises:
            TokenizerError: The text has a lone surrogate, or a sequence of like characters that is
                too long to be cut into words.
        """
        base.check_text(text)
        check_stretches(text)
        if self.normal_form:
            text = unicodedata.normalize("NFC", text)
        with explained("a stretch of this text is too long to be cut into words"):
            ranks = self._encoding.encode_to_numpy(text, disallowed_special=())
        return ranks.astype(np.int64) if self._in_order else self._ids[ranks]


def contents_of(
    vocabulary: dict[str, int], merges: list[list[str]], special_tokens: dict[str, int]
) -> Contents:
    """Return the contents of a `tokenizer.json` for a tokenizer like GPT-2's.

    Args:
        vocabulary: The tokens and their ids. Bytes are written as `byte_letters` writes them.
        merges: The pairs in the order in which they were learned, written in the same way.
        special_tokens: The names and ids of the special tokens.
    """
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    letters = {"type": "ByteLevel", **byte_level}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    names = special_tokens.items()
    added = [{"id": token, "content": name, **flags, "special": True} for name, token in names]
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return base.make_contents(model, letters, letters, added)


@cache
def byte_letters() -> tuple[dict[int, str], dict[str, int]]:
    """Return each byte's letter in a `tokenizer.json`, and each letter's byte.

    A byte that can be seen is its own letter. Each other byte gets the next letter from U+0100 on.
    """
    ends = ("!~", "¡¬", "®ÿ")
    seen = [byte for first, last in ends for byte in range(ord(first), ord(last) + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    letters = {byte: chr(byte) for byte in seen}
    letters |= {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return letters, {letter: byte for byte, letter in letters.items()}


def to_letters(token: bytes) -> str:
    """Write a token as a `tokenizer.json` does."""
    letters = byte_letters()[0]
    return "".join(letters[byte] for byte in token)


def to_bytes(letters: str) -> bytes:
    """Read a token as a `tokenizer.json` writes it.

    Raises:
        KeyError: A letter stands for no byte.
    """
    known = byte_letters()[1]
    return bytes([known[letter] for letter in letters])


def is_byte_level(contents: Contents) -> bool:
    """Tell whether the contents of a `tokenizer.json` are those of byte-level BPE."""
    parts = [contents.get("pre_tokenizer"), contents.get("decoder")]
    kinds = [step.get("type") for part in parts for step in steps_of(part)]
    return contents["model"].get("type") == "BPE" and "ByteLevel" in kinds


def parse(contents: Contents, path: Path | str) -> Learned:
    """Return the vocabulary, the merges and the special tokens of a `tokenizer.json`.

    Args:
        contents: What the file says.
        path: Where the contents came from, for messages.

    Returns:
        Tokens and their ids; the merges in their order; the special tokens' ids.

    Raises:
        ForeignTokenizerError: The contents aren't byte-level BPE.
        TokenizerError: The contents can't be understood.
    """
    if not is_byte_level(contents):
        kind = contents["model"].get("type")
        raise ForeignTokenizerError(f"{path} is a {kind} tokenizer, not byte-level BPE")
    try:
        special = special_tokens_of(contents)
        added = {token["content"] for token in contents.get("added_tokens") or ()}
        vocabulary = contents["model"]["vocab"]
        outside = [number for name, number in special.items() if name not in vocabulary]
        check_numbers([*vocabulary.values(), *outside])
        listed = contents["model"]["merges"]
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in listed)
        merges = [(to_bytes(left), to_bytes(right)) for left, right in pairs]
        learned = {to_bytes(name): id_ for name, id_ in vocabulary.items() if name not in added}
        return learned, merges, special
    except ForeignTokenizerError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(f"{path} is a damaged tokenizer: {_line_of(error)}") from error


def special_tokens_of(contents: Contents) -> dict[str, int]:
    """Return the names and ids of the special tokens of a `tokenizer.json`.

    Raises:
        UnicodeEncodeError: A name has a lone surrogate.
    """
    added = contents.get("added_tokens") or ()
    special = {token["content"]: token["id"] for token in added if token.get("special")}
    "".join(special).encode("utf-8")  # half a surrogate pair can be written in JSON, but is no name
    return special


def check_numbers(ids: list[int]) -> None:
    """Check that ids are whole numbers from 0, each once, and that few are left out.

    Raises:
        ValueError: An id isn't a whole number from 0 or stands twice, or too many are left out.
    """
    for number in ids:
        if type(number) is not int or not 0 <= number < 2 * len(ids) + 1000:
            raise ValueError(f"{number!r} is no id of one of {len(ids):,} tokens")
    if len(set(ids)) < len(ids):
        raise ValueError("two tokens have one id")


def _line_of(error: Exception) -> str:
    """An error's first line, after its kind."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def pattern_of(contents: Contents, path: Path | str) -> tuple[str, bool]:
    """Find the pattern by which a `tokenizer.json` cuts a text into words.

    Args:
        contents: What the file says.
        path: Where the contents came from, for messages.

    Returns:
        The pattern of a word, and whether a text is brought into Unicode's form NFC before it is
        cut.

    Raises:
        SlowTokenizerError: The contents ask for what tiktoken doesn't do.
    """
    model, normalizers = contents["model"], list(steps_of(contents.get("normalizer")))
    added = [token for token in contents.get("added_tokens") or () if not token.get("special")]
    splits = list(steps_of(contents.get("pre_tokenizer")))
    refused = [f"model.{key}" for key in OTHER_MERGING if model.get(key)]
    refused += [f"the token {token['content']!r} wherever a text has it" for token in added[:1]]
    refused += [f"model.{key}" for key in OTHER_MARKS if model.get(key)]
    refused += [f"normalizer {step.get('type')}" for step in normalizers if step != {"type": "NFC"}]
    spaced = [step for step in splits if step.get("add_prefix_space")]
    refused += [f"{step.get('type')}.add_prefix_space" for step in spaced]
    *before, last = splits or [{}]
    is_byte_level, cuts_words = last.get("type") == "ByteLevel", last.get("use_regex", True)
    pattern, unknown = "", splits
    if is_byte_level and cuts_words and not before:
        pattern = GPT2_PATTERN
    elif is_byte_level and not cuts_words and len(before) == 1:
        pattern, unknown = _split_pattern(before[0]), before
    if not pattern:
        refused.append(f"pre_tokenizer {', '.join(str(step.get('type')) for step in unknown)}")
    if refused:
        wants = " and ".join(refused)
        raise SlowTokenizerError(f"{path} asks for {wants}, which tiktoken doesn't do")
    return pattern, bool(normalizers)


def _split_pattern(split: dict[str, Any]) -> str:
    """The words of a `Split`, matches and what lies between; empty if the pattern isn't known."""
    pattern = split.get("pattern")
    pattern = pattern.get("Regex") if isinstance(pattern, dict) else None
    kind = split.get("type"), split.get("behavior"), bool(split.get("invert"))
    is_usable = kind == ("Split", "Isolated", False) and isinstance(pattern, str)
    return pattern if is_usable and pattern in KNOWN else ""


def check_merges(merges: list[Merge], ranks: dict[bytes, int], path: Path | str) -> None:
    """Check that tiktoken would apply the same merges as a `tokenizer.json` lists.

    tiktoken doesn't read the list of merges: it joins any two neighbouring tokens whose bytes
    together are a token. The result is the same if each token can be made in one way only. So for
    each merge the bytes of the new token are joined by the earlier merges alone, and exactly the
    listed pair must be left.

    Args:
        merges: The pairs in the order in which they were learned.
        ranks: The rank of each token: first the 256 bytes, then the merged tokens in that order.
        path: Where the merges came from, for messages.

    Raises:
        SlowTokenizerError: tiktoken would apply other merges, or the tokens are so long that this
            can't be found out in time.
    """
    if len(ranks) < 256 + len(merges):
        raise SlowTokenizerError(f"{path} lists two merges for one token")
    if sum(len(left + right) ** 2 for left, right in merges) > COMPARED + 100 * len(merges):
        raise SlowTokenizerError(f"{path} merges tokens that are too long to be compared")
    for left, right in merges:
        if merged(left + right, ranks, ranks[left + right]) != [left, right]:
            order = "in another order than tiktoken would"
            raise SlowTokenizerError(f"{path} merges {left + right!r} {order}")


def merged(word: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """Merge the bytes of a word pair by pair, in the order of the ranks of the merged tokens.

    Merging ends when two parts are left, or no merged token would have a rank lower than `below`.
    """
    parts = [word[place : place + 1] for place in range(len(word))]
    while len(parts) > 2:
        pairs = enumerate(pairwise(parts))
        rank, place = min((ranks.get(a + b, below), place) for place, (a, b) in pairs)
        if rank >= below:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
