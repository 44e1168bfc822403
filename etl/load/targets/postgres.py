"""PostgreSQL: types, locks, and COPY of CSV bytes made by pyarrow."""

import hashlib
import re
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

from etl.errors import EtlError, TableMismatch, TargetBusy, TargetRefused, TargetUnreachable
from etl.load.targets import TargetFacts, new_engine
from etl.load.targets import driver_errors as why
from etl.load.targets.postgres_columns import dependents as dependents
from etl.load.targets.postgres_columns import no_decimal as no_decimal
from etl.load.targets.postgres_columns import statement as statement
from etl.load.targets.postgres_columns import widen as widen
from etl.prefetch import prefetch
from etl.types import sql
from etl.types.words import word_of

insert = postgresql.insert

TYPES, FITS = sql.TYPES, sql.FITS
FACTS = TargetFacts(
    schemas=True,
    folds_case=False,
    typed=True,
    keys=True,
    late_keys=True,
    row_keys=False,
    plain_text=False,
    writers="many",
    name_bytes=63,  # longer names are cut by the server, silently
    columns=1600,
    widens=True,
)
ERRORS = (psycopg.Error,)
_DRIVER = "postgresql+psycopg"
# SQLSTATE, or the class that its first two characters are. https://www.postgresql.org/docs/current/errcodes-appendix.html
_BUSY = {
    "40001": "another transaction changed the same rows",
    "40P01": "deadlock with another transaction",
    "55P03": "a lock was not to be had in time",
    "57014": "the statement took longer than the server allows",
    "53300": "the server has too many connections",
    "57P01": "the server closed the connection",
    "57P02": "the server closed the connection",
    "08": "the connection was cut",
}
_MISMATCH = {"22001": "text longer than the column takes", "22003": "a number larger than the column takes"}
_REFUSED = {
    "25006": why.READ_ONLY,
    "42501": (
        "does not permit it",
        "grant the target's user CREATE on the schema and INSERT, UPDATE, DELETE on tables",
    ),
    "53100": why.FULL,
    "53200": why.NO_MEMORY,
    "3F000": why.NO_SCHEMA,
    "22021": ("does not take a character of the text (a NUL)", "remove it in a transform function"),
    "23502": why.NO_VALUE,
    "23503": why.NO_PARENT,
    "23505": why.DOUBLED,
    "23514": why.CHECKED,
}


@lru_cache(maxsize=16)  # keeps no connection, but the statements it has compiled
def engine(url: sa.URL) -> sa.Engine:
    """Return an engine that opens one connection for each use."""
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": "10"}
    made = new_engine(url.set(drivername=_DRIVER), application_name="rq-etl", **arguments)

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        # Times are written without a zone, which is a good deal faster, and meant in UTC.
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")

    return made


def reader(url: sa.URL, patience: float) -> sa.Engine:
    """Return an engine that gives up connecting after `patience` seconds."""
    return new_engine(url.set(drivername=_DRIVER), application_name="rq-etl", connect_timeout=str(patience))


def lock(connection: sa.Connection, *names: str) -> None:
    """Wait for a lock that is held until the transaction ends; `names` say what is locked."""
    number = int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big", signed=True)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


def impatient(connection: sa.Connection) -> None:
    """Give up after half a second where others hold a lock: whoever asks after us waits behind us."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")


def write(connection: sa.Connection, table: sa.TableClause, columns: Sequence[str], chunks: Iterable[pa.Table]) -> int:
    """Add rows by COPY of CSV bytes."""
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


def translate(error: BaseException, where: str, *, connecting: bool = False) -> EtlError:
    """Return the error of `etl.errors` that the server's SQLSTATE means."""
    state = getattr(error, "sqlstate", None) or ""
    if not state and connecting:
        return _unreachable(error, where)
    state = state or ("08000" if isinstance(error, psycopg.OperationalError) else "")
    known = next((key for key in (state, state[:2]) if key in _BUSY), None)
    if known:
        return TargetBusy(f"{where}: {_BUSY[known]}", why.BUSY_CURE)
    diag: Any = getattr(error, "diag", None)
    place = f"{where}{_place(diag.table_name, diag.column_name or _copy_column(diag.context), diag.constraint_name)}"
    if state in _REFUSED:
        what, cure = _REFUSED[state]
        return TargetRefused(f"{place} {what}", cure)
    if state[:2] == "22" or state == "42804":
        return TableMismatch(f"{place}: {_MISMATCH.get(state, why.MISMATCH)}", why.MISMATCH_CURE)
    name = type(error).__name__
    return TargetRefused(f"{place} refused: {name} ({state})" if state else f"{place} refused: {name}")


def _unreachable(error: BaseException, where: str) -> EtlError:
    # libpq's text about a connection names host and user, never a row or a password.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"^connection (to server )?(at|on) .*? failed: ", "", lines[0]) if lines else type(error).__name__
    if "too many clients" in text or "remaining connection slots" in text:
        return TargetBusy(f"{where}: {_BUSY['53300']}", "lower max_active, or raise max_connections of the server")
    return TargetUnreachable(
        f"{where} can't be reached: {text}", "check the url under [targets] and that the server runs"
    )


def _place(table: str | None, column: str | None, constraint: str | None) -> str:
    parts = (("table", table), ("column", column), ("constraint", constraint))
    return "".join(f", {kind} {name}" for kind, name in parts if name)


def _copy_column(context: str | None) -> str | None:
    """Return the column out of "COPY claims, line 3, column amount: "…"" (what follows is a value)."""
    found = re.match(r'COPY [^,]+, line \d+, column ([^:"]+)', context or "")
    return found[1] if found else None


class Guard:
    """A deferred constraint that is broken meanwhile: PostgreSQL itself then refuses to commit."""

    NAME = "_etl_guard"

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def start(self) -> None:
        columns = "one int UNIQUE DEFERRABLE INITIALLY DEFERRED"
        create = f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.NAME} ({columns}) ON COMMIT DROP"
        self.connection.exec_driver_sql(create)
        self.connection.exec_driver_sql(f"INSERT INTO {self.NAME} VALUES (1), (1)")

    def caused(self, error: BaseException | None) -> bool:
        """Say whether the broken constraint raised this error of the driver."""
        return getattr(getattr(error, "diag", None), "table_name", None) == self.NAME

    def stop(self) -> bool:
        try:
            self.connection.exec_driver_sql(f"DELETE FROM {self.NAME}")
        except sa.exc.DBAPIError:
            return False
        return True
