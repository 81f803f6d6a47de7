"""What every tokenizer can do, and the files that it is saved in."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from groundup.errors import TokenizerError
from groundup.files import parse_json

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
END_OF_TEXT = "<|endoftext|>"

Contents = dict[str, Any]  # of tokenizer.json


class Tokenizer(Protocol):
    """Text to tokens and back. Text never becomes a special token: those are put between texts by
    their ids.
    """

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size), special tokens included."""
        ...

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """What has an id and is no text, `<|endoftext|>` for instance."""
        ...

    @property
    def identity(self) -> object:
        """What decides the ids: tokenizers whose identities are equal are the same."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """text -> ids: [tokens] int64. Raises TokenizerError for what has no token."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """ids -> text; bytes that aren't UTF-8 become U+FFFD. Raises TokenizerError for an id out
        of range.
        """
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """ids -> the bytes that they stand for: a token may end within a character."""
        ...

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer
        loads.
        """
        ...


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """SHA-256 of what decides the ids, in hexadecimal: equal for equal tokenizers, whoever computes
    it.
    """
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
    """A `tokenizer.json` whose model has a type and a vocabulary. Raises TokenizerError."""
    try:
        contents = parse_json(path.read_text("utf-8"))
        _type, _vocabulary = contents["model"].get("type"), contents["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(
            f"{path} is not a tokenizer file: {type(error).__name__}: {error}"
        ) from error
    return contents


def write_files(folder: Path, contents: Contents, special: Mapping[str, str]) -> None:
    """Both files. special: a role that transformers knows, `eos_token` for instance -> the
    token.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **special,
    }
    for name, value in ((TOKENIZER_FILE, contents), (TOKENIZER_CONFIG_FILE, config)):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")


def check_text(text: str) -> None:
    """Raises TokenizerError for a lone surrogate, which UTF-8 doesn't have."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {text[error.start]!r} at position {error.start} is half of a pair (a lone "
            "surrogate), which no text in UTF-8 can hold. Most likely bytes that aren't UTF-8 "
            "were read with errors='surrogateescape'"
        ) from None


def check_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """The ids as numbers. Raises TokenizerError for one outside the vocabulary."""
    numbers = list(map(int, ids))
    for position, token in enumerate(numbers):
        if not 0 <= token < vocab_size:
            raise TokenizerError(
                f"token {token} at position {position} is outside [0, {vocab_size})"
            )
    return numbers
