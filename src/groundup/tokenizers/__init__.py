"""Text to tokens and back: `from groundup.tokenizers import load_tokenizer`."""

from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer

__all__ = ["BytePairTokenizer", "CharacterTokenizer", "Tokenizer", "load_tokenizer"]
