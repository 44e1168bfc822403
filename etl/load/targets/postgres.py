"""PostgreSQL: types, locks, and COPY of CSV bytes made by pyarrow."""

import hashlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from etl.prefetch import prefetch
from etl.types.words import word_of

insert = postgresql.insert

TYPES: dict[str, TypeEngine[Any]] = {
    "string": sa.TEXT(),
    "integer": sa.BIGINT(),
    "number": postgresql.DOUBLE_PRECISION(),
    "decimal": sa.NUMERIC(),
    "boolean": sa.BOOLEAN(),
    "date": sa.DATE(),
    "timestamp": postgresql.TIMESTAMP(timezone=True),
}
# Column's type in the pipeline → types in the table that take each of its values unharmed.
FITS: dict[str, frozenset[str]] = {
    "string": frozenset({"string"}),
    "integer": frozenset({"integer", "number", "decimal"}),
    "number": frozenset({"number", "decimal"}),
    "decimal": frozenset({"decimal"}),
    "boolean": frozenset({"boolean"}),
    "date": frozenset({"date"}),
    "timestamp": frozenset({"timestamp"}),
}
NAME_BYTES = 63  # longer names are cut by the server, silently
COLUMNS = 1600
ADDS_KEYS = True  # a table that is there can be given a primary key


@lru_cache(maxsize=16)  # keeps no connection, but the statements it has compiled
def engine(url: sa.URL) -> sa.Engine:
    """Return an engine that opens one connection for each use."""
    arguments = {"application_name": "rq-etl"}
    if "connect_timeout" not in url.query:
        arguments["connect_timeout"] = "10"
    made = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=sa.NullPool,
        hide_parameters=True,
        execution_options={"preserve_rowcount": True},
        connect_args=arguments,
    )

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        # Times are written without a zone, which is a good deal faster, and meant in UTC.
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")

    return made


def lock(connection: sa.Connection, *names: str) -> None:
    """Wait for a lock that is held until the transaction ends; `names` say what is locked."""
    number = int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big", signed=True)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


def write(connection: sa.Connection, table: sa.TableClause, columns: Sequence[str], chunks: Iterable[pa.Table]) -> int:
    """Add rows to a table.

    Args:
        table: Its name and schema.
        columns: Names, in the order of the chunks' columns.
        chunks: Rows of storable types.

    Returns:
        How many rows the server says it took.
    """
    driver: Any = connection.connection.driver_connection
    where = ".".join(_quoted(part) for part in (getattr(table, "schema", None), table.name) if part)
    statement = f"COPY {where} ({', '.join(map(_quoted, columns))}) FROM STDIN (FORMAT csv)"
    cursor: psycopg.Cursor[Any]
    with driver.cursor() as cursor:
        with cursor.copy(statement.encode()) as copy:
            for text in prefetch(map(_csv, chunks)):
                copy.write(memoryview(text))
        return cursor.rowcount


def _csv(chunk: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(_printable(chunk), sink, pyarrow.csv.WriteOptions(include_header=False))
    return sink.getvalue()


def prepare(connection: sa.Connection, *staged: sa.TableClause) -> None:
    """Tell the planner about rows that have just been written."""
    connection.exec_driver_sql("SET LOCAL work_mem = '64MB'")
    for table in staged:
        connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _printable(chunk: pa.Table) -> pa.Table:
    columns = []
    for column in chunk.columns:
        if word_of(column.type) == "timestamp":
            column = column.cast(pa.timestamp("us"))
        elif word_of(column.type) == "decimal":
            column = decimal_text(column)
        columns.append(column)
    return pa.table(columns, names=[str(number) for number in range(len(columns))])


def decimal_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals as plain text without trailing zeros: 12.500000000 is "12.5"."""
    text = column.cast(pa.string())
    if column.type.scale > 0:
        text = pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")
    scientific = pc.match_substring(text, "E")
    if not pc.any(scientific).as_py():
        return text
    zero = pc.equal(column, pa.scalar(Decimal(0), column.type))
    text = pc.if_else(zero, "0", text)
    tiny = pc.match_substring(text, "E")
    plain = [format(value.normalize(), "f") for value in column.filter(tiny).to_pylist()]
    if not plain:
        return text
    tiny = pc.fill_null(tiny, False).combine_chunks()
    return pa.chunked_array([pc.replace_with_mask(text.combine_chunks(), tiny, pa.array(plain, pa.string()))])
