"""Reads documents: passages of text files, JSON lines or parquet rows, even if compressed."""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from groundup.data.corpora import load_corpus
from groundup.data.formats import COMPRESSED, not_utf8
from groundup.errors import CorpusError, MachineError
from groundup.prepare.hub_datasets import download
from groundup.prepare.inputs import LONGEST_LINE, PASSAGE, Part, cut_of
from groundup.prepare.parquet import read_rows

Read = Callable[[int], bytes]  # up to so many bytes, or a line of up to so many
BLOCK = 2**20
COMPRESSED_BLOCK = 2**12  # of which some make thousands of times as much


@dataclass(frozen=True)
class Document:
    """A text, and its origin: the name of a file and a position in the file."""

    text: str
    origin: str


@dataclass(frozen=True)
class Reading:
    """How documents are read.

    Args:
        column: The column of rows that holds the text.
        replace: Whether bytes that aren't UTF-8 become U+FFFD; otherwise they are an error.
        downloads: The folder for files that are downloaded from the hub.
    """

    column: str = "text"
    replace: bool = False
    downloads: Path = Path()


def read_documents(part: Part, reading: Reading) -> Iterator[Document]:
    """Read the documents of a part in order, without empty ones.

    Raises:
        CorpusError: A file has changed, is damaged, or isn't what its name says.
    """
    part.check_unchanged()
    for name in part.files:
        yield from (document for document in _documents_in(name, part, reading) if document.text)


def _documents_in(name: str, part: Part, reading: Reading) -> Iterator[Document]:
    if part.kind == "named":
        text = load_corpus(name).text.encode()
        yield from _passages(io.BytesIO(text).read, name, 0, reading)
    elif part.kind in ("parquet", "remote"):
        path, file = Path(name), _own_name(name)
        path = download(part.remote, reading.downloads) if part.remote else path
        rows = read_rows(path, reading.column, part.first, part.last, reading.replace)
        yield from (Document(text, f"{file}, row {row:,}") for row, text in rows)
    else:
        with opened(Path(name)) as file:
            if part.first:
                file.seek(part.first)
            cut, read = (_rows, file.readline) if part.kind == "rows" else (_passages, file.read)
            if part.last is not None:
                read = _limited(read, part.last - part.first)
            yield from cut(read, name, part.first, reading)


def _limited(read: Read, left: int) -> Read:
    """Read no more than what is left of a range."""

    def read_less(size: int) -> bytes:
        nonlocal left
        data = read(min(size, left))
        left -= len(data)
        return data

    return read_less


def _passages(read: Read, name: str, offset: int, reading: Reading) -> Iterator[Document]:
    """A text, cut at the first end of a paragraph after PASSAGE bytes.

    Where four times that has none, it is cut at the end of a line, of a word or of a character.
    """
    rest, file = b"", _own_name(name)
    while True:
        block = read(BLOCK)
        text, start = rest + block, 0
        while len(text) - start > 4 * PASSAGE or (not block and start < len(text)):
            piece = text[start : start + 4 * PASSAGE]
            piece = piece[: cut_of(piece, PASSAGE)] if len(piece) > PASSAGE else piece
            yield Document(_decoded(piece, name, offset, reading), f"{file}, byte {offset:,}")
            start, offset = start + len(piece), offset + len(piece)
        rest = text[start:]
        if not block:
            return


def _rows(read: Read, name: str, offset: int, reading: Reading) -> Iterator[Document]:
    """JSON lines: the text in the column of each."""
    file = _own_name(name)
    for line in iter(partial(read, LONGEST_LINE), b""):
        if len(line) == LONGEST_LINE:
            size = f"{LONGEST_LINE / 1e6:.0f} MB or more"
            raise CorpusError(f"{_line_at(name, offset)} has {size}: too long")
        if line.strip():
            yield Document(_text_of_row(line, name, offset, reading), f"{file}, byte {offset:,}")
        offset += len(line)


def _text_of_row(line: bytes, name: str, offset: int, reading: Reading) -> str:
    data, column = _decoded(line, name, offset, reading), reading.column
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{_line_at(name, offset)} is not JSON: {error}") from error
    text = row.get(column) if isinstance(row, dict) else None
    if isinstance(text, str):
        return text
    has = type(row).__name__
    if isinstance(row, dict):
        has = f"{column!r}: {text!r}"[:80] if column in row else ", ".join(row)[:200]
    has = f"no text under {column!r}, but {has or 'nothing'}"
    raise CorpusError(f"{_line_at(name, offset)} has {has}. Choose with --column")


def _own_name(path: str) -> str:
    """A file's name without its folders; what is no text in it becomes question marks.

    On Linux a name is any bytes, Latin-1 for instance.
    """
    return Path(path).name.encode("utf-8", errors="replace").decode("utf-8")


def _line_at(name: str, offset: int) -> str:
    """A file and the number of the line that begins at a byte of its text."""
    lines = 0
    with opened(Path(name)) as file:
        while offset > 0 and (block := file.read(min(BLOCK, offset))):
            lines, offset = lines + block.count(b"\n"), offset - len(block)
    return f"{name}, line {lines + 1:,}"


def _decoded(data: bytes, name: str, offset: int, reading: Reading) -> str:
    data = data if offset else data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8", errors="replace" if reading.replace else "strict")
    except UnicodeDecodeError as error:
        remedy = "Convert it, for example with: iconv -f LATIN1 -t UTF-8, or let U+FFFD stand for"
        remedy += " such bytes: --encoding-errors replace"
        raise not_utf8(name, error, remedy, offset) from error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading its bytes; those of a compressed file are decompressed.

    Yields:
        The open file.

    Raises:
        CorpusError: The file is damaged or can't be read.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if suffix not in COMPRESSED:
                yield file
            else:
                raw: Any = gzip.GzipFile(fileobj=file) if suffix == ".gz" else _Zstandard(file)
                yield io.BufferedReader(raw, BLOCK)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        remedy = "Download or compress it again"
        raise CorpusError(f"{path} is a damaged {suffix} file: {error}. {remedy}") from error
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror or error}") from error


class _Zstandard(io.RawIOBase):
    """A zstandard file's content; unlike the library's reader it says when the end is missing."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            import zstandard
        except ImportError as error:
            need = "reading .zst needs zstandard: pip install 'groundup[data]'"
            raise MachineError(need) from error
        self.file, self.error = file, zstandard.ZstdError
        # the window of `zstd --long=31` too
        self.begin = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj
        self.frame, self.ready = self.begin(), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            at_end, left = self.frame.eof, self.frame.unused_data if self.frame.eof else b""
            compressed = left or self.file.read(COMPRESSED_BLOCK)
            if not compressed:
                if at_end:
                    return 0
                raise EOFError("it ends in the middle of a frame")
            if at_end:
                self.frame = self.begin()
            try:
                self.ready = memoryview(self.frame.decompress(compressed))
            except self.error as error:
                raise EOFError(str(error)) from error
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count
