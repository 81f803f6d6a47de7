"""Opens files for reading their bytes, and decompresses those whose names say gzip or zstandard."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from groundup.errors import CorpusError, MachineError

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}  # endings, and the programs for them
BLOCK = 2**20
COMPRESSED_BLOCK = 2**12  # of which some make thousands of times as much


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
