"""Byte-level BPE that tiktoken can't do alike: Hugging Face's own `tokenizers` encodes it, more
slowly.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

import tokenizers
from groundup.errors import TokenizerError
from groundup.tokenizers.base import Contents, check_ids, check_text, write_files
from groundup.tokenizers.bytepair import parse, special_roles


class ForeignTokenizer:
    """A `tokenizer.json` as `tokenizers` runs it; text never becomes a special token here either.

    Raises TokenizerError for contents that `tokenizers` refuses.
    """

    special_tokens: Mapping[str, int]

    def __init__(self, contents: Contents, path: Path | str) -> None:
        vocabulary, _, self.special_tokens = parse(contents, path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(contents))
        except Exception as error:  # tokenizers raises nothing more precise
            raise TokenizerError(
                f"{path} is not a tokenizer file: {str(error).splitlines()[0]}"
            ) from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.contents = self.identity = contents
        self._bytes = {number: token for token, number in vocabulary.items()}
        self._bytes |= {
            token["id"]: token["content"].encode("utf-8")
            for token in contents.get("added_tokens") or ()
        }

    @property
    def vocab_size(self) -> int:
        return max(self._bytes) + 1

    def encode(self, text: str) -> np.ndarray:
        """text -> ids: [tokens] int64. Raises TokenizerError for a lone surrogate."""
        check_text(text)
        try:
            return np.array(
                self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64
            )
        except Exception as error:  # tokenizers raises nothing more precise
            raise TokenizerError(f"`tokenizers` can't encode this text: {error}") from error

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """ids -> the bytes that they stand for; a special token gives its name."""
        return b"".join(self._bytes.get(token, b"") for token in check_ids(ids, self.vocab_size))

    def decode(self, ids: Iterable[int]) -> str:
        """ids -> text; bytes that aren't UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer
        loads.
        """
        write_files(folder, self.contents, special_roles(self.special_tokens))
