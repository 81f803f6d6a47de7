"""What every tokenizer can do, and the files that a tokenizer is saved in."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from groundup.errors import TokenizerError
from groundup.files import read_json

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
END_OF_TEXT = "<|endoftext|>"

Contents = dict[str, Any]  # of tokenizer.json, or of a step in it


class Tokenizer(Protocol):
    """What turns text into tokens and tokens back into text.

    Text never becomes a special token. Special tokens are put between texts by their ids.
    """

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary: all ids, special tokens included, are in [0, vocab_size)."""
        ...

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The names and ids of the special tokens, such as `<|endoftext|>`."""
        ...

    @property
    def end_of_text(self) -> int | None:
        """The token that ends documents, if there is one: `<|endoftext|>`, else what is stated."""
        ...

    @property
    def identity(self) -> object:
        """What decides the ids: tokenizers whose identities are equal give equal ids."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Encode a text.

        Returns:
            [tokens] int64.

        Raises:
            TokenizerError: The text has what no token stands for.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to a text, in which bytes that aren't UTF-8 become U+FFFD.

        Raises:
            TokenizerError: An id is out of range.
        """
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that ids stand for, which may begin or end in the middle of a character.

        Raises:
            TokenizerError: An id is out of range.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers loads.

        Raises:
            OSError: A file can't be written.
        """
        ...


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of what decides a tokenizer's ids, which is the same on any machine."""
    canonical = json.dumps(_json_form(tokenizer.identity), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _json_form(value: object) -> object:
    """The value as JSON can write it: bytes by their code points, tuples as lists."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Mapping):
        return {_json_form(key): _json_form(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_form(entry) for entry in value]
    return value


def read_contents(path: Path) -> Contents:
    """Read a `tokenizer.json` whose model has a type and a vocabulary.

    Raises:
        TokenizerError: The file is something else.
    """
    try:
        contents = read_json(path)
        _type, _vocabulary = contents["model"].get("type"), contents["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise TokenizerError(f"{path} is not a tokenizer file: {what}") from error
    return contents


def make_contents(
    model: Contents, pre_tokenizer: Contents, decoder: Contents, added_tokens: list[Contents]
) -> Contents:
    """Put the steps of a tokenizer together as `tokenizer.json` has them."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def write_files(folder: Path, contents: Contents, special: Mapping[str, str]) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Args:
        folder: Where the files go.
        contents: What `tokenizer.json` says.
        special: Tokens by roles that transformers knows, `eos_token` for instance.

    Raises:
        OSError: A file can't be written.
    """
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, value in ((TOKENIZER_FILE, contents), (TOKENIZER_CONFIG_FILE, {**config, **special})):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")


def check_text(text: str) -> None:
    """Check that UTF-8 can hold a text.

    Raises:
        TokenizerError: The text has a lone surrogate.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {text[error.start]!r} at position {error.start} is half of a pair (a lone "
            "surrogate), which no text in UTF-8 can hold. Most likely bytes that aren't UTF-8 "
            "were read with errors='surrogateescape'"
        ) from None


def check_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Check ids, and return them as Python's integers.

    Raises:
        TokenizerError: An id is outside the vocabulary.
    """
    numbers = list(map(int, ids))
    for position, token in enumerate(numbers):
        if not 0 <= token < vocab_size:
            where = f"at position {position} is outside [0, {vocab_size})"
            raise TokenizerError(f"token {token} {where}")
    return numbers
