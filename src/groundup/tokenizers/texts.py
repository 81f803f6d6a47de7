"""What tokens look like where they stand alone."""

from functools import lru_cache

from groundup.tokenizers.base import Tokenizer


class TokenTexts:
    """What the tokens of a tokenizer look like where they stand alone.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.special = frozenset(tokenizer.special_tokens.values())
        self.bytes = lru_cache(maxsize=100_000)(self._bytes)

    def _bytes(self, token: int) -> bytes:
        return self.tokenizer.decode_bytes([token])

    def name(self, token: int) -> str:
        """Return the text of a token; bytes that are no text are spelled out."""
        found = self.bytes(token)
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in found)
