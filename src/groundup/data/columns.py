"""Reads columns of parquet and Arrow files through pyarrow, in little memory.

Parquet is read page by page, never a whole row group, and Arrow through a map of the file.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.data.encodings import REPLACE, Reading, not_utf8
from groundup.errors import CorpusError, MachineError

ROWS = 256  # at a time


def sizes_of_row_groups(path: Path, reading: Reading) -> list[int]:
    """Give the uncompressed size of a column in each row group, in bytes.

    Raises:
        CorpusError: The file is damaged, or has no such column of text.
    """
    column = reading.column
    with _opened(path, reading) as file:
        metadata = file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [[group.column(at) for at in range(metadata.num_columns)] for group in groups]
        wanted = [[found for found in some if found.path_in_schema == column] for some in columns]
        return [sum(found.total_uncompressed_size for found in some) for some in wanted]


def read_rows(
    path: Path, reading: Reading, first: int, last: int | None
) -> Iterator[tuple[int, str]]:
    """Read the texts of row groups [first, last) of a parquet file; nulls are left out.

    Args:
        path: The file.
        reading: Which column holds the text, and how it is decoded.
        first: The first row group.
        last: The row group to stop before; None reads to the end.

    Yields:
        The number of a row in the file, and its text.

    Raises:
        CorpusError: The file is damaged, or has no such column of text.
    """
    with _opened(path, reading) as file:
        groups = list(range(first, file.metadata.num_row_groups if last is None else last))
        row = sum(file.metadata.row_group(group).num_rows for group in range(first))
        asked = {"row_groups": groups, "columns": [reading.column], "use_threads": False}
        yield from _texts_of(file.iter_batches(ROWS, **asked), path, reading, row)


def read_arrow(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    """Read the texts of an Arrow file or stream, as read_rows does."""
    arrow = _pyarrow()
    from pyarrow import ipc

    try:
        with arrow.memory_map(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file:
                opened = ipc.open_file(file)
                batches = map(opened.get_batch, range(opened.num_record_batches))
            else:
                batches = opened = ipc.open_stream(file)
            place = _place_of(opened.schema, path, reading)
            yield from _texts_of((one.select([place]) for one in batches), path, reading, 0)
    except (OSError, arrow.ArrowException) as error:
        raise CorpusError(f"{path} is not a whole Arrow file: {_line(error)}") from error


def _texts_of(
    batches: Iterable[Any], path: Path, reading: Reading, row: int
) -> Iterator[tuple[int, str]]:
    """The texts of batches of one column, numbered from `row` on."""
    arrow = _pyarrow()
    try:
        for batch in batches:
            for text in _texts(batch.column(0), path, row, reading.replace):
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
                raise not_utf8(where, error, f"Its writer can repair it, or {REPLACE}") from error
        return found


def _opened(path: Path, reading: Reading) -> Any:
    """An open ParquetFile that has this column, of text."""
    arrow = _pyarrow()
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (OSError, arrow.ArrowException) as error:
        raise CorpusError(f"{path} is not a whole parquet file: {_line(error)}") from error
    _place_of(file.schema_arrow, path, reading)
    return file


def _place_of(schema: Any, path: Path, reading: Reading) -> int:
    """Where the column of text is among all columns."""
    types, column = _pyarrow().types, reading.column
    kinds = (types.is_string, types.is_large_string)
    texts = [field.name for field in schema if any(is_kind(field.type) for is_kind in kinds)]
    choose = f"Choose with {reading.flag}" if texts else "None of them holds text"
    if (count := schema.names.count(column)) != 1:
        has = f"{', '.join(schema.names)}. {choose}"
        several = f"{count} columns" if count else "no column"
        raise CorpusError(f"{path} has {several} {column!r}; it has {has}")
    if column not in texts:
        what = f"holds {schema.field(column).type}, not text. Of text: {', '.join(texts) or 'none'}"
        raise CorpusError(f"{path}: column {column!r} {what}")
    return schema.names.index(column)


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise MachineError(
            "reading parquet and Arrow needs pyarrow: pip install 'groundup[data]'"
        ) from error
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # its own ones keep what was freed
    return pyarrow


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
