"""SQLite: types, one writer at a time, and executemany over lists of columns."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine

from etl.types.words import word_of

insert = sqlite.insert

WAIT = 60  # seconds to wait for another writer

TYPES: dict[str, TypeEngine[Any]] = {
    "string": sa.TEXT(),
    "integer": sa.INTEGER(),
    "number": sa.REAL(),
    "decimal": sa.NUMERIC(),
    "boolean": sa.INTEGER(),
    "date": sa.TEXT(),
    "timestamp": sa.TEXT(),
}
# Column's type in the pipeline → types in the table that take each of its values unharmed.
FITS: dict[str, frozenset[str]] = {
    "string": frozenset({"string", "any"}),
    "integer": frozenset({"integer", "number", "decimal", "any"}),
    "number": frozenset({"number", "decimal", "any"}),
    "decimal": frozenset({"decimal", "any"}),
    "boolean": frozenset({"boolean", "integer", "decimal", "any"}),
    "date": frozenset({"date", "string", "any"}),
    "timestamp": frozenset({"timestamp", "string", "any"}),
}
NAME_BYTES = 1000
COLUMNS = 2000
ADDS_KEYS = False


def engine(url: sa.URL) -> sa.Engine:
    """Return an engine whose transactions take the write lock at once: several writers then never collide."""
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return _engine(url)


@lru_cache(maxsize=16)  # keeps no connection, but the statements it has compiled
def _engine(url: sa.URL) -> sa.Engine:
    made = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        hide_parameters=True,
        execution_options={"preserve_rowcount": True},
        connect_args={"timeout": WAIT},
    )

    @sa.event.listens_for(made, "connect")
    def connect(driver: Any, _record: object) -> None:
        driver.isolation_level = None  # the driver opens no transactions of its own
        if driver.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            # Another writer is at it, or the file is read-only: both are told when rows are written.
            with suppress(sqlite3.Error):
                driver.execute("PRAGMA journal_mode = WAL")

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def lock(connection: sa.Connection, *names: str) -> None:
    """Do nothing: a transaction that writes is alone."""


def write(connection: sa.Connection, table: sa.TableClause, columns: Sequence[str], chunks: Iterable[pa.Table]) -> int:
    """Add rows to a table.

    Args:
        table: Its name.
        columns: Names, in the order of the chunks' columns.
        chunks: Rows of storable types.

    Returns:
        How many rows SQLite says it took.
    """
    driver: Any = connection.connection.driver_connection
    marks = ", ".join("?" * len(columns))
    statement = f"INSERT INTO {_quoted(table.name)} ({', '.join(map(_quoted, columns))}) VALUES ({marks})"
    cursor = driver.cursor()
    written = 0
    for chunk in chunks:
        cursor.executemany(statement, zip(*(_values(column) for column in chunk.columns), strict=True))
        written += cursor.rowcount
    return written


def prepare(connection: sa.Connection, *staged: sa.TableClause) -> None:
    """Do nothing: SQLite joins by the keys' index in any case."""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as SQLite keeps it: dates and times as text in UTC, booleans as 0 and 1."""
    word = word_of(column.type)
    if word == "boolean":
        column = column.cast(pa.int8())
    elif word == "date":
        column = column.cast(pa.string())
    elif word == "decimal":
        # By way of text, since Arrow's own conversion can miss the nearest float by a bit.
        column = column.cast(pa.string()).cast(pa.float64())
    elif word == "timestamp":
        text = column.cast(pa.timestamp("us")).cast(pa.string())
        column = pc.if_else(pc.ends_with(text, ".000000"), pc.utf8_slice_codeunits(text, 0, -7), text)
    if column.null_count == 0 and word_of(column.type) in ("integer", "number"):
        return column.to_numpy().tolist()  # type: ignore[no-any-return]
    return column.to_pylist()  # type: ignore[no-any-return]
