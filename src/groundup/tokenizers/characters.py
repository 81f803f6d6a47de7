"""The tokenizer of characters: each character is a token, and transformers reads the files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from groundup.errors import ForeignTokenizerError, TokenizerError
from groundup.tokenizers import base


class CharacterTokenizer:
    """A tokenizer of characters, which are numbered from 0 in the order of their code points."""

    special_tokens: Mapping[str, int] = MappingProxyType({})
    end_of_text: int | None = None

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        self._code_points = np.array(list(map(ord, self.characters)), dtype=np.uint32)

    @property
    def identity(self) -> object:
        """What decides the ids: the characters."""
        return self.characters

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Encode a text, each character as a token.

        Returns:
            [len(text)] int64.

        Raises:
            TokenizerError: The vocabulary lacks a character.
        """
        data = text.encode("utf-32-le", errors="surrogatepass")
        code_points = np.frombuffer(data, dtype=np.uint32)
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
        """Decode ids, each to a character.

        Raises:
            TokenizerError: An id is out of range.
        """
        return "".join(self.characters[token] for token in base.check_ids(ids, self.vocab_size))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes in UTF-8 of the characters that ids stand for.

        Raises:
            TokenizerError: An id is out of range.
        """
        return self.decode(ids).encode("utf-8", errors="surrogatepass")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers loads.

        Raises:
            OSError: A file can't be written.
        """
        every = {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated"}
        vocabulary = {character: token for token, character in enumerate(self.characters)}
        # <unk> is required by the format; it has no id, so an unknown character raises
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
        contents = base.make_contents(model, every | {"invert": False}, {"type": "Fuse"}, [])
        base.write_files(folder, contents, {})

    @classmethod
    def from_folder(cls, folder: Path) -> "CharacterTokenizer":
        """Read the tokenizer that `save` wrote into a folder.

        Raises:
            TokenizerError: The folder has no tokenizer of characters.
        """
        path = folder / base.TOKENIZER_FILE
        return cls.from_contents(base.read_contents(path), path)

    @classmethod
    def from_contents(cls, contents: base.Contents, path: Path) -> "CharacterTokenizer":
        """Make the tokenizer from the contents of the file at `path`.

        Raises:
            ForeignTokenizerError: The contents are those of another kind of tokenizer.
        """
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
