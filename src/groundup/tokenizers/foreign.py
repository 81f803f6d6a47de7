"""Byte-level BPE for which tiktoken would give other ids: the slower `tokenizers` encodes texts."""

import json
from pathlib import Path

import numpy as np

import tokenizers
from groundup.errors import TokenizerError
from groundup.tokenizers.base import Contents, check_text
from groundup.tokenizers.bytepair import ByteLevelTokenizer, parse
from groundup.tokenizers.word_patterns import SHOWN, check_stretches, explained, unknown_patterns

AHEAD = 200  # characters after a word that its pattern may look at


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
        self._path, self._shown = path, SHOWN if unknown_patterns(contents, path) else None
        # post-processing changes no id, but where tokens are said to begin
        with explained(f"{path} is not a tokenizer file"):
            text = json.dumps(contents | {"post_processor": None})
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        self._tokenizer.model.dropout = None  # it is for learning, and would make ids random
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
        check_stretches(text)
        ids: list[int] = []
        begin = 0
        while begin < len(text):
            piece = text[begin : begin + self._shown] if self._shown else text
            with explained("`tokenizers` can't encode this text"):
                found = self._tokenizer.encode(piece, add_special_tokens=False)
            is_last = begin + len(piece) == len(text)
            tokens, end = (len(found.ids), len(piece)) if is_last else self._last_word(found)
            ids += found.ids[:tokens]
            begin += end
        return np.array(ids, dtype=np.int64)

    def _last_word(self, found: tokenizers.Encoding) -> tuple[int, int]:
        """The last place between words of a piece that is far enough from its end to be certain.

        Returns:
            The number of tokens and of characters before that place.

        Raises:
            TokenizerError: There is none.
        """
        words, begins = found.word_ids, [begin for begin, _ in found.offsets]
        for place in range(len(words) - 1, 0, -1):
            if words[place] != words[place - 1] and 0 < begins[place] <= SHOWN - AHEAD:
                return place, begins[place]
        raise TokenizerError(
            f"this text has a word of more than {SHOWN - AHEAD:,} characters by the pattern of "
            f"{self._path}, which groundup doesn't know and shows no more than that"
        )
