"""Rows from a PostgreSQL or SQLite database: a table or a query, read by ranges of a key, in bounded memory."""

import math
import re
import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import psycopg
import pyarrow as pa
import sqlalchemy as sa

from etl.config.columns import named, points
from etl.config.kinds import DATABASES, SOURCES
from etl.config.pipeline import Pipeline
from etl.config.urls import database_url
from etl.context import Context
from etl.errors import BadSource, ConfigError, EtlError, SourceUnreachable
from etl.partition import Chunk, Partition, Piece
from etl.sources.spool import Given, check_names, spooled
from etl.sources.sql.fetched import FETCH, ODDLY_ORDERED, POSTGRES, fetched, prepare, text_of
from etl.sources.sql.order import check_number, check_postgres, check_sqlite, refuse_text, typed_only
from etl.sources.sql.refusals import translated
from etl.sources.sql.statement import (
    DATED,
    Window,
    as_day,
    as_number,
    for_psycopg,
    held,
    nothing,
    relation,
    select,
    source_name,
    values,
)
from etl.types.cursor import Cursor, Span, cursor_of, is_readable
from etl.types.sql import quoted

if TYPE_CHECKING:
    from etl.sources.sql.config import Config

MOST = 256  # partitions; a key with gaps could make any number
FEW = 4  # partitions; a table that seems to have more is counted, up to the rows of so many
WAIT = 60  # seconds for an SQLite writer to end

# What is below and above all values of a type, for a cursor that stands nowhere yet.
_ENDS = {
    21: (-(2**15), 2**15 - 1),
    **dict.fromkeys((23, 26), (-(2**31), 2**31 - 1)),
    20: (-(2**63), 2**63 - 1),
    **dict.fromkeys((700, 701), ("-infinity", "infinity")),
    1700: ("-1e1000", "1e1000"),
    **dict.fromkeys((1082, 1114, 1184), ("-infinity", "infinity")),
}
_TEXT_ENDS = ("", "\U0010ffff")


class _Database(NamedTuple):
    """An open database: its driver's connection, what it is called in errors, and what the pipeline says of it."""

    driver: Any
    postgres: bool
    where: str
    words: str


def read(
    pipeline: Pipeline, config: "Config", partition: Partition, context: Context, span: Span
) -> Generator[Chunk, None, str]:
    """Yield the chunks of one range of keys, `_row` counted from 1; return the sha256 of the content.

    Raises:
        ConfigError: `${NAME}` is not in the environment, or the query asks for a name that nothing gives.
        SourceUnreachable: The database can't be reached; trying again may help.
        BadSource: It refuses the statement.
    """
    piece = partition.pieces[0]
    window = context.start, context.end
    with _opened(pipeline, config) as database:
        held_as = _held(database, pipeline, config, window, span.since)
        statement = select(pipeline, config, piece, span, window, postgres=database.postgres, text_as=held_as)
        ends = _ends(database, pipeline, config, piece, span, window) if config.query and config.cursor else None
        bound = values(pipeline, config, piece, span, window, postgres=database.postgres, ends=ends, text_as=held_as)
        known = {} if database.postgres or config.query else _affinities(database, pipeline, config)
        compared = pipeline.load.mode == "append" and config.cursor is None
        found = _tables(database, statement, bound, known, pipeline)
        chunks = spooled(found, piece.file, BadSource, pipeline, typeless=True, unordered=compared)
        is_typed = _is_typed(database, pipeline, config, bound)
        return (yield from (typed_only(chunks, pipeline, config, piece.file) if is_typed else chunks))


def plan(pipeline: Pipeline, config: "Config", window: Window) -> tuple[Partition, ...]:
    """Return the partitions of a table or query; only where it has a `partition` key the database is asked.

    Raises:
        ConfigError, SourceUnreachable, BadSource: See `read`.
    """
    version = " ".join(moment.isoformat() for moment in window if moment) or "whole"
    piece = Piece(file=source_name(pipeline, config), path=config.table or pipeline.name, version=version)
    pieces = [piece]
    if config.partition and config.split != "none":
        with _opened(pipeline, config) as database:
            low, high, count = _range(database, pipeline, config, piece, window)
        pieces = [
            piece.model_copy(update={"keys": keys, "start": keys[0] if keys[0] is not None else low, "end": keys[1]})
            for keys in _cut(low, high, count)
        ]
    return tuple(Partition(number=at + 1, pieces=(piece,), order=at) for at, piece in enumerate(pieces))


def latest(pipeline: Pipeline, config: "Config") -> Cursor | None:
    """Return the latest value of the cursor's column in the source now, or None where there is none."""
    assert config.cursor is not None
    piece = Piece(file=source_name(pipeline, config), path="")
    with _opened(pipeline, config) as database:
        ends = _ends(database, pipeline, config, piece, Span(), (None, None)) if config.query else None
        bound = values(pipeline, config, piece, Span(), (None, None), postgres=database.postgres, ends=ends)
        column, held_as = quoted(config.cursor), _held(database, pipeline, config, (None, None))
        # Text is compared by code points, whatever the database's language.
        is_text = _is_text(database, pipeline, config, bound)
        order = f'max({column} COLLATE "C")' if is_text else f"max({column})"
        if held_as in DATED:
            order += f" FILTER (WHERE {as_day(column, postgres=database.postgres)} IS NOT NULL)"
        elif held_as:
            order = f"max({as_number(column, postgres=database.postgres)})"
        elif is_text or not database.postgres:
            order += f" FILTER (WHERE NOT {nothing(pipeline, config, postgres=database.postgres)})"
        source = relation(pipeline, config, schemas=database.postgres)
        rows, _ = next(_tables(database, f"SELECT {order} AS latest FROM {source}", bound), (None, {}))
        if rows is not None and _is_typed(database, pipeline, config, bound):
            refuse_text(rows["latest"], pipeline, config, database.where)
    found = rows["latest"][0].as_py() if rows is not None and rows.num_rows else None
    if found is None:
        return None
    latest = Cursor(held_as, found.strip()) if held_as in DATED else cursor_of(found)
    return latest if is_readable(latest) else None  # in a format of its own: each partition reads to its own end


def _is_text(database: _Database, pipeline: Pipeline, config: "Config", bound: Mapping[str, Any]) -> bool:
    if not database.postgres:
        return False
    names = _described(database, f"SELECT * FROM {relation(pipeline, config, schemas=True)}", bound)
    return names.get(config.cursor or "") in (25, 1042, 1043)


def _is_typed(database: _Database, pipeline: Pipeline, config: "Config", bound: Mapping[str, Any]) -> bool:
    """Whether the database compares the cursor's column as numbers or times."""
    if config.cursor is None:
        return False
    source, column = relation(pipeline, config, schemas=database.postgres), quoted(config.cursor)
    if database.postgres:
        return _described(database, f"SELECT * FROM {source}", bound).get(config.cursor) in (*POSTGRES, *ODDLY_ORDERED)
    ends = (f"typeof((SELECT {which}({column}) FROM {source}))" for which in ("min", "max"))
    with translated(database.where, database.words):
        return set(database.driver.execute(f"SELECT {', '.join(ends)}", bound).fetchone()) <= {"integer", "real"}


def _held(
    database: _Database, pipeline: Pipeline, config: "Config", window: Window, since: Cursor | None = None
) -> str:
    """Return what the pipeline declares of a cursor's column that holds text; see `etl.sources.sql.statement.held`.

    Raises:
        BadSource: Its values have no order that the database knows.
        ConfigError: The cursor stands at a value that can't be compared with them.
    """
    if config.cursor is None:
        return ""
    piece = Piece(file=database.where, path="")
    ends = _ends(database, pipeline, config, piece, Span(), window) if config.query else None
    bound = values(pipeline, config, piece, Span(), window, postgres=database.postgres, ends=ends)

    def ask(statement: str, more: Mapping[str, Any]) -> tuple[Any, ...]:
        with translated(database.where, database.words):
            given = {**bound, **more}
            asked = _encoded(statement, given) if database.postgres else (statement, given)
            return tuple(database.driver.execute(*asked).fetchone() or ())

    def is_text() -> bool:
        if database.postgres:
            return _is_text(database, pipeline, config, bound)
        known = {} if config.query else _affinities(database, pipeline, config)
        if known.get(config.cursor or "", pa.string()) != pa.string():
            return False
        column, source = quoted(config.cursor or ""), relation(pipeline, config, schemas=False)
        return bool(ask(f"SELECT 1 FROM {source} WHERE typeof({column}) = 'text' LIMIT 1", {}))

    held_as = held(pipeline, config, database.where, is_text, postgres=database.postgres)
    if held_as:
        if held_as not in DATED:
            check_number(pipeline, since)
    elif not database.postgres:
        database.driver.create_function("regexp", 2, _matches, deterministic=True)
        check_sqlite(pipeline, config, database.where, since, ask)
    elif named([config.cursor], pipeline)[config.cursor] not in pipeline.columns:
        types = _described(database, f"SELECT * FROM {relation(pipeline, config, schemas=True)}", bound)
        if types.get(config.cursor, 20) not in POSTGRES:
            check_postgres(pipeline, config, database.where, since, ask)
    return held_as


def _matches(pattern: str, value: Any) -> bool | None:
    return None if value is None else re.fullmatch(pattern, value) is not None


def _range(
    database: _Database,
    pipeline: Pipeline,
    config: "Config",
    piece: Piece,
    window: Window,
) -> tuple[int, int, int]:
    """Return the lowest and the highest key, and how many partitions there are to be."""
    key, ends = quoted(config.partition or ""), None
    if config.query and config.cursor:
        ends = _ends(database, pipeline, config, piece, Span(), window)
    bound = values(pipeline, config, piece, Span(), window, postgres=database.postgres, ends=ends)
    statement = f"SELECT min({key}) AS low, max({key}) AS high FROM "
    source = relation(pipeline, config, schemas=database.postgres)
    table, _ = next(_tables(database, statement + source, bound))
    low, high = table["low"][0].as_py(), table["high"][0].as_py()
    if low is None:
        return 0, 0, 1
    if not all(isinstance(value, int) or (isinstance(value, Decimal) and value == int(value)) for value in (low, high)):
        what = f"{database.where}: partition column {config.partition} is not of whole numbers"
        raise BadSource(what, "name an integer key, or drop partition")
    count = math.ceil((int(high) - int(low) + 1) / config.rows)
    if count > FEW:  # of keys that are far apart most ranges would be empty: a small table is counted
        some = f"SELECT count(*) AS rows FROM (SELECT 1 FROM {source} LIMIT {FEW * config.rows + 1}) AS counted"
        table, _ = next(_tables(database, some, bound))
        rows = int(table["rows"][0].as_py())
        count = max(1, math.ceil(rows / config.rows)) if rows <= FEW * config.rows else count
    return int(low), int(high), count


def _cut(low: int, high: int, count: int) -> list[tuple[int | None, int | None]]:
    """Return ranges of keys; the first and the last are open, for rows that come meanwhile."""
    count = min(MOST, count)
    bounds = [low + (high - low + 1) * at // count for at in range(1, count)]
    return list(zip([None, *bounds], [*bounds, None], strict=True))


def _ends(
    database: _Database,
    pipeline: Pipeline,
    config: "Config",
    piece: Piece,
    span: Span,
    window: Window,
) -> tuple[Any, Any]:
    """Return a value below and one above all others of the cursor's column."""
    if not database.postgres:
        return -math.inf, b""  # SQLite: numbers come before texts, and those before bytes
    bound = values(pipeline, config, piece, span, window, postgres=True, ends=(None, None))
    types = _described(database, f"SELECT * FROM {relation(pipeline, config, schemas=True)}", bound)
    return _ENDS.get(types.get(config.cursor or "", 0), _TEXT_ENDS)


def _described(database: _Database, statement: str, bound: Mapping[str, Any]) -> dict[str, int]:
    """Return the PostgreSQL types of a statement's columns by name."""
    with translated(database.where, database.words), database.driver.cursor() as cursor:
        cursor.execute(*_encoded(f"{statement} LIMIT 0", bound))
        return {column.name: column.type_code for column in cursor.description}


@contextmanager
def _opened(pipeline: Pipeline, config: "Config") -> Iterator[_Database]:
    key = f"pipelines.{pipeline.name}.extract.url"
    url = database_url(config.url, key, pipeline.client, pipeline.root)
    where = source_name(pipeline, config)
    kind = url.partition(":")[0].partition("+")[0]
    if kind not in SOURCES:
        raise ConfigError(f"{key}: {DATABASES[kind].title} can't be a source", f"use one of {', '.join(SOURCES)}")
    is_postgres = kind == "postgresql"
    try:
        driver = _postgres(url) if is_postgres else _sqlite(sa.make_url(url).database or "")
    except (psycopg.Error, sqlite3.Error, OSError) as error:
        raise _unreachable(error, where) from error
    try:
        said = (config.query, config.table, config.partition, config.cursor)
        yield _Database(driver, is_postgres, where, " ".join(each for each in said if each))
    finally:
        driver.close()


def _postgres(url: str) -> "psycopg.Connection[Any]":
    given: dict[str, Any] = {"application_name": "rq-etl", "client_encoding": "utf8"}
    given |= {} if "connect_timeout" in url else {"connect_timeout": 10}
    connection = psycopg.connect(url, **given)
    connection.read_only = True
    prepare(connection)
    connection.execute("SET TIME ZONE 'UTC'")
    return connection


def _sqlite(path: str) -> sqlite3.Connection:
    if not Path(path).exists():
        raise FileNotFoundError(2, "there is no such file")
    driver = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=WAIT, check_same_thread=False)
    driver.text_factory = text_of
    return driver


def _affinities(database: _Database, pipeline: Pipeline, config: "Config") -> dict[str, pa.DataType]:
    """Return the types that an SQLite table's columns prefer; its values may have others."""
    words = {"INT": pa.int64(), "CHAR": pa.string(), "CLOB": pa.string(), "TEXT": pa.string()}
    words |= dict.fromkeys(("REAL", "FLOA", "DOUB"), pa.float64())
    found = {}
    with translated(database.where, database.words):
        for row in database.driver.execute(f"PRAGMA table_info({relation(pipeline, config, schemas=False)})"):
            kind = next((kind for word, kind in words.items() if word in row[2].upper()), None)
            if kind is not None:
                found[row[1]] = kind
    return found


def _tables(
    database: _Database,
    statement: str,
    bound: Mapping[str, Any],
    known: Mapping[str, pa.DataType] | None = None,
    pipeline: Pipeline | None = None,
) -> Iterator[Given]:
    """Yield a statement's rows, a table of bounded size at a time; at least one.

    Args:
        known: Types that columns of SQLite prefer.
        pipeline: Whose columns the statement's are.
    """
    with translated(database.where, database.words):
        if database.postgres:
            with database.driver.cursor(name="etl") as cursor:  # the server keeps what has not been fetched
                cursor.itersize = FETCH
                cursor.execute(*_encoded(statement, bound))
                names = [column.name for column in cursor.description]
                types = [POSTGRES.get(column.type_code, pa.string()) for column in cursor.description]
                check_names(names, database.where, BadSource)
                yield from fetched(cursor, names, types, points(names, pipeline) if pipeline else {})
        else:
            cursor = database.driver.execute(statement, bound)
            if cursor.description is None:
                raise BadSource(f"{database.where}: the query gives no rows", "write a SELECT")
            names = [column[0] for column in cursor.description]
            check_names(names, database.where, BadSource)
            marks = points(names, pipeline) if pipeline else {}
            yield from fetched(cursor, names, [(known or {}).get(name) for name in names], marks)


def _encoded(statement: str, bound: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    text, used = for_psycopg(statement, bound)
    return text.encode(), used


def _unreachable(error: Exception, where: str) -> EtlError:
    if isinstance(error, psycopg.ProgrammingError):  # of the url, which it quotes with its password
        cure = "percent-encode its user and password: a blank is %20, @ is %40, # is %23, [ is %5B"
        return ConfigError(f"{where}: its url is none that PostgreSQL reads", cure)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OSError):
        lines = [error.strerror or type(error).__name__]
    why = lines[0] if lines else type(error).__name__
    return SourceUnreachable(f"{where} can't be reached: {why}", "check the url of its extract, and that it runs")
