"""Pieces of a partition on their way to chunks: with the columns of all of them, of the right size."""

from collections.abc import Iterable, Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from etl import rejects
from etl.partition import CHUNK_BYTES, CHUNK_ROWS, Chunk
from etl.sources.spool import Spool, fitted

_EXACT = 2**53  # up to here every whole number is a float
_LONG = pa.decimal128(19, 0)  # marks whole numbers of which some are longer


def aligned(chunks: Iterable[Chunk], names: Iterable[str]) -> Iterator[Chunk]:
    """Yield chunks of text with the columns of `names`, null where one has none; at least one chunk.

    Args:
        names: Without case, a name that comes twice is one column; a column without a name is none.
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.casefold(), name)
    first.pop("", None)
    yield from _sized(chunks, pa.schema([(name, pa.string()) for name in first.values()] + [("_row", pa.int64())]))


def widened(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield chunks with the columns of all of them, each of the type that holds all values exactly; at least one.

    Whole numbers and floats are floats where that changes none; what has no other type in common is text, and reads
    the same in whatever chunks the values came. The rows rest in a temporary file until the last has come.
    """
    first: dict[str, str] = {}
    kinds: dict[str, pa.DataType] = {}
    with closing(Spool()) as spool:
        for chunk in chunks:
            rows = chunk.rows.rename_columns([first.setdefault(n.casefold(), n) for n in chunk.rows.column_names])
            for name, column in zip(rows.column_names, rows.columns, strict=True):
                kinds[name] = _widest(kinds.get(name, pa.null()), _kind(column))
            spool.write(rows)
            spool.write(chunk.rejects)
        kinds.pop("_row", None)
        final = {pa.null(): pa.string(), _LONG: pa.int64()}
        schema = pa.schema([*((name, final.get(kind, kind)) for name, kind in kinds.items()), ("_row", pa.int64())])
        tables = spool.read()
        yield from _sized((Chunk(rows, next(tables)) for rows in tables), schema)


def _kind(column: pa.ChunkedArray) -> pa.DataType:
    if column.type != pa.int64():
        return column.type
    ends = pc.min_max(column)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return column.type if low is None or (low >= -_EXACT and high <= _EXACT) else _LONG


def _widest(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    kinds = {one, other} - {pa.null()}
    if len(kinds) < 2:
        return kinds.pop() if kinds else pa.null()
    if kinds == {pa.int64(), pa.float64()}:
        return pa.float64()
    return _LONG if kinds == {pa.int64(), _LONG} else pa.string()


def _sized(chunks: Iterable[Chunk], schema: pa.Schema) -> Iterator[Chunk]:
    """Yield chunks of a schema, cut and put together so that each fits memory."""
    rows, bad, size = schema.empty_table(), rejects.SCHEMA.empty_table(), 0
    for each in chunks:
        columns = {
            name.casefold(): column for name, column in zip(each.rows.column_names, each.rows.columns, strict=True)
        }
        made = [fitted(columns.get(field.name.casefold()), field.type, each.rows.num_rows) for field in schema]
        rows = pa.concat_tables([rows, table := pa.table(made, schema=schema)])
        bad = pa.concat_tables([bad, each.rejects])
        size += table.nbytes + each.rejects.nbytes
        while max(rows.num_rows, bad.num_rows) > CHUNK_ROWS or size > CHUNK_BYTES:
            yield Chunk(rows.slice(0, CHUNK_ROWS), bad)
            rows, bad = rows.slice(CHUNK_ROWS), rejects.SCHEMA.empty_table()
            size = rows.nbytes
    yield Chunk(rows, bad)
