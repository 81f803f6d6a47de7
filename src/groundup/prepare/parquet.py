"""Parquet files, read in little memory: pyarrow's pages one after the other, never a row group
whole.
"""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.errors import CorpusError, MachineError

ROWS = 256  # at a time


def sizes_of_row_groups(path: Path, column: str) -> list[int]:
    """Uncompressed bytes of the column in each row group. Raises CorpusError."""
    with _opened(path, column) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        columns = range(file.metadata.num_columns)
        return [
            sum(
                group.column(place).total_uncompressed_size
                for place in columns
                if _name(group, place) == column
            )
            for group in groups
        ]


def _name(group: Any, place: int) -> str:
    return group.column(place).path_in_schema


def read_rows(
    path: Path, column: str, first: int, last: int | None, replace: bool = False
) -> Iterator[tuple[int, str]]:
    """The texts of row groups [first, last), each with the number of its row; nulls are left out.
    CorpusError.

    replace: bytes that aren't UTF-8 become U+FFFD, else they're refused.
    """
    with _opened(path, column) as file:
        groups = list(range(first, file.metadata.num_row_groups if last is None else last))
        row = sum(file.metadata.row_group(group).num_rows for group in range(first))
        arrow = _pyarrow()
        try:
            for batch in file.iter_batches(
                ROWS, row_groups=groups, columns=[column], use_threads=False
            ):
                for text in _texts(batch.column(0), path, row, replace):
                    if text is not None:
                        yield row, text
                    row += 1
        except (OSError, arrow.ArrowException) as error:
            raise CorpusError(f"{path} is damaged after row {row:,}: {_line(error)}") from error


def _texts(column: Any, path: Path, row: int, replace: bool) -> list[str | None]:
    """What a piece of a column holds. row: its first. Raises CorpusError."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        found: list[str | None] = []
        for data in column.cast("large_binary").to_pylist():
            try:
                found.append(
                    data and data.decode("utf-8", errors="replace" if replace else "strict")
                )
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{path}, row {row + len(found):,} is not UTF-8: byte "
                    f"0x{data[error.start]:02x} at offset {error.start:,}. Let U+FFFD stand for "
                    "such bytes: --encoding-errors replace"
                ) from error
        return found


def _opened(path: Path, column: str) -> Any:
    """An open ParquetFile that has this column, of text. Raises CorpusError."""
    arrow = _pyarrow()
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (OSError, arrow.ArrowException) as error:
        raise CorpusError(f"{path} is not a whole parquet file: {_line(error)}") from error
    schema = file.schema_arrow
    if column not in schema.names:
        raise CorpusError(
            f"{path} has no column {column!r}; it has {', '.join(schema.names)}. Choose with "
            "--column"
        )
    kind = schema.field(column).type
    if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
        texts = [field.name for field in schema if arrow.types.is_string(field.type)]
        raise CorpusError(
            f"{path}: column {column!r} holds {kind}, not text. Of text: "
            f"{', '.join(texts) or 'none'}"
        )
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
