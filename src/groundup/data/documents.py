"""Reads documents: text files, or the texts in a column of JSON, CSV, parquet and Arrow files."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from groundup.data.compressed import BLOCK, opened
from groundup.data.encodings import Reading, decoded
from groundup.data.formats import LONGEST_LINE, Kind
from groundup.errors import CorpusError

Read = Callable[[int], bytes]  # up to so many bytes, or a line of up to so many


@dataclass(frozen=True)
class Document:
    """A text, and its origin: the name of a file and a position in the file."""

    text: str
    origin: str


def documents_in(
    path: str, kind: Kind, reading: Reading, first: int = 0, last: int | None = None
) -> Iterator[Document]:
    """Read the documents of a file in order, without empty ones.

    Args:
        path: The file.
        kind: What the file is, one of `formats.READABLE`.
        reading: How documents are read.
        first: Where to begin in text and JSON lines, in bytes, and in parquet, in row groups.
        last: Where to end; None reads to the end.

    Raises:
        CorpusError: The file is damaged, has no such column, or isn't what its name says.
    """
    if kind in ("parquet", "arrow"):
        from groundup.data.columns import read_arrow, read_rows

        file, place = own_name(path), Path(path)
        is_arrow = kind == "arrow"
        rows = read_arrow(place, reading) if is_arrow else read_rows(place, reading, first, last)
        found = (Document(text, f"{file}, row {row:,}") for row, text in rows)
    else:
        found = _documents_of_bytes(path, kind, reading, first, last)
    for document in found:
        # a text is cut there before it is in memory
        cut_again = reading.separator and kind != "text"
        texts = document.text.split(reading.separator) if cut_again else [document.text]
        texts = [text.strip("\r\n") for text in texts] if cut_again else texts
        yield from (Document(text, document.origin) for text in texts if text)


def _documents_of_bytes(
    path: str, kind: Kind, reading: Reading, first: int, last: int | None
) -> Iterator[Document]:
    with opened(Path(path)) as file:
        if first:
            file.seek(first)
        read = file.readline if kind in ("rows", "table") else file.read
        if last is not None:
            read = _limited(read, last - first)
        yield from CUTS[kind](read, path, first, reading)


def _limited(read: Read, left: int) -> Read:
    """Read no more than what is left of a range."""

    def read_less(size: int) -> bytes:
        nonlocal left
        data = read(min(size, left) if size >= 0 else left)
        left -= len(data)
        return data

    return read_less


def passages_of(read: Read, name: str, offset: int, reading: Reading) -> Iterator[Document]:
    """Cut a text at the first end of a paragraph after `reading.passage` bytes.

    Where four times that has none, it is cut at the end of a line, of a word or of a character.

    Args:
        read: Reads up to so many bytes of UTF-8, and none at the end.
        name: The path of the file.
        offset: Where in the file the text begins.
        reading: How documents are read.

    Raises:
        CorpusError: The bytes aren't UTF-8.
    """
    rest, file, least = b"", own_name(name), reading.passage
    if reading.separator:
        yield from _separated(read, name, offset, reading)
        return
    if not least:
        yield Document(decoded(read(-1), name, offset, reading), f"{file}, byte {offset:,}")
        return
    while True:
        block = read(BLOCK)
        text, start = rest + block, 0
        while len(text) - start > 4 * least or (not block and start < len(text)):
            piece = text[start : start + 4 * least]
            piece = piece[: cut_of(piece, least)] if len(piece) > least else piece
            where = f"{file}, byte {offset:,}"
            yield Document(decoded(piece, name, offset, reading), where)
            start, offset = start + len(piece), offset + len(piece)
        rest = text[start:]
        if not block:
            return


def _separated(read: Read, name: str, offset: int, reading: Reading) -> Iterator[Document]:
    """A text, cut wherever the separator stands, without the line ends around it."""
    separator, rest = reading.separator.encode("utf-8"), b""
    while True:
        block = read(BLOCK)
        *pieces, rest = (rest + block).split(separator)
        for piece in pieces if block else [*pieces, rest]:
            text = decoded(piece, name, offset, reading).strip("\r\n")
            yield Document(text, f"{own_name(name)}, byte {offset:,}")
            offset += len(piece) + len(separator)
        if len(rest) > LONGEST_LINE:
            what = f"{name} has no {reading.separator} in {LONGEST_LINE / 1e6:.0f} MB"
            raise CorpusError(f"{what} from byte {offset:,} on. Leave --separator out")
        if not block:
            return


def cut_of(text: bytes, least: int) -> int:
    """Find where a text can be cut: after a paragraph, a line, a word, or between characters.

    Args:
        text: UTF-8.
        least: The earliest position where the text may be cut, in bytes.
    """
    for sign in (b"\n\n", b"\n", b" "):
        if (place := text.find(sign, least)) >= 0:
            return place + len(sign)
    end = min(least, len(text))
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    return end


def _rows(read: Read, name: str, offset: int, reading: Reading) -> Iterator[Document]:
    """JSON lines: the text in the column of each."""
    file = own_name(name)
    for line in iter(partial(read, LONGEST_LINE), b""):
        if len(line) == LONGEST_LINE:
            size = f"{LONGEST_LINE / 1e6:.0f} MB or more"
            raise CorpusError(f"{_line_at(name, offset)} has {size}: too long")
        if line.strip():
            data = decoded(line, name, offset, reading)
            try:
                row = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise CorpusError(f"{_line_at(name, offset)} is not JSON: {error}") from error
            text = _text_of_row(row, partial(_line_at, name, offset), reading)
            yield Document(text, f"{file}, byte {offset:,}")
        offset += len(line)


def _records(read: Read, name: str, _offset: int, reading: Reading) -> Iterator[Document]:
    """A JSON array of objects: the text in the column of each."""
    data = read(LONGEST_LINE)
    if len(data) == LONGEST_LINE:
        size = f"{LONGEST_LINE / 1e6:.0f} MB or more"
        remedy = "Make JSON lines of it, for example with: jq -c '.[]'"
        raise CorpusError(f"{name} is one JSON array of {size}: too long. {remedy}")
    try:
        rows = json.loads(decoded(data, name, 0, reading))
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{name} is not JSON: {error}") from error
    for number, row in enumerate(rows):
        text = _text_of_row(row, partial(str, f"{name}, record {number:,}"), reading)
        yield Document(text, f"{own_name(name)}, record {number:,}")


def _text_of_row(row: Any, where: Callable[[], str], reading: Reading) -> str:
    column = reading.column
    if not isinstance(row, dict):
        what = f"has no text under {column!r}, but {type(row).__name__}"
        raise CorpusError(f"{where()} {what}: it has to be an object, as in {{{column!r}: ...}}")
    text = row.get(column)
    if isinstance(text, str):
        return text
    has = f"{column!r}: {text!r}"[:80] if column in row else ", ".join(row)[:200]
    texts = [name for name, value in row.items() if isinstance(value, str)]
    remedy = f"Choose with {reading.flag}" if texts else "It has no text at all"
    raise CorpusError(f"{where()} has no text under {column!r}, but {has or 'nothing'}. {remedy}")


def _table(read: Read, name: str, _offset: int, reading: Reading) -> Iterator[Document]:
    """CSV, or TSV by the file's name: the text in the column of each row."""
    csv.field_size_limit(LONGEST_LINE)
    lines, file = _decoded_lines(read, name, reading), own_name(name)
    rows = csv.reader(lines, delimiter="\t" if ".tsv" in file.lower() else ",")
    try:
        columns = next(rows, [])
        if columns.count(reading.column) != 1:
            has = ", ".join(columns)[:200] or "nothing"
            several = "several columns" if reading.column in columns else "no column"
            what = f"{name} has {several} {reading.column!r}; it has {has}"
            raise CorpusError(f"{what}. Choose with {reading.flag}")
        place = columns.index(reading.column)
        for number, row in enumerate(filter(None, rows)):
            if len(row) != len(columns):
                what = f"{len(row)} columns instead of {len(columns)}"
                raise CorpusError(f"{name}, line {rows.line_num:,} has {what}: it is not CSV")
            yield Document(row[place], f"{file}, row {number:,}")
    except csv.Error as error:
        raise CorpusError(f"{name}, line {rows.line_num:,} is not CSV: {error}") from error


def _decoded_lines(read: Read, name: str, reading: Reading) -> Iterator[str]:
    """The lines of a file, each with its end."""
    offset = 0
    for line in iter(partial(read, LONGEST_LINE), b""):
        yield decoded(line, name, offset, reading)
        offset += len(line)


CUTS = {"text": passages_of, "rows": _rows, "records": _records, "table": _table}


def own_name(path: str) -> str:
    """Give a file's name without its folders; what is no text in it becomes question marks.

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
