"""PostgreSQL's SQLSTATEs as sentences. https://www.postgresql.org/docs/current/errcodes-appendix.html"""

import re
from collections.abc import Iterable
from typing import Any

import psycopg

from etl.errors import EtlError, TableMismatch, TargetBusy, TargetRefused, TargetUnreachable
from etl.load.targets import driver_errors as why

# By SQLSTATE, or by the class that its first two characters are.
_BUSY = {
    "40": "another transaction was in the way",
    "40001": "another transaction changed the same rows",
    "40P01": "deadlock with another transaction",
    "55006": "something that is needed is in use",
    "55P03": "a lock was not to be had in time",
    "57014": "the statement took longer than the server allows",
    "57": "the server stops, starts or has canceled the work",
    "53300": "the server has too many connections",
    "57P01": "the server closed the connection",
    "57P02": "the server closed the connection",
    "25P03": "the server closed the connection, which was idle for longer than it allows",
    "25P04": "the transaction took longer than the server allows",
    "08": "the connection was cut",
}
_MISMATCH = {
    "22001": "text longer than the column takes",
    "22003": "a number larger than the column takes",
    "22007": "a text that is no date or time",
    "22008": "a date or time out of the column's range",
    "22P02": "a text that is no value of the column's type",
    "22P03": "a text that is no value of the column's type",
    "22021": "a character that the database's encoding does not have, or a NUL",
    "22P05": "a character that the database's encoding does not have",
    "2200N": "a text that is no XML",
    "2200M": "a text that is no XML document",
    "42804": "a column of another type than the rows",
    "42846": "a type that the rows can't be turned into",
}
_TEXTS = "say pattern or allowed for the column in [columns], so that such rows are rejects, or correct them"
_CURES = {
    **dict.fromkeys(("22P02", "22P03", "22026", "2200N", "2200M"), _TEXTS),
    "22021": "remove it in a function, or use a database with encoding UTF8",
    "22P05": "remove it in a function, or use a database with encoding UTF8",
}
_LOG = "look at the server's log of that moment"
_POOLER = "has forgotten a prepared statement", "connect to the server itself, or have the pooler pool by session"
_REFUSED = {
    "0A": why.NOT_SUPPORTED,
    "21": ("would change one row twice", "look for rows whose keys are equal in the table's key, such as by collation"),
    "23": ("refuses a row by a constraint", "look at the table's constraints"),
    "23001": why.CHILDREN,
    "23502": why.NO_VALUE,
    "23503": why.NO_PARENT,
    "23505": why.DOUBLED,
    "23514": why.CHECKED,
    "23P01": ("has a row that excludes another one", "correct the rows, or drop the exclusion constraint"),
    "25": ("does not go on with a transaction that has failed", f"retry the run, and {_LOG}"),
    "25006": why.READ_ONLY,
    "26": _POOLER,
    "27": ("has a trigger that changes the rows which are being written", "take the trigger off, or have it run AFTER"),
    "28": ("does not let the user in", "check user and password in the url under [targets]"),
    "2B": ("keeps what something else depends on", _LOG),
    "2D": ("ends a transaction where none may end", "look for a trigger or function that says COMMIT"),
    "2F": why.TRIGGER,
    "38": why.TRIGGER,
    "39": why.TRIGGER,
    "3B": ("has no such savepoint", "look for a trigger that uses savepoints"),
    "3D": ("has no such database", "create the database, or correct the url under [targets]"),
    "3F": why.NO_SCHEMA,
    "42": ("does not take a statement of rq-etl's", "look at the table for what is unusual: its types, keys, triggers"),
    "42501": (
        "does not permit it",
        "grant the target's user CREATE on the schema and INSERT, UPDATE, DELETE on tables",
    ),
    "42622": ("takes no name as long as that", "give a shorter one, in load.table or [columns]"),
    "42701": ("has a column of that name already", "name the column otherwise with [columns] from"),
    "42703": why.CHANGED,
    "42704": (
        "lacks a type, operator class or role that is needed",
        "for a key, choose a column whose type has an order",
    ),
    "42883": ("can't compare values of that type", "choose another column for key, by, newest or unique"),
    "42809": why.NO_VIEW,
    "42939": ("keeps that name for itself", "give load.table or the column another name"),
    "42P01": why.CHANGED,
    "42P05": _POOLER,
    "42P07": ("has something of that name already", "retry the run; if that fails too, give load.table another name"),
    "42P10": ("has no unique key of the columns", "give the table a unique index of exactly the columns of load.key"),
    "428C9": why.GENERATED,
    "44": ("refuses a row that its view would not show", "name the table itself in load.table"),
    "53": ("lacks resources", f"give the server more of them; {_LOG}"),
    "53100": why.FULL,
    "53200": why.NO_MEMORY,
    "54": ("takes no row or key as large as that", "leave long columns out of the key, or store them elsewhere"),
    "54011": why.TOO_MANY,
    "55": ("is not in a state to do it", _LOG),
    "58": why.DISK,
    "F0": ("has a configuration that is wrong", _LOG),
    "HV": ("has a foreign table that fails", "load into a table of its own; " + _LOG),
    "P0": why.TRIGGER,
    "XX": why.BROKEN,
}
_NAME = r'(?:"(?:[^"]|"")*"|\w+)'
_OTHER = "answered with an error that rq-etl does not know", _LOG


def translate(error: BaseException, where: str, *, connecting: bool = False) -> EtlError:
    """Return the error of `etl.errors` that the server's SQLSTATE means."""
    state = getattr(error, "sqlstate", None) or ""
    if not state and connecting:
        return _unreachable(error, where)
    state = state or ("08000" if isinstance(error, psycopg.OperationalError) else "")
    keys = (state, state[:2])
    if (known := next((key for key in keys if key in _BUSY), None)) and state not in _REFUSED:
        return TargetBusy(f"{where}: {_BUSY[known]}", why.BUSY_CURE)
    diag: Any = getattr(error, "diag", None)
    if diag.source_function == "exec_stmt_raise":  # a trigger's own words and names, whatever it calls them
        return _raised(where, state, diag)
    if (function := _function(diag)) and state[:2] not in ("22", "23"):  # what it names may be made of a row
        return TargetRefused(f"{where}{function}, {why.TRIGGER[0]}{_named(error, state)}", why.TRIGGER[1])
    text = diag.message_primary or ""
    column = getattr(error, _COLUMN, None) or diag.column_name or _column_in(text, state, diag)
    named = _place(diag.table_name, column, diag.constraint_name, diag.datatype_name or _type_in(text))
    place = f"{where}{function}{named}"
    if state[:2] == "22" or state in _MISMATCH:
        what = next((_MISMATCH[key] for key in keys if key in _MISMATCH), why.MISMATCH)
        return TableMismatch(f"{place}: {what}", why.TRIGGER[1] if function else _CURES.get(state, why.MISMATCH_CURE))
    special = _special(where, place, state, text, diag)
    if special:
        return TargetRefused(*special)
    what, cure = next((_REFUSED[key] for key in keys if key in _REFUSED), _OTHER)
    return TargetRefused(f"{place} {what}{_condition(error, state)}", cure)


def doubled(error: BaseException) -> list[str]:
    """Return the columns of the unique key that a row breaks; in the server's words, their values follow."""
    diag: Any = getattr(error, "diag", None)
    if diag is None or diag.source_function == "exec_stmt_raise":
        return []
    found = re.match(rf"[^()]*\(({_NAME}(?:, {_NAME})*)\)=\(", diag.message_detail or "")
    return [name.strip('"').replace('""', '"') for name in re.findall(_NAME, found[1])] if found else []


def _special(where: str, place: str, state: str, text: str, diag: Any) -> tuple[str, str] | None:
    """Return sentence and cure of what one SQLSTATE has several of."""
    if state == "23001" or (state == "23503" and text.startswith("update or delete on")):
        what, cure = why.CHILDREN
        constraint = f" (constraint {diag.constraint_name})" if diag.constraint_name else ""
        return f"{where}: rows of {diag.table_name or 'another table'} refer to {what}{constraint}", cure
    if state == "23514" and not diag.constraint_name and not diag.datatype_name:
        table = f"table {diag.table_name}" if diag.table_name else "the table"
        if "violates partition constraint" in text:
            return f"{where}: a row does not belong in the partition {table}", "name the whole table in load.table"
        return f"{where}: {table} has no partition for a row", "create the partition, or one with DEFAULT"
    if state in ("42501", "0A000") and "row-level security" in text:  # COPY knows no policies at all
        cure = "give the target's user BYPASSRLS; or, for merge and replace, a policy that permits the rows"
        return f"{place} has row-level security that refuses the rows", cure
    if state != "42501":
        return None
    if found := re.match(r"must be owner of (\w+(?: view)?) (.+)", text):
        cure = "have the target's user own it, or make the table and its columns by hand"
        return f"{where} does not permit a change of {found[1]} {found[2]}, which is another user's", cure
    if found := re.match(r"permission denied for ([a-z ]+) (\S+)$", text):
        rights = {"schema": "USAGE and CREATE", "sequence": "USAGE", "database": "CREATE and TEMPORARY"}
        given = rights.get(
            found[1], "SELECT, INSERT, UPDATE and DELETE" if found[1] == "table" else "the right to use it"
        )
        return f"{where} does not permit it: {found[1]} {found[2]}", f"grant the target's user {given} on it"
    return None


def _raised(where: str, state: str, diag: Any) -> EtlError:
    what, cure = _REFUSED.get(state, why.TRIGGER)
    return TargetRefused(f"{where}{function}, {what}" if (function := _function(diag)) else f"{where} {what}", cure)


def _function(diag: Any) -> str:
    """Return the function of the database's own that an error comes from, as part of a place; or ""."""
    found = re.search(r'(?:PL/\w+|SQL) function "?([\w.]+)', diag.context or "")
    return f", function {found[1]}" if found else ""


def _condition(error: BaseException, state: str) -> str:
    """Return the condition's name, where the sentence is that of a whole class."""
    return "" if state in _REFUSED else _named(error, state)


def _named(error: BaseException, state: str) -> str:
    return f" ({type(error).__name__}{f' {state}' if state else ''})"


def _unreachable(error: BaseException, where: str) -> EtlError:
    # libpq's text about a connection names host and user, never a row or a password.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"^connection (to server )?(at|on) .*? failed: ", "", lines[0]) if lines else type(error).__name__
    if "too many clients" in text or "remaining connection slots" in text:
        return TargetBusy(f"{where}: {_BUSY['53300']}", "lower max_active, or raise max_connections of the server")
    return TargetUnreachable(
        f"{where} can't be reached: {text}", "check the url under [targets] and that the server runs"
    )


def _place(table: str | None, column: str | None, constraint: str | None, type: str | None) -> str:
    parts = (("table", table), ("column", column), ("constraint", constraint), ("type", type))
    return "".join(f", {kind} {name}" for kind, name in parts if name)


_COLUMN = "_etl_column"


def name_column(error: psycopg.Error, columns: Iterable[str]) -> None:
    """Note on an error of a COPY which of the columns it is about; its own words quote values."""
    context = error.diag.context or ""
    for column in columns:
        if re.search(rf"^COPY .+, line \d+, column {re.escape(column)}(?:: |$)", context, re.MULTILINE):
            setattr(error, _COLUMN, column)
            return


def _column_in(text: str, state: str, diag: Any) -> str | None:
    """Return the column that a message about a statement of ours names: it is one of the statement's."""
    if state[:2] != "42" or diag.context:
        return None
    found = re.match(r'(?:cannot insert a non-DEFAULT value into )?column "([^"]+)"', text)
    return found[1] if found else None


def _type_in(text: str) -> str | None:
    found = re.match(r'invalid input (?:syntax for type|value for enum) ([\w .\[\]"]+?): "', text)
    return found[1] if found else None
