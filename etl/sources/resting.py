"""Tables as a typed source gives them; in a file until the last has come, and their columns in other types then."""

import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from etl.partition import CHUNK_BYTES
from etl.types.spelling import as_text

INFINITE = "not a finite number"


class Unfit(NamedTuple):
    """A value that no type here has, such as an infinity.

    Args:
        column: Its column, which has null in its place.
        value: How the source writes it.
        reason: Of the reject that its row is.
    """

    column: str
    value: str
    reason: str


class Given(NamedTuple):
    """What a typed source gives at once.

    Args:
        table: All rows.
        unfit: Of rows that are rejects, the values that are why, by the row's place in the table.
    """

    table: pa.Table
    unfit: Mapping[int, list[Unfit]] = {}


class Spool:
    """A temporary file of tables, in memory while it is small."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=2 * CHUNK_BYTES)  # noqa: SIM115
        self._count = 0

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def write(self, table: pa.Table) -> None:
        """Put a table behind those that are there."""
        with pa.ipc.new_stream(self._file, table.schema) as writer:
            writer.write_table(table)
        self._count += 1

    def rows(self) -> Iterator[pa.Table]:
        """Yield every second table: `spooled` and `widened` write rows, and then their rejects."""
        return islice(self.read(), 0, None, 2)

    def read(self) -> Iterator[pa.Table]:
        """Yield the tables in their order."""
        self._file.seek(0)
        for _ in range(self._count):
            with pa.ipc.open_stream(self._file) as reader:
                yield reader.read_all()


def fitted(column: pa.ChunkedArray | None, kind: pa.DataType, length: int, mark: str = ".") -> pa.ChunkedArray:
    """Return a column in another type, all null where there is none.

    Args:
        mark: The decimal point of numbers that become text.

    Raises:
        pa.ArrowInvalid: A value doesn't fit.
    """
    if column is None or column.null_count == length:
        return pa.chunked_array([pa.nulls(length, kind)])
    return as_text(column, mark) if kind == pa.string() else column.cast(kind)
