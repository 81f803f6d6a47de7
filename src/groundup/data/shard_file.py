"""Shards of groundup, nanoGPT and llm.c: files of tokens that open at once, whatever their length.

A groundup shard is a header of 96 bytes and a body of tokens, all little-endian:

    offset  size  what
    0       8     b"groundup"
    8       4     version, 1
    12      4     bytes per token, 2 or 4
    16      8     number of tokens
    24      4     number of tokens in the vocabulary
    28      4     the largest token in the body
    32      32    SHA-256 of what decides the tokenizer's ids
    64      32    SHA-256 of the body
    96            the tokens, unsigned
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.errors import CorpusError
from groundup.files import open_whole

MAGIC = b"groundup"
VERSION = 1
HEADER = struct.Struct("<8sIIQII32s32s")
DTYPES = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
# llm.c: magic -> bytes a token, after 256 numbers of 4 bytes
LLMC_BYTES = {20240520: 2, 20240801: 4}
LLMC_HEADER = 1024
COPY_AGAIN = "Prepare it again, or copy it again from where it is whole"
AT_ONCE = 2**22  # tokens that are hashed in one piece


@dataclass(frozen=True)
class Shard:
    """An open shard; what a shard of nanoGPT or llm.c doesn't state is None.

    Args:
        path: The file.
        tokens: [tokens] unsigned, mapped into memory.
        offset: The number of bytes before the tokens in the file.
        vocab_size: The number of tokens in the vocabulary, as the header says.
        largest: The largest token, as the header says.
        tokenizer: SHA-256 of the tokenizer, as the header says.
        sha256: SHA-256 of the tokens, as the header says.
    """

    path: Path
    tokens: np.ndarray
    offset: int = 0
    vocab_size: int | None = None
    largest: int | None = None
    tokenizer: str | None = None
    sha256: str | None = None

    def verify(self) -> None:
        """Read all tokens and check their SHA-256, if the header states one.

        Raises:
            CorpusError: The SHA-256 differs from the one in the header.
        """
        if self.sha256 is None:
            return
        digest = hashlib.sha256()
        for first in range(0, len(self.tokens), AT_ONCE):
            digest.update(self.tokens[first : first + AT_ONCE].data)
        if (found := digest.hexdigest()) != self.sha256:
            wrong = f"is {found[:12]}... instead of {self.sha256[:12]}..."
            what = f"shard {self.path} is damaged: the SHA-256 of its tokens {wrong}"
            raise CorpusError(f"{what}. {COPY_AGAIN}")


def open_shard(path: Path) -> Shard:
    """Map a shard of groundup, nanoGPT or llm.c into memory, without reading its tokens.

    Raises:
        CorpusError: The file can't be read, is cut off, or is no shard.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(HEADER.size)
    except OSError as error:
        raise CorpusError(f"shard {path} can't be read: {error.strerror}") from error
    if start.startswith(MAGIC):
        return _open_ours(path, start, size)
    magic, version, count = struct.unpack_from("<3i", start) if len(start) >= 12 else (0, 0, 0)
    if magic in LLMC_BYTES and version >= 1:
        dtype = DTYPES[LLMC_BYTES[magic]]
        expected = LLMC_HEADER + count * dtype.itemsize
        _check_size(path, size, expected, f"an llm.c file of {count:,} tokens")
        return Shard(path, _map(path, dtype, LLMC_HEADER, count), LLMC_HEADER)
    dtype = DTYPES[2]
    if size % dtype.itemsize:
        what = f"{size:,} bytes, which is no whole number of 2-byte tokens"
        nearest = f"{size - 1:,} or {size + 1:,} would be"
        raise CorpusError(f"shard {path} has {what}: {nearest}. It is cut off, or no shard")
    return Shard(path, _map(path, dtype, 0, size // dtype.itemsize))


def _open_ours(path: Path, start: bytes, size: int) -> Shard:
    if len(start) < HEADER.size:
        what = f"{size:,} bytes, but its header alone has {HEADER.size}"
        raise CorpusError(f"shard {path} is cut off: {what}")
    _, version, itemsize, count, vocab_size, largest, tokenizer, sha256 = HEADER.unpack(start)
    if version != VERSION or itemsize not in DTYPES:
        says = f"version {version} with {itemsize} bytes a token"
        reads = f"this groundup reads version {VERSION} with 2 or 4"
        raise CorpusError(f"shard {path} says {says}; {reads}")
    _check_size(path, size, HEADER.size + count * itemsize, f"{count:,} tokens")
    tokens = _map(path, DTYPES[itemsize], HEADER.size, count)
    return Shard(path, tokens, HEADER.size, vocab_size, largest, tokenizer.hex(), sha256.hex())


def _check_size(path: Path, size: int, expected: int, what: str) -> None:
    if size != expected:
        what = f"{size:,} bytes, but its header says {what}, which makes {expected:,}"
        raise CorpusError(f"shard {path} has {what}: it is cut off or damaged. {COPY_AGAIN}")


def _map(path: Path, dtype: np.dtype, offset: int, count: int) -> np.ndarray:
    if count == 0:  # nothing can't be mapped
        return np.empty(0, dtype)
    # a slice of a memmap is slow
    return np.asarray(np.memmap(path, dtype, mode="r", offset=offset, shape=(count,)))


class Written(NamedTuple):
    """The number of tokens that were written to a shard, and the SHA-256 of its body."""

    tokens: int
    sha256: str


def write_shard_file(
    path: Path,
    pieces: Iterable[np.ndarray],
    dtype: np.dtype,
    vocab_size: int,
    tokenizer: str,
    *,
    apart: Path | None = None,
) -> Written:
    """Write a groundup shard, which gets its name only when it is complete.

    Args:
        path: The path that the shard gets.
        pieces: The tokens piece by piece, [tokens] of `dtype` each.
        dtype: The type of the tokens.
        vocab_size: The number of tokens in the vocabulary.
        tokenizer: SHA-256 of the tokenizer, in hexadecimal.
        apart: The folder where the unfinished file lies, on the same disk; left out, the folder of
            `path`.

    Raises:
        OSError: The file can't be written. After any error no file is left behind.
    """
    count, largest, digest = 0, 0, hashlib.sha256()
    with open_whole(path, apart or path.parent) as file:
        file.write(bytes(HEADER.size))
        for tokens in filter(len, pieces):
            assert tokens.dtype == dtype
            count, largest = count + tokens.size, max(largest, int(tokens.max()))
            assert largest < vocab_size
            data = np.ascontiguousarray(tokens).view(np.uint8).data
            digest.update(data)
            file.write(data)
        fields = (dtype.itemsize, count, vocab_size, largest, bytes.fromhex(tokenizer))
        file.seek(0)
        file.write(HEADER.pack(MAGIC, VERSION, *fields, digest.digest()))
    return Written(count, digest.hexdigest())
