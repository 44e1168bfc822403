"""SQLite's columns: what depends on them, and other types for them, for which a table is made anew."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import sqlalchemy as sa

from etl.load.targets import Dependent, Widening
from etl.types.infer import take
from etl.types.lattice import EMPTY
from etl.types.spelling import spell
from etl.types.sql import literal, quoted
from etl.types.words import PLACES, WHOLE_DIGITS

_WORDS = {"integer": "INTEGER", "number": "REAL", "decimal": "NUMERIC", "boolean": "INTEGER"}  # all else is TEXT
_COPY = "_etl_copy"
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|"(?:[^"]|"")*"|\[[^]]*]|`(?:[^`]|``)*`|'(?:[^']|'')*'|[(),]|[^\s"'`\[(),]+""", re.S
)


def no_decimal(connection: sa.Connection, column: str) -> str:
    """Return a condition that is true for floats which are not exactly decimals of 29 digits and 9 places.

    As decimals they would stay what they are here; but whoever loads decimals first has text then, as elsewhere.
    """
    driver: Any = connection.connection.driver_connection
    driver.create_function("_etl_no_decimal", 1, _is_no_decimal, deterministic=True)
    return f"_etl_no_decimal({column})"


def _is_no_decimal(value: Any) -> bool:
    if not isinstance(value, float):
        return False
    exact = Decimal(repr(value))
    places = -int(exact.normalize().as_tuple().exponent)
    return places > PLACES or exact.adjusted() >= WHOLE_DIGITS


def widen(connection: sa.Connection, widening: Widening) -> None:
    """Make a table anew with other types of some columns, its rows copied in between; see `Target`."""
    _, table, changes, zones, zone = widening
    is_temporary = connection.exec_driver_sql(
        "SELECT 1 FROM sqlite_temp_schema WHERE type = 'table' AND lower(name) = lower(?)", (table,)
    ).first()
    book = "sqlite_temp_schema" if is_temporary else "sqlite_schema"
    found = "SELECT sql FROM {} WHERE type = '{}' AND lower(tbl_name) = lower(?) AND sql IS NOT NULL"
    [(made,)] = connection.exec_driver_sql(found.format(book, "table"), (table,)).all()
    indexes = [sql for (sql,) in connection.exec_driver_sql(found.format(book, "index"), (table,))]
    columns = [row[1] for row in _columns(connection, table) if not row[6]]
    folded = {name.lower(): change for name, change in changes.items()}
    driver: Any = connection.connection.driver_connection

    def spelled(value: Any, old: str, new: str, client: str | None) -> Any:
        return _spelled(value, old, new, zones.get(client or "", zone))

    driver.create_function("_etl_spelled", 4, spelled, deterministic=True)
    client = quoted("_client") if zones and "_client" in columns else "NULL"
    values = [
        f"_etl_spelled({quoted(name)}, '{change.old}', '{change.new}', {client}) AS {quoted(name)}"
        if (change := folded.get(name.lower()))
        else quoted(name)
        for name in columns
    ]
    names, where = ", ".join(map(quoted, columns)), quoted(table)
    retyped = _retyped(made, {name: _WORDS.get(change.new, "TEXT") for name, change in folded.items()})
    if is_temporary:
        retyped = re.sub(r"(?i)^CREATE TABLE", "CREATE TEMPORARY TABLE", retyped)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_COPY} AS SELECT {', '.join(values)} FROM {where}")
    for statement in (
        f"DROP TABLE {where}",
        retyped,
        f"INSERT INTO {where} ({names}) SELECT {names} FROM temp.{_COPY} ORDER BY rowid",
        f"DROP TABLE temp.{_COPY}",
        *indexes,
    ):
        driver.execute(statement)  # as it is: SQLAlchemy would take % and : in names for its own


def statement(connection: sa.Connection, widening: Widening) -> str:
    """Return statements that give columns other types: SQLite can only put another column in a column's place."""
    _, table, changes, zones, zone = widening
    where, found = quoted(table), []
    for name, change in changes.items():
        column, was = quoted(name), quoted(f"{name}_was")
        is_day = change.old == "date" and change.new == "timestamp"
        value = _first_moments(connection, table, name, zones, zone) if is_day else _expression(was, change)
        found += [
            f"ALTER TABLE {where} RENAME COLUMN {column} TO {was}",
            f"ALTER TABLE {where} ADD COLUMN {column} {_WORDS.get(change.new, 'TEXT')}",
            f"UPDATE {where} SET {column} = {value}",
            f"ALTER TABLE {where} DROP COLUMN {was}",
        ]
    return "; ".join(found)


def dependents(
    connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], key: Collection[str]
) -> dict[str, list[Dependent]]:
    """Return, for columns that something depends on, what that is; see `Target`."""
    found: dict[str, list[Dependent]] = {}
    wanted = {name.lower(): name for name in columns}

    def add(names: Collection[str | None], what: str, *, goes: bool = False) -> None:
        for name in names:
            if name and name.lower() in wanted:
                found.setdefault(wanted[name.lower()], []).append(Dependent(what, goes))

    for name, type, words in reversed(_naming(connection, table)):
        every = type == "trigger" or any("*" in word for word in words)
        add([each for each in columns if every or each.lower() in words], f"{type} {name}", goes=True)
    for index in connection.exec_driver_sql(f"PRAGMA index_list({quoted(table)})").all():
        parts = [row[2] for row in connection.exec_driver_sql(f"PRAGMA index_info({quoted(index[1])})")]
        if not (index[2] and not index[4] and {part and part.lower() for part in parts} == {k.lower() for k in key}):
            add(list(columns) if None in parts or index[4] else parts, f"index {index[1]}", goes=index[3] == "c")
    tables = [name for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for other in tables:
        for row in connection.exec_driver_sql(f"PRAGMA foreign_key_list({quoted(other)})").all():
            if row[2].lower() == table.lower():
                add([row[4]] if row[4] else list(key), f"foreign key of {other}")
            if other.lower() == table.lower():
                add([row[3]], f"foreign key to {row[2]}")
    query = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"
    made = connection.exec_driver_sql(query, (table,)).scalar()
    if any(token.upper() == "CHECK" for token in _TOKEN.findall(made or "")):
        add(columns, "a check of the table")
    if any(row[6] for row in _columns(connection, table)):
        add(columns, "a generated column")
    return found


def _naming(connection: sa.Connection, table: str) -> list[tuple[str, str, set[str]]]:
    """Return the triggers and views that name a table, or a view that does, with their words; those of views last."""
    query = "SELECT name, sql, type FROM sqlite_schema WHERE type IN ('trigger', 'view') ORDER BY 1 DESC"
    rest, found, names = [], list[tuple[str, str, set[str]]](), {table.lower()}
    for name, sql, type in connection.exec_driver_sql(query):
        words = {_plain(token).lower() for token in _TOKEN.findall(sql)}
        rest.append((name, type, words | {part for word in words for part in word.split(".")}))
    while some := [each for each in rest if each[2] & names]:
        found += some
        rest = [each for each in rest if each not in some]
        names = {name.lower() for name, type, _ in some if type == "view"}
    return found


def _columns(connection: sa.Connection, table: str) -> list[Any]:
    return list(connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(table)})"))


def _spelled(value: Any, old: str, new: str, zone: str) -> Any:
    if value is None or old == EMPTY or (isinstance(value, str) and old not in ("date", "timestamp")):
        return value
    if new in ("integer", "decimal"):
        return value
    if new == "number":
        return float(value)
    if new == "timestamp":
        return _midnight(str(value), zone)
    if old == "boolean":
        return "true" if value else "false"
    return f"{value}Z" if old == "timestamp" and len(str(value)) > 10 else spell(value)


@lru_cache(maxsize=10_000)
def _midnight(date: str, zone: str) -> str:
    moment = take(pa.chunked_array([pa.array([date])]), "timestamp", zone)[0][0].as_py()
    return date if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")


def _first_moments(connection: sa.Connection, table: str, name: str, zones: Mapping[str, str], zone: str) -> str:
    """Return an expression of the first moments of a column's dates in UTC: SQLite knows no zones, and no clocks."""
    ends = f"SELECT min({quoted(name)}), max({quoted(name)}) FROM {quoted(table)}"
    first, last = (
        date.fromisoformat(str(end)) if _DAY.fullmatch(str(end)) else date.min
        for end in connection.exec_driver_sql(ends).one()
    )
    column = quoted(f"{name}_was")

    def shifted(zone: str) -> str:
        begins: list[tuple[date, int]] = []
        for ordinal in range(first.toordinal(), last.toordinal() + 1):
            day = date.fromordinal(ordinal)
            offset = datetime.combine(day, time.min, ZoneInfo(zone)).utcoffset() or timedelta()
            if not begins or begins[-1][1] != offset.total_seconds():
                begins.append((day, int(offset.total_seconds())))
        found = [f"datetime({column}, '{-seconds:+d} seconds')" for _, seconds in begins]
        whens = [f"WHEN {column} < '{end}' THEN {each}" for (end, _), each in zip(begins[1:], found, strict=False)]
        return f"CASE {' '.join(whens)} ELSE {found[-1]} END" if whens else found[-1]

    others = [f'WHEN "_client" = {literal(client)} THEN {shifted(its)}' for client, its in sorted(zones.items())]
    return f"CASE {' '.join(others)} ELSE {shifted(zone)} END" if others else shifted(zone)


def _expression(column: str, change: Any) -> str:
    if change.new in ("integer", "number", "decimal"):
        return column
    if change.old == "boolean":
        return f"CASE {column} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE CAST({column} AS TEXT) END"
    if change.old == "timestamp":
        return f"{column} || 'Z'"
    if change.old in ("number", "decimal"):
        whole = f"{column} = CAST({column} AS INTEGER) AND abs({column}) <= {2**53}"
        return f"CASE WHEN {whole} THEN CAST(CAST({column} AS INTEGER) AS TEXT) ELSE CAST({column} AS TEXT) END"
    return f"CAST({column} AS TEXT)"


def _retyped(made: str, types: Mapping[str, str]) -> str:
    """Return a CREATE TABLE with other types of some columns.

    Args:
        types: By the columns' names in lower case.
    """
    out, end = [], 0
    for start, stop, name in _declared(made):
        if name.lower() in types:
            out += [made[end:start], types[name.lower()]]
            end = stop
    return "".join([*out, made[end:]])


def _declared(made: str) -> Iterator[tuple[int, int, str]]:
    """Yield where in a CREATE TABLE the type of each column is (one word, as we write it), and the column's name."""
    depth, first, name = 0, True, ""
    for token in _TOKEN.finditer(made):
        text = token[0]
        if text.startswith(("--", "/*")):
            continue
        if text == "(":
            depth += 1
            first, name = depth == 1, "" if depth == 1 else name
        elif text == ")":
            depth -= 1
        elif text == "," and depth == 1:
            first, name = True, ""
        elif depth == 1 and first:
            first, name = False, _plain(text)
        elif depth == 1 and name:
            yield token.start(), token.end(), name
            name = ""


def _plain(token: str) -> str:
    if token[:1] in ('"', "`") and len(token) > 1:
        return token[1:-1].replace(token[0] * 2, token[0])
    return token[1:-1] if token.startswith("[") else token
