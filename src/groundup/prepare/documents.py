"""The documents of a part: text files in passages, JSON lines, parquet rows; plain or
compressed.
"""

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
from groundup.data.formats import COMPRESSED
from groundup.errors import CorpusError, MachineError
from groundup.prepare.hub_datasets import download
from groundup.prepare.inputs import LONGEST_LINE, PASSAGE, Part, cut_of
from groundup.prepare.parquet import read_rows

BLOCK = 2**20
COMPRESSED_BLOCK = 2**12  # of which some make thousands of times as much


@dataclass(frozen=True)
class Document:
    """A text, and where it comes from: a file's own name and a place in it."""

    text: str
    origin: str


@dataclass(frozen=True)
class Reading:
    """How documents are read. column: of rows. replace: bytes that aren't UTF-8 become U+FFFD, else
    they're refused.

    downloads: the folder for remote files; notice: is told of each wait for the network.
    """

    column: str = "text"
    replace: bool = False
    downloads: Path = Path()
    notice: Callable[[str], None] | None = None


def read_documents(part: Part, reading: Reading) -> Iterator[Document]:
    """The documents of a part, in their order; empty ones are left out. Raises CorpusError."""
    part.check_unchanged()
    for name in part.files:
        if part.kind == "named":
            documents = _passages(io.BytesIO(load_corpus(name).text.encode()), name, 0, reading)
        elif part.kind in {"parquet", "remote"}:
            path = (
                download(part.remote, reading.downloads, notice=reading.notice)
                if part.remote
                else Path(name)
            )
            file = _own_name(name)
            rows = read_rows(path, reading.column, part.first, part.last, reading.replace)
            documents = (Document(text, f"{file}, row {row:,}") for row, text in rows)
        else:
            documents = _stream(Path(name), part, reading)
        yield from (document for document in documents if document.text)


def _stream(path: Path, part: Part, reading: Reading) -> Iterator[Document]:
    """The documents of a range of a file of text or JSON lines."""
    with opened(path) as file:
        if part.first:
            file.seek(part.first)
        stream = _Range(file, part.last - part.first) if part.last is not None else file
        yield from (_rows if part.kind == "rows" else _passages)(
            stream, str(path), part.first, reading
        )


def _passages(stream: Any, name: str, offset: int, reading: Reading) -> Iterator[Document]:
    """A text, cut at the first end of a paragraph after PASSAGE bytes; of a line, where four times
    that has none.
    """
    rest = b""
    while True:
        block = stream.read(BLOCK)
        text, start = rest + block, 0
        while len(text) - start > 4 * PASSAGE or (not block and start < len(text)):
            piece = text[start : start + 4 * PASSAGE]
            piece = piece[: cut_of(piece, PASSAGE)] if len(piece) > PASSAGE else piece
            yield Document(
                _decoded(piece, name, offset, reading), f"{_own_name(name)}, byte {offset:,}"
            )
            start, offset = start + len(piece), offset + len(piece)
        rest = text[start:]
        if not block:
            return


def _rows(stream: Any, name: str, offset: int, reading: Reading) -> Iterator[Document]:
    """JSON lines: the text in the column of each."""
    file = _own_name(name)
    for line in iter(partial(stream.readline, LONGEST_LINE), b""):
        if len(line) == LONGEST_LINE:
            raise CorpusError(
                f"{name}, line {_line_number(Path(name), offset):,} has {LONGEST_LINE / 1e6:.0f} "
                "MB or more: too long"
            )
        if line.strip():
            origin = f"{file}, byte {offset:,}"
            try:
                row = json.loads(_decoded(line, name, offset, reading))
            except CorpusError:
                raise
            except (ValueError, RecursionError) as error:
                number = _line_number(Path(name), offset)
                raise CorpusError(f"{name}, line {number:,} is not JSON: {error}") from error
            text = row.get(reading.column) if isinstance(row, dict) else None
            if not isinstance(text, str):
                number, has = _line_number(Path(name), offset), type(row).__name__
                if isinstance(row, dict):
                    has = (
                        f"{reading.column!r}: {text!r}"[:80]
                        if reading.column in row
                        else ", ".join(row)[:200]
                    )
                raise CorpusError(
                    f"{name}, line {number:,} has no text under {reading.column!r}, but "
                    f"{has or 'nothing'}. Choose with --column"
                )
            yield Document(text, origin)
        offset += len(line)


def _own_name(path: str) -> str:
    """A file's name without its folders; what is no text in it (a Latin-1 name on Linux) as
    question marks.
    """
    return Path(path).name.encode("utf-8", errors="replace").decode("utf-8")


def _line_number(path: Path, offset: int) -> int:
    """The number of the line that begins at a byte of the text."""
    lines = 0
    with opened(path) as file:
        while offset > 0 and (block := file.read(min(BLOCK, offset))):
            lines, offset = lines + block.count(b"\n"), offset - len(block)
    return lines + 1


def _decoded(data: bytes, name: str, offset: int, reading: Reading) -> str:
    data = data if offset else data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8", errors="replace" if reading.replace else "strict")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset "
            f"{offset + error.start:,}. Convert it, for example with: iconv -f LATIN1 -t UTF-8, "
            "or let U+FFFD stand for such bytes: --encoding-errors replace"
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file's bytes, uncompressed. Raises CorpusError for a damaged one."""
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if suffix not in COMPRESSED:
                yield file
            else:
                raw: Any = gzip.GzipFile(fileobj=file) if suffix == ".gz" else _Zstandard(file)
                yield io.BufferedReader(raw, BLOCK)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(
            f"{path} is a damaged {suffix} file: {error}. Download or compress it again"
        ) from error
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror or error}") from error


class _Range:
    """The first bytes of an open file, as a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int) -> bytes:
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data

    def readline(self, size: int) -> bytes:
        line = self.file.readline(min(size, self.left))
        self.left -= len(line)
        return line


class _Zstandard(io.RawIOBase):
    """A zstandard file's content; unlike the library's own reader it says when the end is
    missing.
    """

    def __init__(self, file: BinaryIO) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise MachineError(
                "reading .zst needs zstandard: pip install 'groundup[data]'"
            ) from error
        self.file, self.error = file, zstandard.ZstdError
        # `zstd --long=31` too
        self.begin = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj
        self.frame, self.compressed, self.ready = self.begin(), b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            if self.frame.eof:
                self.compressed = self.frame.unused_data or self.file.read(COMPRESSED_BLOCK)
                if not self.compressed:
                    return 0
                self.frame = self.begin()
            else:
                self.compressed = self.file.read(COMPRESSED_BLOCK)
                if not self.compressed:
                    raise EOFError("it ends in the middle of a frame")
            try:
                self.ready = memoryview(self.frame.decompress(self.compressed))
            except self.error as error:
                raise EOFError(str(error)) from error
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count
