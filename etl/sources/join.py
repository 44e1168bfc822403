"""Pieces of a partition on their way to chunks: with the columns of all of them, of the right size."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import rejects
from etl.config.columns import named, points, refuse_doubles
from etl.config.pipeline import Pipeline
from etl.config.values import header_key
from etl.partition import CHUNK_BYTES, CHUNK_ROWS, Chunk, Piece
from etl.sources.resting import Spool, fitted

_EXACT = 2**53  # up to here every whole number is a float
_LONG = pa.decimal128(19, 0)  # marks whole numbers of which some are longer


class Spelling:
    """One spelling of the headers that are one column of the pipeline, for files that are read together.

    Args:
        pipeline: Whose `rename` and `from` say which headers are one.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._first: dict[str, str] = {}

    def names(self, headers: Iterable[str], file: str, seen: dict[str, str] | None = None) -> list[str]:
        """Return headers as the first file that has their column spells them.

        Args:
            seen: The file's headers so far, by the pipeline's name, which are added to.

        Raises:
            BadSource: Two columns of the file are the same column of the pipeline.
        """
        headers, seen = list(headers), {} if seen is None else seen
        names = named((header for header in headers if header), self._pipeline)
        keys = {header: header_key(name) for header, name in names.items()}
        for header, name in names.items():
            other = seen.setdefault(keys[header], header)
            if header_key(other) != header_key(header):
                refuse_doubles({other: name, header: name}, file)
        return [self._first.setdefault(keys[header], header) if header in keys else header for header in headers]

    def chunks(self, chunks: Iterable[Chunk], file: str) -> Iterator[Chunk]:
        """Yield a file's chunks with the headers of all files."""
        seen: dict[str, str] = {}
        for chunk in chunks:
            yield chunk._replace(rows=chunk.rows.rename_columns(self.names(chunk.rows.column_names, file, seen)))


def as_in_source(chunks: Iterable[Chunk], piece: Piece, base: int) -> Iterator[Chunk]:
    """Yield the chunks of fixed rows with the lines that these came from; what begins on no row's line is the row's."""
    begins, lines = (np.array(each, np.int64) for each in zip(*piece.lines, strict=True))

    def of(column: pa.ChunkedArray) -> pa.Array:
        at = np.searchsorted(begins, column.to_numpy() - base, side="right") - 1
        return pa.array(lines[np.maximum(at, 0)] + base, pa.int64())

    for chunk in chunks:
        rows, bad = (
            table.set_column(table.schema.get_field_index(name), name, of(table[name]))
            for table, name in ((chunk.rows, "_row"), (chunk.rejects, "row"))
        )
        yield chunk._replace(rows=rows, rejects=bad)


def aligned(chunks: Iterable[Chunk], names: Iterable[str]) -> Iterator[Chunk]:
    """Yield chunks of text with the columns of `names`, null where one has none; at least one chunk.

    Args:
        names: Without case, a name that comes twice is one column; a column without a name is none.
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(header_key(name), name)
    first.pop("", None)
    yield from _sized(chunks, pa.schema([(name, pa.string()) for name in first.values()] + [("_row", pa.int64())]))


def widened(chunks: Iterable[Chunk], pipeline: Pipeline) -> Iterator[Chunk]:
    """Yield chunks with the columns of all of them, each of the type that holds all values exactly; at least one.

    Whole numbers and floats are floats where that changes none; what has no other type in common is text, and reads
    the same in whatever chunks the values came. The rows rest in a temporary file until the last has come.

    Args:
        pipeline: Whose columns say how numbers that become text are written.
    """
    first: dict[str, str] = {}
    kinds: dict[str, pa.DataType] = {}
    warnings: list[str] = []
    with closing(Spool()) as spool:
        for chunk in chunks:
            rows = chunk.rows.rename_columns([first.setdefault(header_key(n), n) for n in chunk.rows.column_names])
            for name, column in zip(rows.column_names, rows.columns, strict=True):
                kinds[name] = _widest(kinds.get(name, pa.null()), _kind(column))
            spool.write(rows)
            spool.write(chunk.rejects)
            warnings += chunk.warnings
        kinds.pop("_row", None)
        final = {pa.null(): pa.string(), _LONG: pa.int64()}
        schema = pa.schema([*((name, final.get(kind, kind)) for name, kind in kinds.items()), ("_row", pa.int64())])
        tables = spool.read()
        yield from _sized((Chunk(rows, next(tables)) for rows in tables), schema, warnings, points(kinds, pipeline))


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


def _sized(
    chunks: Iterable[Chunk], schema: pa.Schema, warnings: Iterable[str] = (), marks: Mapping[str, str] | None = None
) -> Iterator[Chunk]:
    """Yield chunks of a schema, cut and put together so that each fits memory."""
    rows, bad, size = schema.empty_table(), rejects.SCHEMA.empty_table(), 0
    said, given = list(warnings), marks or {}
    for each in chunks:
        said += each.warnings
        columns = {
            header_key(name): column for name, column in zip(each.rows.column_names, each.rows.columns, strict=True)
        }
        made = [
            fitted(columns.get(header_key(field.name)), field.type, each.rows.num_rows, given.get(field.name, "."))
            for field in schema
        ]
        rows = pa.concat_tables([rows, table := pa.table(made, schema=schema)])
        bad = pa.concat_tables([bad, each.rejects])
        size += table.nbytes + each.rejects.nbytes
        while max(rows.num_rows, bad.num_rows) > CHUNK_ROWS or size > CHUNK_BYTES:
            yield Chunk(rows.slice(0, CHUNK_ROWS), bad)
            rows, bad = rows.slice(CHUNK_ROWS), rejects.SCHEMA.empty_table()
            size = rows.nbytes
    yield Chunk(rows, bad, tuple(said))
