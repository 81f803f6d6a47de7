"""Byte-level BPE for which tiktoken would give other ids: the slower `tokenizers` encodes texts."""

import json
from pathlib import Path

import numpy as np

import tokenizers
from groundup.errors import TokenizerError
from groundup.tokenizers.base import Contents, check_text
from groundup.tokenizers.bytepair import ByteLevelTokenizer, parse


class ForeignTokenizer(ByteLevelTokenizer):
    """A tokenizer that the library `tokenizers` runs; no text becomes a special token.

    Args:
        contents: What a `tokenizer.json` says.
        path: Where the contents came from, for messages.

    Raises:
        TokenizerError: `tokenizers` refuses the contents.
    """

    def __init__(self, contents: Contents, path: Path | str) -> None:
        vocabulary, _, special = parse(contents, path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(contents))
        except Exception as error:  # tokenizers raises nothing more precise
            what = str(error).splitlines()[0]
            raise TokenizerError(f"{path} is not a tokenizer file: {what}") from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        by_id = {number: token for token, number in vocabulary.items()}
        for token in contents.get("added_tokens") or ():
            by_id[token["id"]] = token["content"].encode("utf-8")
        super().__init__(contents, special, by_id)
        self.identity = contents

    def encode(self, text: str) -> np.ndarray:
        """Encode a text.

        Returns:
            [tokens] int64.

        Raises:
            TokenizerError: The text has a lone surrogate, or `tokenizers` refuses it.
        """
        check_text(text)
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # tokenizers raises nothing more precise
            raise TokenizerError(f"`tokenizers` can't encode this text: {error}") from error
        return np.array(encoding.ids, dtype=np.int64)
