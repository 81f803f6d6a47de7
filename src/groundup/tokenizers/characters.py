"""The character tokenizer: every distinct character of a text is a token, saved so that
transformers reads it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from groundup.errors import ForeignTokenizerError, TokenizerError
from groundup.tokenizers.base import TOKENIZER_FILE, Contents, check_ids, read_contents, write_files


class CharacterTokenizer:
    """Characters in the order of their code points; the id is the place in that order.

    Raises TokenizerError for a character or an id that the vocabulary lacks.
    """

    special_tokens: Mapping[str, int] = MappingProxyType({})

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        self._code_points = np.array(
            [ord(character) for character in self.characters], dtype=np.uint32
        )

    @property
    def identity(self) -> object:
        """The characters: two tokenizers of the same ones are the same."""
        return self.characters

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """text -> ids, a character each: [len(text)] int64."""
        code_points = np.frombuffer(
            text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32
        )
        ids = np.searchsorted(self._code_points, code_points).clip(max=self.vocab_size - 1)
        unknown = np.flatnonzero(self._code_points[ids] != code_points)
        if unknown.size:
            position = int(unknown[0])
            raise TokenizerError(
                f"character {text[position]!r} (U+{ord(text[position]):04X}) at position "
                f"{position} is not among the {self.vocab_size} characters that the tokenizer "
                f"knows: {self._known()}"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """ids -> text, a character each."""
        return "".join(self.characters[token] for token in check_ids(ids, self.vocab_size))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """ids -> the UTF-8 bytes of their characters."""
        return self.decode(ids).encode("utf-8", errors="surrogatepass")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer
        loads.
        """
        pipeline = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "[\\s\\S]"},
                "behavior": "Isolated",
                "invert": False,
            },
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {
                "type": "WordLevel",
                "vocab": {character: token for token, character in enumerate(self.characters)},
                # required by the format; not in the vocabulary, so an unknown character raises
                "unk_token": "<unk>",
            },
        }
        write_files(folder, pipeline, {})

    @classmethod
    def from_folder(cls, folder: Path) -> "CharacterTokenizer":
        """Read what `save` wrote. Raises TokenizerError for any other tokenizer."""
        path = folder / TOKENIZER_FILE
        return cls.from_contents(read_contents(path), path)

    @classmethod
    def from_contents(cls, contents: Contents, path: Path) -> "CharacterTokenizer":
        """The same, read from `path` already."""
        kind, vocabulary = contents["model"].get("type"), contents["model"]["vocab"]
        entries = vocabulary if isinstance(vocabulary, dict) else {}  # a Unigram model has a list
        tokenizer = cls(character for character in entries if len(character) == 1)
        ids = dict(zip(tokenizer.characters, range(tokenizer.vocab_size), strict=True))
        if kind != "WordLevel" or vocabulary != ids:
            raise ForeignTokenizerError(
                f"{path} is a {kind} tokenizer, not a character tokenizer of groundup: "
                "a WordLevel model with one entry a character, in the order of their code points"
            )
        return tokenizer

    def _known(self, most: int = 100) -> str:
        """The vocabulary for an error message, cut if it is long."""
        return repr("".join(self.characters[:most])) + (" ..." if self.vocab_size > most else "")
