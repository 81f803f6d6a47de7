"""Loads a tokenizer by its name, its folder or its file."""

import logging
from pathlib import Path

from groundup.errors import ForeignTokenizerError, SlowTokenizerError, TokenizerError
from groundup.files import expanded, read_json
from groundup.tokenizers.base import (
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    Tokenizer,
    read_contents,
)
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.foreign import ForeignTokenizer
from groundup.tokenizers.gpt2 import gpt2_tokenizer, tokenizer_of_files

OLDER_FILES = ("vocab.json", "merges.txt")  # of GPT-2's words, where there is no tokenizer.json

logger = logging.getLogger(__name__)


def load_tokenizer(name: str | Path) -> Tokenizer:
    """Load a tokenizer by its name, its folder or its file.

    Where tiktoken can't give the same ids, the slower library `tokenizers` encodes the text, and a
    warning says so.

    Args:
        name: `gpt2`, a folder that holds a `tokenizer.json`, or such a file, or a folder with the
            `vocab.json` and `merges.txt` of a GPT-2. A folder that is called gpt2 is given as
            `./gpt2`.

    Raises:
        TokenizerError: The name leads to no tokenizer of characters and to no byte-level BPE.
        CorpusError: GPT-2's files can't be had.
    """
    if name == "gpt2":
        return gpt2_tokenizer()
    path = expanded(name)
    vocabulary, merges = (path / name for name in OLDER_FILES)
    try:
        file = path / TOKENIZER_FILE if path.is_dir() else path
        is_there = file.is_file()
        has_older = not is_there and vocabulary.is_file() and merges.is_file()
    except OSError:  # no file can have so long a name
        file, is_there, has_older = path, False, False
    if has_older:
        return tokenizer_of_files(vocabulary, merges, str(path))
    if not is_there:
        kinds = f"gpt2 nor a folder with a {TOKENIZER_FILE} nor such a file"
        raise TokenizerError(f"tokenizer {name} is neither {kinds}")
    contents = read_contents(file)
    if contents["model"].get("type") == "WordLevel":
        return CharacterTokenizer.from_contents(contents, file)
    try:
        loaded = BytePairTokenizer(contents, file)
    except SlowTokenizerError as error:
        logger.warning("%s: `tokenizers` encodes, more slowly", error)
        loaded = ForeignTokenizer(contents, file)
    except ForeignTokenizerError as error:
        reads = "groundup reads byte-level BPE and its own tokenizers of characters"
        raise ForeignTokenizerError(f"{error}. {reads}") from error
    if loaded.end_of_text is None:
        loaded.end_of_text = loaded.special_tokens.get(_stated_end(file.parent))
    return loaded


def _stated_end(folder: Path) -> str:
    """The name of the token that ends texts, as `tokenizer_config.json` states it; or nothing."""
    try:
        stated = read_json(folder / TOKENIZER_CONFIG_FILE)["eos_token"]
        name = stated["content"] if isinstance(stated, dict) else stated
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return name if isinstance(name, str) else ""
