"""PostgreSQL's columns: what depends on them, and other types for them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from etl.types.lattice import EMPTY
from etl.types.sql import quoted, zone_of

_TYPES = {
    "string": "TEXT", "integer": "BIGINT", "number": "DOUBLE PRECISION", "decimal": "NUMERIC", "boolean": "BOOLEAN",
    "date": "DATE", "timestamp": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip
_OWN_KEY = """
    SELECT i.indexrelid FROM pg_index i
    WHERE i.indrelid = t.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
    AND ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = t.oid AND a.attnum = ANY(i.indkey::smallint[]) ORDER BY 1) = %(key)s::text[]"""
_DEPENDENTS = f"""
    SELECT a.attname::text, pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.refobjsubid = a.attnum
    WHERE t.oid = to_regclass(%(table)s) AND a.attname = ANY(%(columns)s::text[])
    AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN ({_OWN_KEY}))
    AND NOT (d.classid = 'pg_constraint'::regclass AND d.objid IN (
        SELECT c.oid FROM pg_constraint c WHERE c.contype IN ('p', 'u', 'n') AND
        (c.contype = 'n' OR c.conindid IN ({_OWN_KEY}))))
    UNION ALL
    SELECT a.attname::text, 'trigger ' || g.tgname FROM pg_trigger g, pg_attribute a
    WHERE g.tgrelid = to_regclass(%(table)s) AND NOT g.tgisinternal
    AND a.attrelid = g.tgrelid AND a.attname = ANY(%(columns)s::text[])
    UNION ALL
    SELECT a.attname::text, 'the partitions of the table' FROM pg_class t, pg_attribute a
    WHERE t.oid = to_regclass(%(table)s) AND (t.relkind = 'p' OR t.relispartition)
    AND a.attrelid = t.oid AND a.attname = ANY(%(columns)s::text[])
    ORDER BY 1, 2"""


def no_decimal(column: str) -> str:
    """Return a condition that is true for floats which are not exactly decimals of 29 digits and 9 places."""
    exact = f"round({column}::text::numeric, 9) = {column}::text::numeric"
    finite = f"{column} > '-Infinity' AND {column} < 'Infinity' AND abs({column}) < 1e29"
    return f"{column} IS NOT NULL AND NOT CASE WHEN {finite} THEN {exact} ELSE false END"


def widen(
    connection: sa.Connection,
    schema: str | None,
    table: str,
    changes: Mapping[str, Any],
    zones: Mapping[str, str],
    zone: str,
) -> None:
    """Alter the types of columns; see `Target`."""
    driver: Any = connection.connection.driver_connection
    driver.execute(statement(connection, schema, table, changes, zone, zones).encode())


def statement(
    connection: sa.Connection,
    schema: str | None,
    table: str,
    changes: Mapping[str, Any],
    zone: str,
    zones: Mapping[str, str] | None = None,
) -> str:
    """Return the statement that gives columns other types, with their values."""
    altered = [
        f"ALTER COLUMN {quoted(name)} TYPE {_TYPES[change.new]} USING {_expression(quoted(name), change, zones, zone)}"
        for name, change in changes.items()
    ]
    return f"ALTER TABLE {_place(schema, table)} {', '.join(altered)}"


def dependents(
    connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], key: Collection[str]
) -> dict[str, str]:
    """Return, for columns that something depends on, what that is; see `Target`."""
    driver: Any = connection.connection.driver_connection
    given = {"table": _place(schema, table), "columns": list(columns), "key": sorted(key)}
    return dict(driver.execute(_DEPENDENTS.encode(), given).fetchall())


def _expression(column: str, change: Any, zones: Mapping[str, str] | None, zone: str) -> str:
    old, new = change.old, change.new
    if old == EMPTY:
        return f"NULL::{_TYPES[new]}"
    if new == "timestamp":
        return f"{column}::timestamp AT TIME ZONE {zone_of(zones, zone)}"
    if old == "number" and new == "decimal":
        return f"{column}::text::numeric"  # a cast of the float itself has 15 digits
    if new != "string":
        return f"{column}::{_TYPES[new]}"
    if old == "decimal":
        return (
            f"CASE WHEN {column}::text LIKE '%.%' THEN rtrim(rtrim({column}::text, '0'), '.') ELSE {column}::text END"
        )
    if old == "date":
        return f"to_char({column}, 'YYYY-MM-DD')"
    if old == "timestamp":
        written = f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
        return f"replace({written} || 'Z', '.000000Z', 'Z')"
    return f"{column}::text"


def _place(schema: str | None, table: str) -> str:
    return ".".join(quoted(part) for part in (schema, table) if part)
