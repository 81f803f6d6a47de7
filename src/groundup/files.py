"""Files that appear whole or not at all, JSON, and digests of files."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

HERE = (Path(),)  # where paths are looked for: the current folder


def is_there(path: Path) -> bool:
    """Tell whether there is a file or folder; no path is one that the system can't have."""
    try:
        path.stat()
    except (OSError, ValueError):  # too long, or with a NUL
        return False
    return True


def expanded(name: str | Path) -> Path:
    """Return a path in which ~ stands for a user's home, if there is such a user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def located(name: str, folders: Sequence[Path] = HERE) -> Path:
    """Return where a path is: in the first of some folders that has it.

    Args:
        name: The path. One that is absolute or begins with ~ has nothing to do with the folders.
        folders: The folders that a relative path may be relative to.

    Returns:
        The path in that folder, or as it was given where no folder has it.
    """
    path = expanded(name)
    return next((folder / path for folder in folders if is_there(folder / path)), path)


@contextmanager
def open_whole(path: Path, apart: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the `with` block ends and its bytes are on the disk.

    Args:
        path: The name that the file gets; a file of that name is replaced.
        apart: The folder in which the file lies until then, on the same disk, under a name that no
            other process gives. Left out, the file lies under a hidden name beside `path`.

    Raises:
        OSError: The file can't be written. After this and any other error nothing is left behind.
    """
    name = f"{path.name}.{uuid4().hex}.part" if apart else f".{path.name}.writing"
    temporary = (apart or path.parent) / name
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_replaced(path: Path) -> bool:
    """Tell whether a new file may take a path's name: not those of devices, pipes and links."""
    return not path.is_symlink() and (path.is_file() or not path.exists())


def write_whole(path: Path, text: str, apart: Path | None = None) -> None:
    """Write a text in UTF-8 to a file that appears whole or not at all.

    Args:
        path: The name that the file gets; a file of that name is replaced.
        text: The text.
        apart: The folder, on the same disk, in which the file lies until it is whole; if left out,
            the folder of `path`.

    Raises:
        OSError: The file can't be written.
    """
    content = text.encode("utf-8")
    with open_whole(path, apart) as file:
        file.write(content)


def write_json(
    path: Path, value: Any, *, ensure_ascii: bool = True, indent: int = 2, apart: Path | None = None
) -> None:
    """Write a value as indented JSON to a file that appears whole or not at all.

    Args:
        path: The name that the file gets; a file of that name is replaced.
        value: The value.
        ensure_ascii: Whether characters beyond ASCII are escaped.
        indent: The number of spaces of a level.
        apart: The folder, on the same disk, in which the file lies until it is whole; if left out,
            the folder of `path`.

    Raises:
        OSError: The file can't be written.
    """
    write_whole(path, json.dumps(value, ensure_ascii=ensure_ascii, indent=indent) + "\n", apart)


def flush_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk, where the file system can do that for folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_digest(path: Path, algorithm: str = "sha256", start: bytes = b"") -> str:
    """Return the digest of a file's bytes, in hexadecimal digits.

    Args:
        path: The file.
        algorithm: The name of the hash function in hashlib.
        start: Bytes that are hashed before the file's.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, start)).hexdigest()


DEEPEST = 64  # the files of models and tokenizers nest less than ten levels


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text isn't JSON, or its values are nested more than 64 levels deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST + 1):
        holders = [holder for holder in level if isinstance(holder, list | dict)]
        if not holders:
            return value
        parts = (holder.values() if isinstance(holder, dict) else holder for holder in holders)
        level = list(chain.from_iterable(parts))
    raise ValueError(f"its values are nested more than {DEEPEST} levels deep")


def read_json(path: Path) -> Any:
    """Return the value of a JSON file in UTF-8.

    Raises:
        OSError: The file can't be read.
        ValueError: The file isn't JSON in UTF-8, or its values are nested more than 64 levels deep.
    """
    return parse_json(path.read_text("utf-8"))
