"""Decodes UTF-8, and tells what bytes that aren't UTF-8 may be: another encoding, or no text."""

import codecs
import shlex
from dataclasses import dataclass
from pathlib import Path

from groundup.data.compressed import COMPRESSED
from groundup.errors import CorpusError

HEAD = 2**12  # bytes that are looked at
BEYOND_WESTERN = 0.3  # of the bytes are beyond ASCII: letters with accents are fewer
BINARY = {b"PK\x03\x04": "a zip archive", b"%PDF": "a PDF", b"\x1f\x8b": "a gzip file"}
BINARY |= {b"ARROW1": "an Arrow file", b"PAR1": "a parquet file", b"\x28\xb5\x2f\xfd": "zstandard"}
MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"}  # before UTF-16's
MARKS |= {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
REPLACE = "groundup prepare can put U+FFFD there (--encoding-errors replace)"
PASSAGE = 2**13  # bytes of a text file that make a document, at least


@dataclass(frozen=True)
class Reading:
    """How documents are read.

    Args:
        column: The column of rows that holds the text.
        replace: Whether bytes that aren't UTF-8 become U+FFFD; otherwise they are an error.
        flag: The flag that chooses the column, for messages.
        passage: The number of bytes after which a text is cut into documents; 0 doesn't cut it.
        separator: A text that ends documents; empty leaves the documents as they are.
    """

    column: str = "text"
    replace: bool = False
    flag: str = "--column"
    passage: int = PASSAGE
    separator: str = ""


def decoded(data: bytes, name: str, offset: int, reading: Reading) -> str:
    """Decode UTF-8; a byte-order mark at the beginning of a file is left out.

    Args:
        data: Some bytes of a file.
        name: The path of the file.
        offset: Where in the file's content the bytes begin.
        reading: Whether bytes that aren't UTF-8 become U+FFFD; otherwise they are an error.

    Raises:
        CorpusError: The bytes aren't UTF-8, or hold NULs as only other encodings do.
    """
    data = data if offset else data.removeprefix(codecs.BOM_UTF8)
    head = data[:HEAD]
    if offset == 0 and head.count(0) * 16 > len(head):
        what = f"{name} is not UTF-8: {head.count(0):,} of its first {len(head):,} bytes are NUL"
        raise CorpusError(f"{what}. {_remedy(data, name)}")
    try:
        return data.decode("utf-8", errors="replace" if reading.replace else "strict")
    except UnicodeDecodeError as error:
        raise not_utf8(name, error, _remedy(data, name), offset) from error


def not_utf8(what: str, error: UnicodeDecodeError, remedy: str, offset: int = 0) -> CorpusError:
    """Make the error for bytes that aren't UTF-8; the decoded bytes began at `offset`."""
    byte, place = error.object[error.start], offset + error.start
    return CorpusError(f"{what} is not UTF-8: byte 0x{byte:02x} at offset {place:,}. {remedy}")


def likely_encoding(data: bytes) -> str:
    """Name the encoding that some bytes that aren't UTF-8 are likely in.

    Returns:
        A name that iconv knows; `UTF-8` for a text of UTF-8 with damaged places. Empty if nothing
        is likely, and `binary` for what is no text.
    """
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return encoding
    head = data[: HEAD + HEAD % 2]
    evens, odds = head[::2].count(0), head[1::2].count(0)
    if max(evens, odds) * 4 > len(head) and min(evens, odds) * 64 <= len(head):
        return "UTF-16LE" if odds > evens else "UTF-16BE"
    if any(head.startswith(magic) for magic in BINARY) or head.count(0) * 64 > len(head):
        return "binary"
    beyond = sum(byte >= 0x80 for byte in data)
    damaged = data.decode("utf-8", errors="replace").count("\ufffd")
    if damaged * 8 < beyond:
        return "UTF-8"
    undefined = sum(map(data.count, (b"\x81", b"\x8d", b"\x8f", b"\x90", b"\x9d")))
    return "" if undefined or beyond > BEYOND_WESTERN * len(data) else "WINDOWS-1252"


def _remedy(data: bytes, name: str) -> str:
    """What can be done about a file of such bytes, as commands that can be run as they are."""
    encoding = likely_encoding(data)
    if encoding == "binary":
        kind = next((kind for magic, kind in BINARY.items() if data.startswith(magic)), "no text")
        return f"It is binary: {kind}. Give a text, JSON lines, CSV, parquet or Arrow"
    old, original = shlex.quote(name), shlex.quote(f"{name}.original")
    convert = f"iconv {'-c ' if encoding == 'UTF-8' else ''}-f {encoding or 'ENCODING'} -t UTF-8"
    command = f"{convert} {original} > {old}"
    if program := COMPRESSED.get(Path(name).suffix.lower()):
        command = f"{program} -dc < {original} | {convert} | {program} > {old}"
    command = f"mv {old} {original} && {command}"
    if encoding == "UTF-8":
        return f"The rest is, and {REPLACE}. Leave such bytes out: {command}"
    if not encoding:
        ask = f"Ask who made it for its ENCODING; `file -i {old}` guesses"
        return f"{ask}, and {REPLACE}. Convert it: {command}"
    return f"It looks like {encoding}, and {REPLACE}. Convert it: {command}"
