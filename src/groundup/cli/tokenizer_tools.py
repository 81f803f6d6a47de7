"""`groundup tokenizer`: learn one, look at what it does to a text, and compare several."""

import sys
import time
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundup.console import report
from groundup.data.corpora import load_corpus
from groundup.errors import TokenizerError
from groundup.tokenizers.base import TOKENIZER_FILE, Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer
from groundup.tokenizers.train import learn_tokenizer

COLOURS = (
    "black on bright_yellow",
    "black on bright_cyan",
    "black on bright_green",
    "black on bright_magenta",
)


def learn(corpus: str, vocab_size: int, out: Path) -> None:
    """Learn a tokenizer from a corpus and save it in a new folder. Raises GroundupError."""
    if (out / TOKENIZER_FILE).exists():
        raise TokenizerError(
            f"{out / TOKENIZER_FILE} already exists: give another --out, or delete it"
        )
    text = load_corpus(corpus).text
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
    size = len(text.encode("utf-8")) / len(tokenizer.encode(text))
    sys.stdout.write(
        f"{tokenizer.vocab_size:,} tokens in {seconds:.1f} s, {size:.2f} bytes each of what they "
        f"were learned from\nsaved in {out}. Use it: groundup train --corpus {corpus} "
        f"--data.tokenizer {out}\n"
    )


def show(text: str, name: str) -> None:
    """Print a text in pieces, a colour each, and their ids. Raises GroundupError."""
    tokenizer = load_tokenizer(name, report)
    ids = tokenizer.encode(text)
    console, pieces = Console(highlight=False, soft_wrap=True), Text()
    for place, token in enumerate(ids):
        pieces.append(visible(tokenizer, int(token)), style=COLOURS[place % len(COLOURS)])
        if not console.is_terminal and place + 1 < len(ids):
            pieces.append("|")
    console.print(pieces)
    console.print(" ".join(map(str, ids)))
    size = len(text.encode("utf-8"))
    console.print(f"{len(ids):,} tokens, {len(text):,} characters, {size:,} bytes")


def visible(tokenizer: Tokenizer, token: int) -> str:
    """A token's text, with what can't be seen, or is only a part of a character, written out."""
    try:
        text = tokenizer.decode_bytes([token]).decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<{byte:02x}>" for byte in tokenizer.decode_bytes([token]))
    text = text.replace("\n", "⏎\n").replace("\t", "⇥")
    return "".join(
        letter if letter.isprintable() or letter == "\n" else f"<{ord(letter):04X}>"
        for letter in text
    )


def compare(corpus: str, names: list[str]) -> None:
    """A table of bytes a token and speed, on a corpus. Raises GroundupError."""
    text = load_corpus(corpus).text
    size = len(text.encode("utf-8"))
    table = Table("tokenizer", box=SIMPLE, title=f"{corpus}, {size:,} bytes", title_justify="left")
    for column in ("vocabulary", "tokens", "bytes a token", "MB/s"):
        table.add_column(column, justify="right")
    for name in names:
        tokenizer = (
            CharacterTokenizer(text) if name == "characters" else load_tokenizer(name, report)
        )
        started = time.perf_counter()
        tokens = len(tokenizer.encode(text))
        speed = size / 1e6 / (time.perf_counter() - started)
        table.add_row(
            name, f"{tokenizer.vocab_size:,}", f"{tokens:,}", f"{size / tokens:.3f}", f"{speed:.1f}"
        )
    Console(highlight=False).print(table)
