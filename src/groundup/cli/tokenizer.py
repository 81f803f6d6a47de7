"""`groundup tokenizer`: learn one, look at what one does to a text, and compare several."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from groundup.cli.flags import shorter_context
from groundup.console import plain_console
from groundup.errors import TokenizerError

if TYPE_CHECKING:
    from groundup.tokenizers.base import Tokenizer

COLOURS = ("bright_yellow", "bright_cyan", "bright_green", "bright_magenta")

ABOUT = "Learn a tokenizer, look at what one does to a text, or compare several."
tokenizers = App(name="tokenizer", help=ABOUT)


@tokenizers.command(name="train")
def train_tokenizer(
    corpus: str, /, *, out: Path, vocab_size: int = 4096, column: str = "text"
) -> None:
    """Learn byte-level BPE from a text, as GPT-2's tokenizer was learned.

    Args:
        corpus: python-docs, shakespeare, or a file or folder of text.
        out: The folder to save it in; transformers' AutoTokenizer loads it too.
        vocab_size: Tokens, <|endoftext|> included.
        column: Where JSON, CSV, parquet and Arrow files have their text.
    """
    from groundup.data.corpora import load_corpus
    from groundup.tokenizers.base import TOKENIZER_FILE
    from groundup.tokenizers.train import learn_tokenizer

    if (file := out / TOKENIZER_FILE).exists():
        raise TokenizerError(f"{file} already exists: give another --out, or delete it")
    text = load_corpus(corpus, column=column).text
    started = time.perf_counter()
    tokenizer = learn_tokenizer([text], vocab_size)
    seconds = time.perf_counter() - started
    try:
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save(out)
    except OSError as error:
        raise TokenizerError(f"{out} can't be written: {error.strerror}") from error
    if tokenizer.vocab_size < vocab_size:
        sys.stderr.write(f"{corpus} has no more pairs to learn: {tokenizer.vocab_size:,} tokens\n")
    ids = tokenizer.encode(text)
    size = len(text.encode("utf-8")) / len(ids)
    sys.stdout.write(
        f"{tokenizer.vocab_size:,} tokens in {seconds:.1f} s, {size:.2f} bytes each of what they "
        f"were learned from\nsaved in {out}. {_use(corpus, column, out, len(ids))}\n"
    )


def _use(corpus: str, column: str, out: Path, tokens: int) -> str:
    """How to train on the text with the tokenizer, in so many tokens."""
    words = ["groundup", "train", "--corpus", corpus, "--data.tokenizer", str(out)]
    if column != "text":
        words += ["--data.column", column]
    shorter = shorter_context(int(0.9 * tokens), tokens - int(0.9 * tokens))
    if shorter is None:
        return f"Its {tokens:,} tokens are too few to train on: give more text"
    return f"Use it: {shlex.join(words + shorter)}"


@tokenizers.command(name="show")
def show_tokens(text: str, /, *, tokenizer: str = "gpt2") -> None:
    """Show a text's tokens in colours, with their ids.

    Args:
        text: The text to cut into tokens.
        tokenizer: gpt2, or a folder with a tokenizer.json.
    """
    from groundup.tokenizers.load import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    ids = loaded.encode(text)
    console, pieces = plain_console(soft_wrap=True), Text()
    for place, token in enumerate(ids):
        colour = COLOURS[place % len(COLOURS)]
        pieces.append(visible(loaded, int(token)), style=f"black on {colour}")
        if not console.is_terminal and place + 1 < len(ids):
            pieces.append("|")
    console.print(pieces)
    console.print(" ".join(map(str, ids)))
    size = len(text.encode("utf-8"))
    console.print(f"{len(ids):,} tokens, {len(text):,} characters, {size:,} bytes")


def visible(tokenizer: "Tokenizer", token: int) -> str:
    """Give a token's text, with what can't be seen and parts of characters written out."""
    data = tokenizer.decode_bytes([token])
    try:
        text = data.decode("utf-8").replace("\n", "⏎\n").replace("\t", "⇥")
    except UnicodeDecodeError:
        return "".join(f"<{byte:02x}>" for byte in data)
    seen = {letter for letter in text if letter.isprintable() or letter == "\n"}
    return "".join(letter if letter in seen else f"<{ord(letter):04X}>" for letter in text)


@tokenizers.command(name="compare")
def compare_tokenizers(*names: str, corpus: str = "python-docs", column: str = "text") -> None:
    """Compare bytes a token and speed on a text.

    Args:
        names: characters, gpt2, or folders with a tokenizer.json.
        corpus: python-docs, shakespeare, or a file or folder of text.
        column: Where JSON, CSV, parquet and Arrow files have their text.
    """
    from groundup.data.corpora import load_corpus
    from groundup.tokenizers.characters import CharacterTokenizer
    from groundup.tokenizers.load import load_tokenizer

    text = load_corpus(corpus, column=column).text
    size = len(text.encode("utf-8"))
    table = Table("tokenizer", box=SIMPLE, title=f"{corpus}, {size:,} bytes", title_justify="left")
    for heading in ("vocabulary", "tokens", "bytes a token", "MB/s"):
        table.add_column(heading, justify="right")
    for name in names or ("characters", "gpt2"):
        tokenizer = CharacterTokenizer(text) if name == "characters" else load_tokenizer(name)
        started = time.perf_counter()
        tokens = len(tokenizer.encode(text))
        speed = size / 1e6 / (time.perf_counter() - started)
        counts = f"{tokenizer.vocab_size:,}", f"{tokens:,}"
        table.add_row(name, *counts, f"{size / tokens:.3f}", f"{speed:.1f}")
    plain_console().print(table)
