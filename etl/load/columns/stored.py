"""Rows as a table stores them: each column as `fit` says, and behind the data's those that say whose row it is."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.config.pipeline import Pipeline
from etl.errors import BadSource, TableMismatch
from etl.load.columns.fit import Fit, kind_of
from etl.load.staged import ID, LINE, ORDER, PARTITION_BITS
from etl.load.tables import ROW
from etl.partition import ROW_BITS, Partition
from etl.types.infer import take
from etl.types.limits import Limit, misfits
from etl.types.words import arrow_of

_CAST = ("string", "integer", "number", "date")  # decimals and times keep their own places and zones


def stored(
    pipeline: Pipeline,
    partition: Partition,
    run: str,
    chunk: pa.Table,
    fit: Fit,
    extra: tuple[str, ...],
    first: int,
) -> pa.Table:
    """Return rows of a partition as they are stored.

    Args:
        chunk: Rows with `_row`.
        extra: Columns of ours that they get.
        first: The number of the first of them in its partition, from 0.

    Raises:
        BadSource: A key column is null.
        TableMismatch: A value does not survive its cast.
    """
    columns = [_column(pipeline, partition, chunk, name, fit) for name in fit.types]
    columns += [_added(pipeline, partition, run, name, chunk[ROW], first) for name in extra]
    return pa.table(columns, names=[*fit.types, *extra])


def _column(pipeline: Pipeline, partition: Partition, chunk: pa.Table, name: str, fit: Fit) -> pa.ChunkedArray:
    column = chunk[name]
    if pipeline.load.mode == "merge" and name in pipeline.load.key and column.null_count:
        row = chunk[ROW][pc.index(column.is_null(), True).as_py()].as_py()
        file, line = partition.pieces[row >> ROW_BITS].file, row & ((1 << ROW_BITS) - 1)
        raise BadSource(
            f"{file}, line {line:,}: key column {name} is empty in {column.null_count:,} rows",
            f"say required = true for column {name}, so that such rows are rejected",
        )
    if (into := fit.words.get(name)) is not None:
        turned, failed = take(column, into, pipeline.timezone)
        if failed:
            raise _unfit(pipeline, name)
        return turned
    cast = fit.casts.get(name)
    if cast is None and (word := kind_of(name, column.type)) in _CAST:
        cast = arrow_of(word)
    if cast is None or cast == column.type:
        return column
    try:
        if kind_of(name, column.type) == "integer" and cast == pa.float64():  # Arrow's own check ends at 2**53
            lost = misfits(column, Limit("", "number"))
            if lost is not None and lost.any():
                raise _unfit(pipeline, name)
            return column.cast(cast, safe=False)
        return column.cast(cast)
    except pa.ArrowInvalid as error:
        raise _unfit(pipeline, name) from error


def _unfit(pipeline: Pipeline, name: str) -> TableMismatch:
    return TableMismatch(
        f"table {pipeline.table}, column {name}: a value does not fit the column's type",
        "give the column another type in [columns], or alter the table",
    )


def _added(
    pipeline: Pipeline, partition: Partition, run: str, name: str, row: pa.ChunkedArray, first: int
) -> pa.Array | pa.ChunkedArray:
    count = len(row)
    if name == LINE:
        return row
    if name == ID:
        number = (partition.number << PARTITION_BITS) + first
        return pa.array(np.arange(number, number + count, dtype=np.int64))
    if name == "_file" and len(partition.pieces) > 1:
        return pc.take(pa.array([piece.file for piece in partition.pieces]), pc.shift_right(row, ROW_BITS))
    same = {"_client": pipeline.client, "_run": run, "_file": partition.pieces[0].file}
    return pa.repeat(pa.scalar(partition.order, pa.int64()) if name == ORDER else same[name], count)
