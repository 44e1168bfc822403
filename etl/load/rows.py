"""Chunks made ready for a table: storable types, and the columns that say whose row it is and where it came from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.config.pipeline import Pipeline
from etl.errors import BadSource, TableMismatch
from etl.partition import ROW_BITS, Partition
from etl.types.words import arrow_of, word_of

ROW = "_row"
OWN = ("_client", "_run", "_file")
ID, ORDER, LINE = "_etl_id", "_etl_order", "_etl_row"
PARTITION_BITS = 32  # `_etl_id` = partition << 32 | number of the row in it


def kind_of(name: str, kind: pa.DataType) -> str:
    """Return the pipeline's word for an Arrow type, or "null" for a column without any value.

    Raises:
        BadSource: No table column can hold it.
    """
    found = word_of(kind)
    if found is None:
        raise BadSource(f"column {name} holds {kind} values, which no table can", "turn it into text in your function")
    return found


_CAST = ("string", "integer", "number", "date")  # decimals and times keep their own places and zones


def grouped(pipeline: Pipeline, chunks: Iterable[pa.Table]) -> Iterator[tuple[pa.Schema, Iterator[pa.Table]]]:
    """Yield runs of chunks that have the same columns; nearly always there is one.

    A chunk without rows is kept only where its types were declared: inferred from nothing they would mean nothing.
    """
    kept = (chunk for chunk in chunks if chunk.num_rows or pipeline.columns)
    yield from groupby(kept, key=lambda chunk: chunk.schema.remove_metadata())


@dataclass
class Writer:
    """Gives a partition's chunks the columns they are stored with.

    Args:
        staged: Whether the rows go to a staging table, which keeps their order, or straight to the target.
        written: Rows given out so far.
    """

    pipeline: Pipeline
    run: str
    partition: Partition
    staged: bool
    written: int = 0

    @property
    def extra(self) -> tuple[str, ...]:
        """Names of the columns that are added behind the data's."""
        if self.staged:
            return (ID, ORDER, LINE, "_file")
        return OWN if self.pipeline.shared else OWN[1:]

    def ready(
        self, chunks: Iterable[pa.Table], names: Iterable[str], casts: Mapping[str, pa.DataType]
    ) -> Iterator[pa.Table]:
        """Yield chunks with the columns `names` and `extra`.

        Args:
            casts: Types that a column of the table asks for.

        Raises:
            BadSource: A key column is null.
            TableMismatch: A value does not survive its cast.
        """
        names = list(names)
        for chunk in chunks:
            columns = [self._column(chunk, name, casts.get(name)) for name in names]
            columns += self._added(chunk)
            self.written += chunk.num_rows
            yield pa.table(columns, names=[*names, *self.extra])

    def _column(self, chunk: pa.Table, name: str, cast: pa.DataType | None) -> pa.ChunkedArray:
        column = chunk[name]
        if self.pipeline.load.mode == "merge" and name in self.pipeline.load.key and column.null_count:
            raise BadSource(
                f"{self._place(chunk, column)}: key column {name} is empty in {column.null_count:,} rows",
                f"say required = true for column {name}, so that such rows are rejected",
            )
        if cast is None and (word := kind_of(name, column.type)) in _CAST:
            cast = arrow_of(word)
        if cast is None or cast == column.type:
            return column
        try:
            return column.cast(cast)
        except pa.ArrowInvalid as error:
            raise TableMismatch(
                f"table {self.pipeline.table}, column {name}: a value does not fit the column's type",
                "give the column another type in [columns], or alter the table",
            ) from error

    def _place(self, chunk: pa.Table, column: pa.ChunkedArray) -> str:
        row = chunk[ROW][pc.index(column.is_null(), True).as_py()].as_py()
        line = row & ((1 << ROW_BITS) - 1)
        return f"{self.partition.pieces[row >> ROW_BITS].file}, line {line:,}"

    def _added(self, chunk: pa.Table) -> list[pa.Array | pa.ChunkedArray]:
        rows = chunk.num_rows
        file = self._files(chunk[ROW])
        if not self.staged:
            own = [pa.repeat(self.pipeline.client, rows)] if self.pipeline.shared else []
            return [*own, pa.repeat(self.run, rows), file]
        first = (self.partition.number << PARTITION_BITS) + self.written
        numbers = pa.array(np.arange(first, first + rows, dtype=np.int64))
        return [numbers, pa.repeat(pa.scalar(self.partition.order, pa.int64()), rows), chunk[ROW], file]

    def _files(self, row: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        pieces = self.partition.pieces
        if len(pieces) == 1:
            return pa.repeat(pieces[0].file, len(row))
        return pc.take(pa.array([piece.file for piece in pieces]), pc.shift_right(row, ROW_BITS))
