"""Drivers' exceptions as the nouns of `etl.errors`. Drivers quote values of rows, so their text is seldom kept."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from etl.errors import EtlError, TableMismatch, TargetBusy, TargetRefused, TargetUnreachable

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
_REFUSED = {
    "25006": ("is read-only", "give the pipeline a target that can be written"),
    "42501": (
        "does not permit it",
        "grant the target's user CREATE on the schema and INSERT, UPDATE, DELETE on tables",
    ),
    "53100": ("has a full disk", "make room, then retry the run"),
    "53200": ("is out of memory", "give the server more memory, then retry the run"),
    "3F000": ("has no such schema", "create the schema first: rq-etl makes tables only"),
    "22021": ("does not take a character of the text (a NUL)", "remove it in a transform function"),
    "23502": ("needs a value where a row has none", "make the column required, or drop its NOT NULL"),
    "23503": ("refuses a row that refers to one that is missing", "load the table it refers to first"),
    "23505": ("has a row with the same unique values", 'use mode = "merge" with that key, or drop the constraint'),
    "23514": ("refuses a row by a check of its own", "check the column in [columns], or drop the constraint"),
}
_MISMATCH_CURE = "give the column another type in [columns], or alter the table"


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what a driver raises inside the block into an EtlError.

    Args:
        where: The target as users know it, without a password.
    """
    try:
        yield
    except (sa.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error) as error:
        raise translate(error, where) from error


def translate(error: BaseException, where: str) -> EtlError:
    """Return the EtlError that a driver's exception stands for."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, psycopg.Error):
        return _of_postgres(original, where)
    if isinstance(original, sqlite3.Error):
        return _of_sqlite(original, where)
    return TargetRefused(f"{where}: {type(error).__name__}", "see the run's log for the full text")


def unreachable(error: BaseException, where: str) -> EtlError:
    """Return the error for a connection that could not be opened."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, sqlite3.Error) or getattr(original, "sqlstate", None):
        return translate(error, where)
    # libpq's text about a connection names host and user, never a row or a password.
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    why = re.sub(r"^connection (to server )?(at|on) .*? failed: ", "", lines[0]) if lines else type(original).__name__
    if "too many clients" in why or "remaining connection slots" in why:
        return TargetBusy(f"{where}: {_BUSY['53300']}", "lower max_active, or raise max_connections of the server")
    return TargetUnreachable(
        f"{where} can't be reached: {why}", "check the url under [targets] and that the server runs"
    )


def _of_postgres(error: psycopg.Error, where: str) -> EtlError:
    state = error.sqlstate or ("08000" if isinstance(error, psycopg.OperationalError) else "")
    known = next((key for key in (state, state[:2]) if key in _BUSY), None)
    if known:
        return TargetBusy(f"{where}: {_BUSY[known]}", "it is tried again by itself")
    diag = error.diag
    place = f"{where}{_place(diag.table_name, diag.column_name or _copy_column(diag.context), diag.constraint_name)}"
    if state in _REFUSED:
        why, cure = _REFUSED[state]
        return TargetRefused(f"{place} {why}", cure)
    if state == "22001":
        return TableMismatch(f"{place}: text longer than the column takes", _MISMATCH_CURE)
    if state == "22003":
        return TableMismatch(f"{place}: a number larger than the column takes", _MISMATCH_CURE)
    if state[:2] == "22" or state == "42804":
        return TableMismatch(f"{place}: a value that does not fit the column's type", _MISMATCH_CURE)
    name = type(error).__name__
    return TargetRefused(f"{place} refused: {name} ({state})" if state else f"{place} refused: {name}")


def _of_sqlite(error: sqlite3.Error, where: str) -> EtlError:
    name, text = getattr(error, "sqlite_errorname", ""), str(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return TargetBusy(f"{where}: database is locked by another program", "it is tried again by itself")
    if name.startswith("SQLITE_CANTOPEN"):
        return TargetUnreachable(
            f"{where} can't be opened", "check the path of the url under [targets], and its rights"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return TargetRefused(f"{where} {_REFUSED['25006'][0]}", _REFUSED["25006"][1])
    if name.startswith("SQLITE_FULL"):
        return TargetRefused(f"{where} {_REFUSED['53100'][0]}", _REFUSED["53100"][1])
    if name.startswith("SQLITE_IOERR"):
        return TargetRefused(f"{where}: its disk can't be read or written", "look at the disk, then retry the run")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return TargetRefused(f"{where} is no sound SQLite database", "restore it, or name another file")
    if name.startswith("SQLITE_CONSTRAINT"):
        state = {"NOTNULL": "23502", "FOREIGNKEY": "23503", "CHECK": "23514"}.get(name.split("_")[-1], "23505")
        columns = re.search(r"constraint failed: (.*)", text)  # names of columns, or of a check; never values
        why, cure = _REFUSED[state]
        return TargetRefused(f"{where}{f', {columns[1]},' if columns else ''} {why}", cure)
    if name == "SQLITE_MISMATCH":
        return TableMismatch(f"{where}: a value that does not fit the column's type", _MISMATCH_CURE)
    return TargetRefused(f"{where} refused: {name or type(error).__name__}")


def _place(table: str | None, column: str | None, constraint: str | None) -> str:
    parts = (("table", table), ("column", column), ("constraint", constraint))
    return "".join(f", {kind} {name}" for kind, name in parts if name)


def _copy_column(context: str | None) -> str | None:
    """Return the column out of "COPY claims, line 3, column amount: "…"" (what follows is a value)."""
    found = re.match(r'COPY [^,]+, line \d+, column ([^:"]+)', context or "")
    return found[1] if found else None
