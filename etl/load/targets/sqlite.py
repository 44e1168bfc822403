"""SQLite: types, one writer at a time, and executemany over lists of columns."""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from etl.errors import EtlError, TableMismatch, TargetBusy, TargetRefused, TargetUnreachable
from etl.load.targets import TargetFacts, new_engine
from etl.load.targets import driver_errors as why
from etl.load.targets.sqlite_columns import dependents as dependents
from etl.load.targets.sqlite_columns import no_decimal as no_decimal
from etl.load.targets.sqlite_columns import statement as statement
from etl.load.targets.sqlite_columns import widen as widen
from etl.types import sql
from etl.types.words import word_of

insert = sqlite.insert

WAIT = 60  # seconds to wait for another writer

TYPES = sql.TYPES | {"integer": sa.INTEGER(), "number": sa.REAL(), "boolean": sa.INTEGER()}
TYPES |= dict.fromkeys(("date", "timestamp"), sa.TEXT())
_KEPT_AS = {"boolean": {"integer", "decimal"}, "date": {"string"}, "timestamp": {"string"}}
FITS = {word: fits | {"any"} | _KEPT_AS.get(word, set()) for word, fits in sql.FITS.items()}
FACTS = TargetFacts(
    schemas=False,
    folds_case=True,
    typed=False,
    keys=True,
    late_keys=False,
    row_keys=True,
    plain_text=True,
    writers="one",
    name_bytes=1000,
    columns=2000,
    widens=True,
    exact_decimals=False,
)
ERRORS = (sqlite3.Error,)
_DAMAGED = "is no sound SQLite database", "restore it, or name another file"
_REFUSED = {  # by how the error's name begins
    **dict.fromkeys(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"), why.READ_ONLY),
    "SQLITE_FULL": why.FULL,
    "SQLITE_IOERR": ("has a disk that can't be read or written", "look at the disk, then retry the run"),
    **dict.fromkeys(("SQLITE_NOTADB", "SQLITE_CORRUPT"), _DAMAGED),
    "SQLITE_CONSTRAINT_NOTNULL": why.NO_VALUE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": why.NO_PARENT,
    "SQLITE_CONSTRAINT_CHECK": why.CHECKED,
    "SQLITE_CONSTRAINT": why.DOUBLED,
}


@lru_cache(maxsize=16)  # keeps no connection, but the statements it has compiled
def engine(url: sa.URL) -> sa.Engine:
    """Return an engine whose transactions take the write lock at once: several writers then never collide."""
    made = new_engine(url, timeout=WAIT)

    @sa.event.listens_for(made, "connect")
    def connect(driver: Any, _record: object) -> None:
        driver.isolation_level = None  # the driver opens no transactions of its own
        if driver.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            # Another writer is at it, or the file is read-only: writing rows then says so.
            with suppress(sqlite3.Error):
                driver.execute("PRAGMA journal_mode = WAL")

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def reader(url: sa.URL, patience: float) -> sa.Engine:
    """Return an engine that only reads; in WAL mode it waits for no writer."""
    return new_engine(url, timeout=patience)


def lock(connection: sa.Connection, *names: str) -> None:
    """Do nothing: a transaction that writes is alone."""


def impatient(connection: sa.Connection) -> None:
    """Do nothing: a transaction that writes is alone."""


def write(connection: sa.Connection, table: sa.TableClause, columns: Sequence[str], chunks: Iterable[pa.Table]) -> int:
    """Add rows by executemany over lists of columns."""
    driver: Any = connection.connection.driver_connection
    quote, marks = connection.dialect.identifier_preparer.quote_identifier, ", ".join("?" * len(columns))
    statement = f"INSERT INTO {quote(table.name)} ({', '.join(map(quote, columns))}) VALUES ({marks})"
    cursor = driver.cursor()
    written = 0
    for chunk in chunks:
        cursor.executemany(statement, zip(*(_values(column) for column in chunk.columns), strict=True))
        written += cursor.rowcount
    return written


def prepare(connection: sa.Connection, *staged: sa.TableClause) -> None:
    """Do nothing: SQLite joins by the keys' index in any case."""


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


def translate(error: BaseException, where: str, *, connecting: bool = False) -> EtlError:
    """Return the error of `etl.errors` that SQLite's own means, by the name of its code."""
    name, text = getattr(error, "sqlite_errorname", ""), str(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return TargetBusy(f"{where}: database is locked by another program", why.BUSY_CURE)
    if name.startswith("SQLITE_CANTOPEN"):
        return TargetUnreachable(f"{where} can't be opened", why.NOT_OPENED_CURE)
    for begins, (what, cure) in _REFUSED.items():
        if name.startswith(begins):
            columns = re.search(r"constraint failed: (.*)", text)  # names of columns, or of a check; never values
            return TargetRefused(f"{where}{f', {columns[1]},' if columns else ''} {what}", cure)
    if name == "SQLITE_MISMATCH":
        return TableMismatch(f"{where}: {why.MISMATCH}", why.MISMATCH_CURE)
    return TargetRefused(f"{where} refused: {name or type(error).__name__}")


class Guard:
    """SQLite asks before it prepares a COMMIT or a ROLLBACK."""

    def __init__(self, connection: sa.Connection) -> None:
        self.driver: Any = connection.connection.driver_connection

    def start(self) -> None:

        def judge(action: int, *_: object) -> int:
            return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

        self.driver.set_authorizer(judge)

    def caused(self, error: BaseException | None) -> bool:
        """End the guard; say whether it raised this error of the driver."""
        self._end()
        return getattr(error, "sqlite_errorname", "") == "SQLITE_AUTH"

    def stop(self) -> bool:
        """End the guard; say whether there still is a transaction."""
        self._end()
        return bool(self.driver.in_transaction)

    def _end(self) -> None:
        with suppress(sqlite3.Error):  # the function may have closed the connection
            self.driver.set_authorizer(None)
