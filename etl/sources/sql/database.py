"""Rows from a PostgreSQL or SQLite database: a table or a query, read by ranges of a key, in bounded memory."""

import math
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from etl.config.columns import named, points
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import BadSource
from etl.partition import Chunk, Partition, Piece
from etl.sources.resting import Given
from etl.sources.spool import check_names, spooled
from etl.sources.sql.fetched import FETCH, ODDLY_ORDERED, POSTGRES, fetched, prepare, text_of
from etl.sources.sql.opened import Database, opened
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
from etl.types.newer import cursor_header
from etl.types.sql import quoted

if TYPE_CHECKING:
    from etl.sources.sql.config import Config

MOST = 256  # partitions; a key with gaps could make any number
FEW = 4  # partitions; a table that seems to have more is counted, up to the rows of so many

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
TEXTS = 25, 1042, 1043


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
    with _opened(pipeline, config, piece.file) as database:
        config = _as_there(database, pipeline, config, window)
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
        with _opened(pipeline, config, piece.file) as database:
            low, high, count = _range(database, pipeline, config, piece, window)
        pieces = [
            piece.model_copy(update={"keys": keys, "start": keys[0] if keys[0] is not None else low, "end": keys[1]})
            for keys in _cut(low, high, count)
        ]
    return tuple(Partition(number=at + 1, pieces=(piece,), order=at) for at, piece in enumerate(pieces))


def latest(pipeline: Pipeline, config: "Config") -> Cursor | None:
    """Return the latest value of the cursor's column in the source now, or None where there is none."""
    piece = Piece(file=source_name(pipeline, config), path="")
    with _opened(pipeline, config, piece.file) as database:
        config = _as_there(database, pipeline, config, (None, None))
        assert config.cursor is not None
        ends = _ends(database, pipeline, config, piece, Span(), (None, None)) if config.query else None
        bound = values(pipeline, config, piece, Span(), (None, None), postgres=database.postgres, ends=ends)
        column, held_as = quoted(config.cursor), _held(database, pipeline, config, (None, None))
        # Text is compared by code points, whatever the database's language.
        is_text = _kind(database, pipeline, config, bound) in TEXTS
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


def _as_there(database: Database, pipeline: Pipeline, config: "Config", window: Window) -> "Config":
    """Return the config with the cursor's column as the source calls it, which the pipeline may call otherwise."""
    if config.cursor is None:
        return config
    piece, postgres = Piece(file=database.where, path=""), database.postgres
    bound = values(pipeline, config, piece, Span(), window, postgres=postgres, ends=(None, None))
    names = _described(database, f"SELECT * FROM {relation(pipeline, config, schemas=postgres)}", bound)
    return config.model_copy(update={"cursor": cursor_header(pipeline, list(names), database.where)[0]})


@contextmanager
def _opened(pipeline: Pipeline, config: "Config", where: str) -> Iterator[Database]:
    """Open the source's database; values that no type here has come as what their rows are rejected for."""
    with opened(pipeline, config, where) as database:
        if database.postgres:
            prepare(database.driver)
        else:
            database.driver.text_factory = text_of
        yield database


def _kind(database: Database, pipeline: Pipeline, config: "Config", bound: Mapping[str, Any]) -> int:
    """Return PostgreSQL's number for the type of the cursor's column; 0 where there is none."""
    if not database.postgres:
        return 0
    names = _described(database, f"SELECT * FROM {relation(pipeline, config, schemas=True)}", bound)
    return names.get(config.cursor or "", 0)


def _is_typed(database: Database, pipeline: Pipeline, config: "Config", bound: Mapping[str, Any]) -> bool:
    """Whether the database compares the cursor's column as numbers or times."""
    if config.cursor is None:
        return False
    if database.postgres:
        return _kind(database, pipeline, config, bound) in (*POSTGRES, *ODDLY_ORDERED)
    source, column = relation(pipeline, config, schemas=False), quoted(config.cursor)
    ends = (f"typeof((SELECT {which}({column}) FROM {source}))" for which in ("min", "max"))
    with translated(database.where, database.words):
        return set(database.driver.execute(f"SELECT {', '.join(ends)}", bound).fetchone()) <= {"integer", "real"}


def _held(database: Database, pipeline: Pipeline, config: "Config", window: Window, since: Cursor | None = None) -> str:
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
            return _kind(database, pipeline, config, bound) in TEXTS
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
    elif (
        named([config.cursor], pipeline)[config.cursor] not in pipeline.columns
        and _kind(database, pipeline, config, bound) not in POSTGRES
    ):
        check_postgres(pipeline, config, database.where, since, ask)
    return held_as


def _matches(pattern: str, value: Any) -> bool | None:
    return None if value is None else re.fullmatch(pattern, value) is not None


def _range(
    database: Database,
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
    database: Database,
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
    return _ENDS.get(_kind(database, pipeline, config, bound), _TEXT_ENDS)


def _described(database: Database, statement: str, bound: Mapping[str, Any]) -> dict[str, int]:
    """Return the types of a statement's columns by name, as PostgreSQL numbers them."""
    with translated(database.where, database.words):
        if not database.postgres:
            return {column[0]: 0 for column in database.driver.execute(f"{statement} LIMIT 0", bound).description}
        with database.driver.cursor() as cursor:
            cursor.execute(*_encoded(f"{statement} LIMIT 0", bound))
            return {column.name: column.type_code for column in cursor.description}


def _affinities(database: Database, pipeline: Pipeline, config: "Config") -> dict[str, pa.DataType]:
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
    database: Database,
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
