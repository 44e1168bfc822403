"""PostgreSQL's columns: what depends on them, and other types for them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from etl.load.targets import Dependent, Widening
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
# A view of a view goes before it. ALTER TABLE itself makes indexes and keys anew, where they have no expression.
_DEPENDENTS = f"""
    WITH RECURSIVE direct AS (
        SELECT a.attname::text AS name, a.attnum, d.classid, d.objid, d.objsubid
        FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.refobjsubid = a.attnum
        WHERE t.oid = to_regclass(%(table)s) AND a.attname = ANY(%(columns)s::text[])
        AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN ({_OWN_KEY}))
        AND NOT (d.classid = 'pg_constraint'::regclass AND d.objid IN (
            SELECT c.oid FROM pg_constraint c WHERE c.contype IN ('p', 'u', 'n') AND
            (c.contype = 'n' OR c.conindid IN ({_OWN_KEY}))))
    ), views AS (
        SELECT d.name, r.ev_class AS view, 1 AS depth FROM direct d
        JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.rulename = '_RETURN'
        UNION
        SELECT v.name, r.ev_class, v.depth + 1 FROM views v
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.view
        JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.rulename = '_RETURN'
        WHERE r.ev_class <> v.view
    )
    SELECT name, pg_describe_object('pg_class'::regclass, view, 0), true, max(depth) FROM views GROUP BY name, view
    UNION ALL
    SELECT d.name, CASE WHEN g.attname IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid)
        ELSE 'generated column ' || g.attname END,
        CASE d.classid WHEN 'pg_attrdef'::regclass THEN g.attname IS NOT NULL
            WHEN 'pg_constraint'::regclass THEN c.contype NOT IN ('p', 'u')
            WHEN 'pg_class'::regclass THEN i.indpred IS NOT NULL OR i.indexprs IS NOT NULL
            ELSE d.classid <> 'pg_statistic_ext'::regclass END, 0
    FROM direct d
    LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid AND f.adnum <> d.attnum
    LEFT JOIN pg_attribute g ON g.attrelid = f.adrelid AND g.attnum = f.adnum
    LEFT JOIN pg_constraint c ON d.classid = 'pg_constraint'::regclass AND c.oid = d.objid
    LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
    WHERE NOT EXISTS (SELECT FROM pg_rewrite r
        WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.rulename = '_RETURN')
    UNION ALL
    SELECT a.attname::text, 'trigger ' || g.tgname, false, 0 FROM pg_trigger g, pg_attribute a
    WHERE g.tgrelid = to_regclass(%(table)s) AND NOT g.tgisinternal
    AND a.attrelid = g.tgrelid AND a.attname = ANY(%(columns)s::text[])
    AND NOT EXISTS (SELECT FROM direct d WHERE d.classid = 'pg_trigger'::regclass AND d.objid = g.oid
        AND d.name = a.attname)
    UNION ALL
    SELECT a.attname::text, 'the partitions of the table', false, 0 FROM pg_class t, pg_attribute a
    WHERE t.oid = to_regclass(%(table)s) AND (t.relkind = 'p' OR t.relispartition)
    AND a.attrelid = t.oid AND a.attname = ANY(%(columns)s::text[])
    ORDER BY 4 DESC, 1, 2"""


def no_decimal(connection: sa.Connection, column: str) -> str:
    """Return a condition that is true for floats which are not exactly decimals of 29 digits and 9 places."""
    exact = f"round({column}::text::numeric, 9) = {column}::text::numeric"
    finite = f"{column} > '-Infinity' AND {column} < 'Infinity' AND abs({column}) < 1e29"
    return f"{column} IS NOT NULL AND NOT CASE WHEN {finite} THEN {exact} ELSE false END"


def widen(connection: sa.Connection, widening: Widening) -> None:
    """Alter the types of columns; see `Target`."""
    driver: Any = connection.connection.driver_connection
    driver.execute(statement(connection, widening).encode())


def statement(connection: sa.Connection, widening: Widening) -> str:
    """Return the statement that gives columns other types, with their values."""
    schema, table, changes, zones, zone = widening
    altered = [
        f"ALTER COLUMN {quoted(name)} TYPE {_TYPES[change.new]} USING {_expression(quoted(name), change, zones, zone)}"
        for name, change in changes.items()
    ]
    return f"ALTER TABLE {_place(schema, table)} {', '.join(altered)}"


def dependents(
    connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], key: Collection[str]
) -> dict[str, list[Dependent]]:
    """Return, for columns that something depends on, what that is; see `Target`."""
    driver: Any = connection.connection.driver_connection
    given = {"table": _place(schema, table), "columns": list(columns), "key": sorted(key)}
    found: dict[str, list[Dependent]] = {}
    for name, what, goes, _ in driver.execute(_DEPENDENTS.encode(), given).fetchall():
        if (each := Dependent(what, bool(goes))) not in found.setdefault(name, []):
            found[name].append(each)
    return found


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
