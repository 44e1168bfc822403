"""SQLite: types, one writer at a time, and executemany over lists of columns."""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from etl.errors import EtlError, TableMismatch, TargetBusy, TargetRefused, TargetUnreachable
from etl.load.targets import Relation, TargetFacts, new_engine
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
    plain="BINARY",
    writers="one",
    name_bytes=1000,
    columns=2000,
    widens=True,
    exact_decimals=False,
)
ERRORS = (sqlite3.Error,)
_DAMAGED = "is no sound SQLite database", "restore it, or name another file"
_FOREIGN = (
    "refuses a row whose foreign key finds no row, or rows which others refer to",
    'load the table it refers to first; to replace rows that others refer to, use mode = "merge"',
)
_REFUSED = {  # by how the error's name begins; the first
    **dict.fromkeys(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"), why.READ_ONLY),
    "SQLITE_FULL": why.FULL,
    "SQLITE_IOERR": why.DISK,
    "SQLITE_NOMEM": why.NO_MEMORY,
    **dict.fromkeys(("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_FORMAT"), _DAMAGED),
    "SQLITE_CONSTRAINT_NOTNULL": why.NO_VALUE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": _FOREIGN,
    "SQLITE_CONSTRAINT_CHECK": why.CHECKED,
    **dict.fromkeys(("SQLITE_CONSTRAINT_TRIGGER", "SQLITE_CONSTRAINT_FUNCTION"), why.TRIGGER),
    **dict.fromkeys(
        ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"), why.DOUBLED
    ),
    "SQLITE_CONSTRAINT": ("refuses a row by a constraint", "look at the table's constraints and triggers"),
    "SQLITE_TOOBIG": why.TOO_LONG,
    "SQLITE_SCHEMA": why.CHANGED,
    **dict.fromkeys(("SQLITE_INTERRUPT", "SQLITE_ABORT"), ("was interrupted while it worked", "retry the run")),
    **dict.fromkeys(("SQLITE_INTERNAL", "SQLITE_MISUSE", "SQLITE_RANGE"), why.BROKEN),
    "SQLITE_NOLFS": ("can't be larger on this disk", "move the file to another disk"),
}
# Messages that SQLITE_ERROR is known to come with; in them are names, and no values.
_MESSAGES = (
    (r"no such (?:table|column): .*", why.CHANGED),
    (r"table .* has no column named .*", why.CHANGED),
    (r"(?:duplicate column name|table .* already exists|index .* already exists).*", why.CHANGED),
    (r"cannot (?:modify|INSERT into|UPDATE|DELETE from) .* because it is a view", why.NO_VIEW),
    (r'cannot (?:INSERT into|UPDATE) generated column ".*"', why.GENERATED),
    (r"too many columns .*", why.TOO_MANY),
    (r"object name reserved for internal use: .*", ("keeps that name for itself", "give load.table another name")),
    (r"ON CONFLICT clause does not match .*", ("has no unique key of load.key's columns", "give the table one")),
    (r"foreign key mismatch - .*", ("has a foreign key to columns that have no unique key", "give those one")),
    (r"no such (?:function|collation sequence|module): .*", why.NOT_SUPPORTED),
    (r"malformed database schema .*", _DAMAGED),
)
_NOT_SUPPORTED = (
    "does not take a statement of rq-etl's",
    "look at the table for what is unusual: triggers, checks, keys",
)


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


def hold(connection: sa.Connection, schema: str | None, table: str, *, adds: bool) -> None:
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


def describe(connection: sa.Connection, schema: str | None, table: str) -> Relation | None:
    """Return what a table is and which columns it has, or None where there is none."""
    query = "SELECT type FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
    kind = connection.exec_driver_sql(query, (table,)).scalar()
    if kind is None:
        return None
    columns = connection.exec_driver_sql("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)).all()
    generated = frozenset(name for name, hidden in columns if hidden in (2, 3))
    return Relation(str(kind), tuple(name for name, hidden in columns if hidden != 1), generated)


def collations(connection: sa.Connection, schema: str | None, table: str) -> dict[str, str]:
    """Return the collations of a table's columns by which texts that differ are equal."""
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
    made = connection.exec_driver_sql(query, (table,)).scalar()
    if made is None or "collate" not in made.lower():
        return {}
    # SQLite tells the collation of an index's column only; an empty table of the same making gets one of each.
    found = {}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
        empty.execute(made)
        for (name,) in empty.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall():
            quoted = [part.replace('"', '""') for part in (table, name)]
            empty.execute('CREATE INDEX "_etl_collation" ON "{}" ("{}")'.format(*quoted))
            found[name] = empty.execute("SELECT coll FROM pragma_index_xinfo('_etl_collation')").fetchone()[0]
            empty.execute('DROP INDEX "_etl_collation"')
    return {name: collation for name, collation in found.items() if collation != "BINARY"}


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
    if name in ("SQLITE_MISMATCH", "SQLITE_CONSTRAINT_DATATYPE"):
        found = re.fullmatch(r"cannot store \w+ value in \w+ column (.*)", text)  # of a table that is STRICT
        place = f", column {found[1]}" if found else ""
        return TableMismatch(f"{where}{place}: {why.MISMATCH}", why.MISMATCH_CURE)
    for begins, (what, cure) in _REFUSED.items():
        if name.startswith(begins):
            return TargetRefused(f"{where}{_place(name, text)} {what}", cure)
    if name == "SQLITE_ERROR":
        for pattern, (what, cure) in _MESSAGES:
            if re.fullmatch(pattern, text):
                return TargetRefused(f"{where} {what}: {text}", cure)
    return TargetRefused(f"{where} {_NOT_SUPPORTED[0]} ({name or type(error).__name__})", _NOT_SUPPORTED[1])


def doubled(error: BaseException) -> list[str]:
    """Return the columns of the unique key that a row breaks."""
    found = re.fullmatch(r"UNIQUE constraint failed: (\S+\.\S+(?:, \S+\.\S+)*)", str(error))
    return [name.rpartition(".")[2] for name in found[1].split(", ")] if found else []


def _place(name: str, text: str) -> str:
    """Return the columns, or the check, that a constraint's message names; the words of a trigger are its own."""
    found = re.fullmatch(r"(?:UNIQUE|NOT NULL|CHECK|PRIMARY KEY) constraint failed: (.*)", text)
    return f", {found[1]}," if found and not name.endswith("_TRIGGER") else ""


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
