"""PostgreSQL: types, locks, and COPY of CSV bytes made by pyarrow."""

import hashlib
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
from sqlalchemy.types import TypeEngine

from etl.load.targets import Relation, TargetFacts, new_engine, postgres_errors
from etl.load.targets.postgres_columns import dependents as dependents
from etl.load.targets.postgres_columns import no_decimal as no_decimal
from etl.load.targets.postgres_columns import statement as statement
from etl.load.targets.postgres_columns import widen as widen
from etl.prefetch import prefetch
from etl.types import sql
from etl.types.sql import CastText, OddType, quoted
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
    plain="C",
    writers="many",
    name_bytes=63,  # longer names are cut by the server, silently
    columns=1600,
    widens=True,
    system=frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}),
)
ERRORS = (psycopg.Error,)
translate, doubled = postgres_errors.translate, postgres_errors.doubled
_DRIVER = "postgresql+psycopg"
# Types that have a word in the pipeline, or that SQLAlchemy knows and rows don't go into.
_WORDED = ["bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar", "money"]
_WORDED += ["date", "timestamp", "timestamptz", "oid"]
# Types of which a text comes back with the same meaning, as a whole or within an array, a range or a composite.
_KEPT = [
    "bool",
    "int2",
    "int4",
    "int8",
    "numeric",
    "text",
    "varchar",
    "citext",
    "ltree",
    "uuid",
    "json",
    "xml",
    "bytea",
]
_KEPT += ["inet", "cidr", "macaddr"]
# The same, once the texts that would be cut, rounded or refused are rejects: see `etl.types.readable`.
_TESTED = ["name", "char", "bit", "varbit", "time", "timetz", "interval", "jsonb", "macaddr8"]
_DESCRIBE = sa.text("""
    WITH RECURSIVE made AS (
        SELECT a.attnum, a.attname, a.attgenerated <> '' OR a.attidentity = 'a' AS generated,
            a.atttypid AS base, a.atttypmod AS size, a.atttypid, a.atttypmod
        FROM pg_attribute a WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT m.attnum, m.attname, m.generated, t.typbasetype, t.typtypmod, m.atttypid, m.atttypmod
        FROM made m JOIN pg_type t ON t.oid = m.base AND t.typtype = 'd'
    )
    SELECT c.relkind::text AS kind, m.attname::text AS name, m.generated,
        format_type(m.atttypid, m.atttypmod) AS type, b.typname::text AS base, m.size, m.base <> m.atttypid AS domain,
        b.typnamespace <> 'pg_catalog'::regnamespace OR b.typname <> ALL (:worded) AND (m.size < 0
            OR b.typname IN ('bit', 'varbit')) AS text,
        b.typtype = 'e' OR b.typtype = 'b' AND (b.typname = ANY (:kept) OR b.typname = ANY (:tested))
            OR coalesce(CASE WHEN p.typtype = 'c' THEN NOT EXISTS (
                SELECT FROM pg_attribute f JOIN pg_type t ON t.oid = f.atttypid
                WHERE f.attrelid = p.typrelid AND f.attnum > 0 AND NOT f.attisdropped
                    AND (f.atttypmod >= 0 OR t.typtype <> 'e' AND (t.typtype <> 'b' OR t.typname <> ALL (:kept)))
            ) ELSE p.typtype = 'e' OR p.typtype = 'b' AND p.typname = ANY (:kept) END, false) AS kept,
        ARRAY(SELECT l.enumlabel::text FROM pg_enum l WHERE l.enumtypid = b.oid) AS labels
    FROM pg_class c LEFT JOIN (made m JOIN pg_type b ON b.oid = m.base AND b.typtype <> 'd') ON true
    LEFT JOIN pg_range r ON b.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
    LEFT JOIN pg_type e ON e.typarray = b.oid  -- what is in an array, in a range, or a composite itself
    LEFT JOIN pg_type p ON p.oid = coalesce(e.oid, r.rngsubtype, CASE b.typtype WHEN 'c' THEN b.oid END)
    WHERE c.oid = to_regclass(:name)
    ORDER BY m.attnum
""").bindparams(worded=_WORDED, kept=_KEPT, tested=_TESTED)

_IS_TABLE = sa.text("SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass(:name)")

_COLLATIONS = sa.text("""
    SELECT a.attname::text AS name, c.collname::text AS collation
    FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation AND NOT c.collisdeterministic
    WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped
""")


@lru_cache(maxsize=16)  # keeps no connection, but the statements it has compiled
def engine(url: sa.URL) -> sa.Engine:
    """Return an engine that opens one connection for each use."""
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": "10"}
    # Rows are sent as UTF-8, whatever encoding the database has.
    arguments |= {"client_encoding": "utf8", "application_name": "rq-etl"}
    made = new_engine(url.set(drivername=_DRIVER), **arguments)

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        # Times are written without a zone, which is a good deal faster, and meant in UTC.
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")

    return made


def reader(url: sa.URL, patience: float) -> sa.Engine:
    """Return an engine that gives up connecting after `patience` seconds."""
    arguments = {"client_encoding": "utf8", "application_name": "rq-etl", "connect_timeout": str(patience)}
    return new_engine(url.set(drivername=_DRIVER), **arguments)


def lock(connection: sa.Connection, *names: str) -> None:
    """Wait for a lock that is held until the transaction ends; `names` say what is locked."""
    number = int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big", signed=True)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


def hold(connection: sa.Connection, schema: str | None, table: str, *, adds: bool) -> None:
    """Lock a table against changes of its columns; readers, writers and the making of an index go on.

    A foreign table can't be locked; its columns are changed on its own server.
    """
    name = ".".join(quoted(part) for part in (schema, table) if part)
    if connection.execute(_IS_TABLE, {"name": name}).scalar():
        where = connection.dialect.identifier_preparer.format_table(sa.table(table, schema=schema))
        connection.exec_driver_sql(f"LOCK TABLE ONLY {where} IN {'ROW EXCLUSIVE' if adds else 'ACCESS SHARE'} MODE")


def impatient(connection: sa.Connection) -> None:
    """Give up after half a second where others hold a lock: whoever asks after us waits behind us."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")


def write(connection: sa.Connection, table: sa.TableClause, columns: Sequence[str], chunks: Iterable[pa.Table]) -> int:
    """Add rows by COPY of CSV bytes."""
    driver: Any = connection.connection.driver_connection
    where = ".".join(quoted(part) for part in (getattr(table, "schema", None), table.name) if part)
    statement = f"COPY {where} ({', '.join(map(quoted, columns))}) FROM STDIN (FORMAT csv)"
    cursor: psycopg.Cursor[Any]
    with driver.cursor() as cursor:
        try:
            with cursor.copy(statement.encode()) as copy:
                for text in prefetch(map(_csv, chunks)):
                    copy.write(memoryview(text))
        except psycopg.Error as error:
            postgres_errors.name_column(error, columns)
            raise
        return cursor.rowcount


def _csv(chunk: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(_printable(chunk), sink, pyarrow.csv.WriteOptions(include_header=False))
    return sink.getvalue()


def describe(connection: sa.Connection, schema: str | None, table: str) -> Relation | None:
    """Return what a table is and which columns it has, or None where there is none."""
    name = ".".join(quoted(part) for part in (schema, table) if part)
    found = connection.execute(_DESCRIBE, {"name": name}).all()
    if not found:
        return None
    kinds = {**dict.fromkeys("rpf", "table"), "v": "view", "m": "materialized view"}
    kinds |= {**dict.fromkeys("iI", "index"), "S": "sequence", "c": "type"}
    columns = [row for row in found if row.name is not None]  # a table may have none
    generated = frozenset(row.name for row in columns if row.generated)
    types = {row.name: type for row in columns if (type := _type(row)) is not None}
    return Relation(kinds.get(found[0].kind, "relation"), tuple(row.name for row in columns), generated, types)


def _type(row: Any) -> TypeEngine[Any] | None:
    """Return the type of a column that SQLAlchemy has none for; of a domain it does not know the size."""
    size = row.size - 4  # of a text or a number
    if row.text:
        return CastText(row.type, row.base, tuple(row.labels)) if row.kept else OddType(row.type)
    if row.base not in _WORDED:  # of a size, which would cut
        return OddType(row.type)
    if not row.domain or row.size < 0:
        return None
    if row.base == "numeric":
        return sa.NUMERIC(size >> 16, (size & 2047 ^ 1024) - 1024)
    if row.base in ("varchar", "bpchar"):
        return sa.CHAR(size) if row.base == "bpchar" else sa.VARCHAR(size)
    if row.base in ("timestamp", "timestamptz"):
        return postgresql.TIMESTAMP(timezone=row.base == "timestamptz", precision=row.size)
    return OddType(row.type)


def collations(connection: sa.Connection, schema: str | None, table: str) -> dict[str, str]:
    """Return the collations of a table's columns by which texts that differ are equal."""
    name = ".".join(quoted(part) for part in (schema, table) if part)
    found = connection.execute(_COLLATIONS, {"name": name})
    return {row.name: row.collation for row in found}


def prepare(connection: sa.Connection, *staged: sa.TableClause) -> None:
    """Tell the planner about rows that have just been written."""
    connection.exec_driver_sql("SET LOCAL work_mem = '64MB'")
    for table in staged:
        connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")


def _printable(chunk: pa.Table) -> pa.Table:
    columns = []
    for column in chunk.columns:
        if column.num_chunks > 1:  # behind an empty one, Arrow writes NUL bytes
            column = pa.chunked_array([each for each in column.chunks if len(each)], column.type)
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
