"""DuckDB: types, one program at a time, and Arrow tables taken as they are.

SQLAlchemy's statements are compiled as for PostgreSQL, whose SQL DuckDB speaks; the driver is DuckDB's own.
"""

import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, registry
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDDLCompiler, PGIdentifierPreparer, PGTypeCompiler
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import TypeEngine

from etl.load.targets import Relation, TargetFacts, duckdb_errors, new_engine
from etl.load.targets.duckdb_columns import dependents as dependents
from etl.load.targets.duckdb_columns import no_decimal as no_decimal
from etl.load.targets.duckdb_columns import statement as statement
from etl.load.targets.duckdb_columns import widen as widen
from etl.types import sql
from etl.types.limits import keeps_texts, labels_of
from etl.types.sql import CastText, OddType

insert = postgresql.insert

WAIT = 60  # seconds to wait for another program that has the file open

TYPES = {**sql.TYPES, "decimal": sa.NUMERIC(38, 9)}
FITS = {**sql.FITS, "number": frozenset({"number"})}  # DuckDB would round a float to the digits of a decimal
FACTS = TargetFacts(
    schemas=True,
    folds_case=True,
    typed=True,
    keys=False,  # a unique index slows every load, and ALTER TABLE can't pass it
    late_keys=False,
    row_keys=False,
    plain_text=True,
    plain="BINARY",
    writers="one",
    name_bytes=1000,
    columns=2000,
    widens=True,
)
ERRORS = (duckdb.Error,)
translate, doubled = duckdb_errors.translate, duckdb_errors.doubled
# Types that DuckDB casts a text to, beside those that others are in.
_TEXT = {"UUID", "JSON", "INTERVAL", "TIME", "TIME WITH TIME ZONE", "BLOB", "BIT", "INET"}
_COLLATED = re.compile(r'(?:"((?:[^"]|"")*)"|(\w+)) VARCHAR( COLLATE [\w.]+)')
_DRIVER = "duckdb+rq_etl"  # "duckdb" alone may be the user's own

_gates: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by path: threads take turns as programs do
_SAME_FILE: dict[str, Any] = {"autoinstall_known_extensions": "false"}  # a load reaches for nothing outside


class _Ended(duckdb.OperationalError):
    """The user's own code would have ended the transaction."""


class _Connection:
    """A connection as SQLAlchemy expects it, alone in its file until it is closed."""

    def __init__(self, path: str, patience: float, *, read_only: bool = False) -> None:
        self.guarded = False
        self._gate = _gates[path]
        give_up = time.monotonic() + patience
        if not self._gate.acquire(timeout=patience):
            raise duckdb_errors.Busy
        try:
            self._driver = _open(path, read_only, give_up)
        except BaseException:
            self._gate.release()
            raise

    def cursor(self) -> "_Cursor":
        return _Cursor(self)

    def begin(self) -> None:
        self._driver.begin()

    def commit(self) -> None:
        self.check(duckdb.StatementType.TRANSACTION)
        self._driver.commit()

    def rollback(self) -> None:
        self.check(duckdb.StatementType.TRANSACTION)
        with suppress(duckdb.TransactionException):  # there is none
            self._driver.rollback()

    def close(self) -> None:
        self._driver.close()
        if self._gate.locked():
            self._gate.release()

    def check(self, kind: object) -> None:
        """Refuse to end the transaction while a guard is up."""
        if self.guarded and kind == duckdb.StatementType.TRANSACTION:
            raise _Ended

    def execute(self, statement: str, parameters: Sequence[Any]) -> tuple[object, Any, list[tuple[Any, ...]]]:
        """Return what kind of statement it was, its result's description and rows."""
        kinds = [each.type for each in self._driver.extract_statements(statement)]
        for kind in kinds:
            self.check(kind)
        result = self._driver.execute(statement, list(parameters))
        return kinds[-1] if kinds else None, result.description, result.fetchall()

    def add(self, statement: str, chunk: pa.Table) -> int:
        """Run an INSERT from `_etl_chunk`; return how many rows it wrote."""
        self._driver.register("_etl_chunk", chunk)
        try:
            return int(self._driver.execute(statement).fetchall()[0][0])
        finally:
            with suppress(duckdb.TransactionException):  # it was aborted, and the INSERT says why
                self._driver.unregister("_etl_chunk")


class _Cursor:
    """A cursor as SQLAlchemy expects it; what DuckDB calls so is another connection, with its own transaction."""

    _CHANGES = (duckdb.StatementType.INSERT, duckdb.StatementType.UPDATE, duckdb.StatementType.DELETE)

    def __init__(self, connection: _Connection) -> None:
        self.connection, self.arraysize, self.rowcount = connection, 1, -1
        self.description: Any = None
        self._rows: Iterator[tuple[Any, ...]] = iter(())

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        kind, self.description, rows = self.connection.execute(statement, parameters)
        self.rowcount = -1
        if kind in self._CHANGES and self.description and self.description[0][0] == "Count":
            self.rowcount, self.description, rows = rows[0][0], None, []
        self._rows = iter(rows)

    def executemany(self, statement: str, many: Iterable[Sequence[Any]]) -> None:
        count = 0
        for parameters in many:
            self.execute(statement, parameters)
            count += max(self.rowcount, 0)
        self.rowcount = count

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        return [row for _, row in zip(range(size or self.arraysize), self._rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)

    def close(self) -> None:
        self._rows = iter(())


def _open(path: str, read_only: bool, give_up: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            driver = duckdb.connect(path, read_only=read_only, config=_SAME_FILE)
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise
            if time.monotonic() > give_up:
                raise duckdb_errors.Busy from error
        else:
            driver.execute("SET TimeZone = 'UTC'")
            return driver
        time.sleep(random.uniform(0.02, 0.1))  # DuckDB itself does not wait


class _Ddl(PGDDLCompiler):
    def post_create_table(self, table: sa.Table) -> str:
        return ""  # temporary tables go with their connection: there is no ON COMMIT DROP


class Dialect(DefaultDialect):
    """What SQLAlchemy has to know of DuckDB."""

    name, driver = "duckdb", "rq_etl"
    default_paramstyle = "qmark"
    supports_statement_cache = True
    supports_native_boolean = supports_native_decimal = supports_multivalues_insert = True
    max_identifier_length = FACTS.name_bytes
    statement_compiler, ddl_compiler, type_compiler_cls = PGCompiler, _Ddl, PGTypeCompiler
    preparer = PGIdentifierPreparer
    _backslash_escapes = False

    @classmethod
    def import_dbapi(cls) -> Any:
        return duckdb

    def create_connect_args(self, url: sa.URL) -> Any:
        return [url.database], {}

    def connect(self, *path: Any, **options: Any) -> Any:
        return _Connection(*path, **{"patience": WAIT, **options})

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.begin()

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", duckdb.__version__)[:3])

    def _get_default_schema_name(self, connection: Any) -> str:
        return "main"

    def has_table(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> bool:
        return bool(_columns(connection, table_name, schema))

    def get_columns(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        found = _columns(connection, table_name, schema)
        if not found:
            raise sa.exc.NoSuchTableError(table_name)
        return [{"name": name, "type": _type(type), "nullable": null, "default": None} for name, type, null in found]

    def get_table_names(self, connection: Any, schema: str | None = None, **_: Any) -> Any:
        query = "SELECT table_name FROM duckdb_tables() WHERE schema_name = ? AND NOT temporary"
        return [name for (name,) in connection.exec_driver_sql(query, (schema or "main",))]


registry.register("duckdb.rq_etl", __name__, "Dialect")


def _columns(connection: sa.Connection, table: str, schema: str | None) -> list[tuple[str, str, bool]]:
    query = (
        "SELECT column_name, data_type, is_nullable FROM duckdb_columns() WHERE lower(table_name) = lower(?)"
        " AND schema_name = ? AND database_name IN (current_database(), 'temp') ORDER BY column_index"
    )
    found = [tuple(row) for row in connection.exec_driver_sql(query, (table, schema or "main"))]
    made = "SELECT sql FROM duckdb_tables() WHERE lower(table_name) = lower(?) AND schema_name = ?"
    text = str(connection.exec_driver_sql(made, (table, schema or "main")).scalar())
    collated = {(whole or bare).replace('""', '"'): collation for whole, bare, collation in _COLLATED.findall(text)}
    return [(name, type + collated.get(name, ""), null) for name, type, null in found]


class _Whole(sa.BIGINT):
    """Whole numbers of a size that the standard has not; they are staged as BIGINT.

    Args:
        shown: What DuckDB calls it.
        bits: Its size.
        unsigned: Whether it has no negative numbers.
    """

    def __init__(self, shown: str, bits: int, unsigned: bool) -> None:
        super().__init__()
        self.shown, self.bits, self.unsigned = shown, bits, unsigned


_SHORT: dict[str, TypeEngine[Any]] = {"SMALLINT": sa.SMALLINT(), "INTEGER": sa.INTEGER(), "FLOAT": sa.REAL()}
_SHORT |= {name: _Whole(name, bits, False) for name, bits in (("TINYINT", 8), ("HUGEINT", 128))}
_UNSIGNED = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64, "UHUGEINT": 128}
_SHORT |= {name: _Whole(name, bits, True) for name, bits in _UNSIGNED.items()}


def _type(text: str) -> TypeEngine[Any]:
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", text):
        return sa.NUMERIC(int(found[1]), int(found[2]))
    if text in _SHORT:
        return _SHORT[text]
    words = {"VARCHAR": "string", "DOUBLE": "number", "BOOLEAN": "boolean", "DATE": "date", "BIGINT": "integer"}
    words |= dict.fromkeys(("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"), "timestamp")
    return TYPES[words[text]] if text in words else OddType(text)


@lru_cache(maxsize=16)  # keeps no connection, but the statements it has compiled
def engine(url: sa.URL) -> sa.Engine:
    """Return an engine that opens the file for each use, as soon as nobody else has it open."""
    return new_engine(url.set(drivername=_DRIVER))


def reader(url: sa.URL, patience: float) -> sa.Engine:
    """Return an engine that only reads, as soon as nobody writes."""
    return new_engine(url.set(drivername=_DRIVER), patience=patience, read_only=True)


def lock(connection: sa.Connection, *names: str) -> None:
    """Do nothing: a transaction is alone in its file."""


def hold(connection: sa.Connection, schema: str | None, table: str, *, adds: bool) -> None:
    """Do nothing: a transaction is alone in its file."""


def impatient(connection: sa.Connection) -> None:
    """Do nothing: a transaction that writes is alone."""


def write(connection: sa.Connection, table: sa.TableClause, columns: Sequence[str], chunks: Iterable[pa.Table]) -> int:
    """Add rows by giving DuckDB the Arrow tables."""
    driver: Any = connection.connection.driver_connection
    prepare = connection.dialect.identifier_preparer
    names = ", ".join(prepare.quote_identifier(name) for name in columns)
    statement = f"INSERT INTO {prepare.format_table(table)} ({names}) SELECT * FROM _etl_chunk"
    unique = [str(number) for number in range(len(columns))]  # names that differ in case only would be changed
    return sum(driver.add(statement, chunk.rename_columns(unique)) for chunk in chunks)


def describe(connection: sa.Connection, schema: str | None, table: str) -> Relation | None:
    """Return what a table is and which columns it has, or None where there is none."""
    columns = _columns(connection, table, schema)
    if not columns:
        return None
    query = "SELECT count(*) FROM duckdb_views() WHERE lower(view_name) = lower(?) AND schema_name = ?"
    views = connection.exec_driver_sql(query, (table, schema or "main")).scalar()
    read = [(name, type) for name, type, _ in columns if type in _TEXT or (type != "VARCHAR" and keeps_texts(type))]
    types = {name: CastText(type, labels=labels_of(type)) for name, type in read if type != "BOOLEAN"}
    return Relation("view" if views else "table", tuple(name for name, _, _ in columns), types=types)


def collations(connection: sa.Connection, schema: str | None, table: str) -> dict[str, str]:
    """Return nothing: rows do not go into a column that has a collation."""
    return {}


def prepare(connection: sa.Connection, *staged: sa.TableClause) -> None:
    """Do nothing: DuckDB counts rows as it writes them."""


class Guard:
    """The connection refuses every statement that would end the transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.driver: Any = connection.connection.driver_connection
        self.number = self._transaction()

    def start(self) -> None:
        self.driver.guarded = True

    def caused(self, error: BaseException | None) -> bool:
        self.driver.guarded = False
        return isinstance(error, _Ended)

    def stop(self) -> bool:
        self.driver.guarded = False
        with suppress(sa.exc.DBAPIError, duckdb.Error):
            return bool(self._transaction() == self.number)
        return False

    def _transaction(self) -> Any:
        return self.connection.exec_driver_sql("SELECT txid_current()").scalar()
