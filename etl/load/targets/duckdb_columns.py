"""DuckDB's columns: what depends on them, and other types for them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from etl.load.targets import Dependent, Widening
from etl.types.lattice import EMPTY
from etl.types.sql import quoted, zone_of

_TYPES = {
    "string": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "decimal": "DECIMAL(38,9)", "boolean": "BOOLEAN",
    "date": "DATE", "timestamp": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip


def no_decimal(connection: sa.Connection, column: str) -> str:
    """Return a condition that is true for floats which are not exactly decimals of 29 digits and 9 places."""
    decimal = f"TRY_CAST(CAST({column} AS VARCHAR) AS DECIMAL(38,9))"
    return f"CAST(CAST({decimal} AS VARCHAR) AS DOUBLE) IS DISTINCT FROM {column}"


def widen(connection: sa.Connection, widening: Widening) -> None:
    """Alter the types of columns; see `Target`."""
    driver: Any = connection.connection.driver_connection
    for each in _statements(widening):
        driver.execute(each, ())


def statement(connection: sa.Connection, widening: Widening) -> str:
    """Return the statements that give columns other types, with their values."""
    return "; ".join(_statements(widening))


def dependents(
    connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], key: Collection[str]
) -> dict[str, list[Dependent]]:
    """Return, for columns that something depends on, what that is; see `Target`."""
    where = (table, schema or "main")
    found: dict[str, list[Dependent]] = {}

    def add(names: Iterable[str], what: str, *, goes: bool) -> None:
        for name in names:
            found.setdefault(name, []).append(Dependent(what, goes))

    ask = connection.exec_driver_sql
    for name, sql in ask("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY 1").all():
        if re.search(rf"(?<!\w){re.escape(table)}(?!\w)", sql):
            add(columns, f"view {name}", goes=True)
    for (name,) in ask("SELECT index_name FROM duckdb_indexes() WHERE table_name = ? AND schema_name = ?", where).all():
        add(columns, f"index {name}", goes=True)
    query = (
        "SELECT constraint_type, constraint_column_names FROM duckdb_constraints()"
        " WHERE table_name = ? AND schema_name = ? AND constraint_type <> 'NOT NULL'"
    )
    for kind, names in ask(query, where).all():
        add([column for column in columns if column in (names or ())], f"{kind.lower()} constraint", goes=False)
    return found


def _statements(widening: Widening) -> list[str]:
    schema, table, changes, zones, zone = widening
    where = ".".join(quoted(part) for part in (schema, table) if part)
    return [
        f"ALTER TABLE {where} ALTER COLUMN {quoted(name)} SET DATA TYPE {_TYPES[change.new]}"
        f" USING {_expression(quoted(name), change, zones, zone)}"
        for name, change in changes.items()
    ]


def _expression(column: str, change: Any, zones: Mapping[str, str], zone: str) -> str:
    old, new = change.old, change.new
    if old == EMPTY:
        return f"CAST(NULL AS {_TYPES[new]})"
    if new == "timestamp":
        return f"timezone({zone_of(zones, zone)}, CAST({column} AS TIMESTAMP))"
    if old == "number" and new == "decimal":
        return f"CAST(CAST({column} AS VARCHAR) AS {_TYPES[new]})"  # its own cast finds other digits beyond the 15th
    if new != "string":
        return f"CAST({column} AS {_TYPES[new]})"
    if old == "number":
        whole = f"{column} = floor({column}) AND abs({column}) <= {2**53}"
        return f"CASE WHEN {whole} THEN CAST(CAST({column} AS BIGINT) AS VARCHAR) ELSE CAST({column} AS VARCHAR) END"
    if old == "decimal":
        return f"rtrim(rtrim(CAST({column} AS VARCHAR), '0'), '.')"
    if old == "timestamp":
        written = f"strftime(timezone('UTC', {column}), '%Y-%m-%d %H:%M:%S.%f')"
        return f"replace({written} || 'Z', '.000000Z', 'Z')"
    return f"CAST({column} AS VARCHAR)"
