"""Reads parquet files in little memory: page by page through pyarrow, never a whole row group."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.data.formats import not_utf8
from groundup.errors import CorpusError, MachineError

ROWS = 256  # at a time


def sizes_of_row_groups(path: Path, column: str) -> list[int]:
    """Give the uncompressed size of a column in each row group, in bytes.

    Raises:
        CorpusError: The file is damaged, or has no such column of text.
    """
    with _opened(path, column) as file:
        metadata = file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [[group.column(at) for at in range(metadata.num_columns)] for group in groups]
        wanted = [[found for found in some if found.path_in_schema == column] for some in columns]
        return [sum(found.total_uncompressed_size for found in some) for some in wanted]


def read_rows(
    path: Path, column: str, first: int, last: int | None, replace: bool = False
) -> Iterator[tuple[int, str]]:
    """Read the texts of row groups [first, last); nulls are left out.

    Args:
        path: The file.
        column: The column that holds the text.
        first: The first row group.
        last: The row group to stop before; None reads to the end.
        replace: Whether bytes that aren't UTF-8 become U+FFFD; otherwise they are an error.

    Yields:
        The number of a row in the file, and its text.

    Raises:
        CorpusError: The file is damaged, or has no such column of text.
    """
    with _opened(path, column) as file:
        groups = list(range(first, file.metadata.num_row_groups if last is None else last))
        row = sum(file.metadata.row_group(group).num_rows for group in range(first))
        arrow = _pyarrow()
        batches = file.iter_batches(ROWS, row_groups=groups, columns=[column], use_threads=False)
        try:
            for batch in batches:
                for text in _texts(batch.column(0), path, row, replace):
                    if text is not None:
                        yield row, text
                    row += 1
        except (OSError, arrow.ArrowException) as error:
            raise CorpusError(f"{path} is damaged after row {row:,}: {_line(error)}") from error


def _texts(column: Any, path: Path, row: int, replace: bool) -> list[str | None]:
    """What a piece of a column holds, from the row of that number on."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        found, errors = [], "replace" if replace else "strict"
        for data in column.cast("large_binary").to_pylist():
            try:
                found.append(data and data.decode("utf-8", errors))
            except UnicodeDecodeError as error:
                where = f"{path}, row {row + len(found):,}"
                remedy = "Let U+FFFD stand for such bytes: --encoding-errors replace"
                raise not_utf8(where, error, remedy) from error
        return found


def _opened(path: Path, column: str) -> Any:
    """An open ParquetFile that has this column, of text."""
    arrow = _pyarrow()
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (OSError, arrow.ArrowException) as error:
        raise CorpusError(f"{path} is not a whole parquet file: {_line(error)}") from error
    schema = file.schema_arrow
    if column not in schema.names:
        has = f"{', '.join(schema.names)}. Choose with --column"
        raise CorpusError(f"{path} has no column {column!r}; it has {has}")
    kind = schema.field(column).type
    if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
        names = [field.name for field in schema if arrow.types.is_string(field.type)]
        texts = ", ".join(names) or "none"
        raise CorpusError(f"{path}: column {column!r} holds {kind}, not text. Of text: {texts}")
    return file


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise MachineError("reading parquet needs pyarrow: pip install 'groundup[data]'") from error
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # its own ones keep what was freed
    return pyarrow


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
