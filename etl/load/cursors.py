"""Cursors: the target's table `_etl_cursors`, which says how far a client's source has been loaded.

A cursor moves in the transaction that makes a run's rows final, so it is never ahead of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.errors import ConfigError, CursorMoved
from etl.load import tables
from etl.load.targets import kind
from etl.load.targets.connect import transaction
from etl.types.cursor import Cursor, is_strict, later

NAME = "_etl_cursors"


@dataclass(frozen=True)
class Standing:
    """Where a cursor is.

    Args:
        run: The run that moved it there; "" where an operator has set it.
        future: Rows of the source that were in the future by the cursor's column when it was last read.
    """

    cursor: Cursor
    updated_at: datetime
    run: str
    future: int = 0


@dataclass(frozen=True)
class Move:
    """Where a run began to read, and how far it has come; None is nowhere.

    Args:
        future: Rows that were in the future by the cursor's column.
    """

    since: Cursor | None
    latest: Cursor | None
    future: int = 0


def read(pipeline: Pipeline, url: str | None = None) -> Standing | None:
    """Return where the pipeline's cursor is, or None where it has not been moved yet."""
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        book = _table(tables.split(connection, pipeline.table)[0])
        if not tables.there(connection, book):
            return None
        return _standing(connection, book, pipeline)


def standings(url: str, name: str, schemas: Iterable[str | None]) -> dict[tuple[str, str, str, str], Standing]:
    """Return where all cursors of a target are, by client, pipeline, table and column.

    Args:
        url: Of the target, as `resolve_url` gives it.
        name: The target's, for errors.
        schemas: Where its tables of cursors may be.
    """
    found = {}
    with transaction(url, name) as connection:
        for book in map(_table, schemas):
            if tables.there(connection, book):
                for row in connection.execute(_query(connection, book)):
                    found[row.client, row.pipeline, row.table_name, row.column] = _read(row)
    return found


def advance(connection: sa.Connection, pipeline: Pipeline, run: str, move: Move) -> None:
    """Move the cursor in the connection's transaction, never backwards.

    Raises:
        CursorMoved: It is not where the run began, and what the run appends is there already.
    """
    if move.latest is None and not tables.there(connection, _table(tables.split(connection, pipeline.table)[0])):
        return
    book = _made(connection, pipeline)
    kind(connection).lock(connection, "cursor", pipeline.client, pipeline.name, pipeline.table)
    there = _standing(connection, book, pipeline)
    now = there.cursor if there else None
    if there and there.future != move.future:
        connection.execute(sa.update(book).where(_mine(book, pipeline)).values(future=move.future))
    if move.latest is None:
        return
    if is_strict(pipeline) and now != move.since and not (there and there.run == run):
        raise CursorMoved(
            f"the cursor of {pipeline.client}/{pipeline.name} has moved since run {run} read it: nothing was appended",
            "run the pipeline again; to load all of it, empty the table and clear the cursor first",
        )
    moved = later(now, move.latest, pipeline.timezone)
    if moved != now and moved is not None:
        _write(connection, book, pipeline, moved, run, move.future)


def place(pipeline: Pipeline, cursor: Cursor, url: str | None = None) -> None:
    """Set the cursor, forwards or backwards."""
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        _write(connection, _made(connection, pipeline), pipeline, cursor, "", 0)


def clear(pipeline: Pipeline, url: str | None = None) -> bool:
    """Forget the cursor, so that the next run reads everything; says whether there was one."""
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        book = _table(tables.split(connection, pipeline.table)[0])
        if not tables.there(connection, book):
            return False
        return connection.execute(sa.delete(book).where(_mine(book, pipeline))).rowcount > 0


def _table(schema: str | None) -> sa.Table:
    text = sa.Text
    return sa.Table(
        NAME,
        sa.MetaData(),
        sa.Column("client", text, primary_key=True),
        sa.Column("pipeline", text, primary_key=True),
        sa.Column("table_name", text, primary_key=True),
        sa.Column("column", text, primary_key=True),
        sa.Column("type", text, nullable=False),
        sa.Column("value", text, nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("run", text, nullable=False),
        sa.Column("future", sa.BigInteger),
        schema=schema,
    )


def _made(connection: sa.Connection, pipeline: Pipeline) -> sa.Table:
    return tables.own(connection, _table(tables.split(connection, pipeline.table)[0]))


def _identity(pipeline: Pipeline) -> dict[str, Any]:
    if pipeline.extract.cursor is None:
        raise ConfigError(
            f"pipeline {pipeline.name} has no cursor", 'give its extract one, such as cursor = "updated_at"'
        )
    return {
        "client": pipeline.client,
        "pipeline": pipeline.name,
        "table_name": pipeline.table,
        "column": pipeline.extract.cursor,
    }


def _mine(book: sa.Table, pipeline: Pipeline) -> sa.ColumnElement[bool]:
    return sa.and_(*(book.c[name] == value for name, value in _identity(pipeline).items()))


def _standing(connection: sa.Connection, book: sa.Table, pipeline: Pipeline) -> Standing | None:
    row = connection.execute(_query(connection, book).where(_mine(book, pipeline))).first()
    return None if row is None else _read(row)


def _query(connection: sa.Connection, book: sa.Table) -> sa.Select[Any]:
    """Select what the table has: one of an earlier release says nothing of rows in the future."""
    lacking = tables.lacks(connection, book) or ()
    return sa.select(*(sa.null().label(column.name) if column.name in lacking else column for column in book.c))


def _read(row: sa.Row[Any]) -> Standing:
    moment = row.updated_at if row.updated_at.tzinfo else row.updated_at.replace(tzinfo=UTC)
    return Standing(Cursor(row.type, row.value), moment, row.run, row.future or 0)


def _write(
    connection: sa.Connection, book: sa.Table, pipeline: Pipeline, cursor: Cursor, run: str, future: int
) -> None:
    identity = _identity(pipeline)
    values = {"type": cursor.kind, "value": cursor.value, "updated_at": datetime.now(UTC), "run": run, "future": future}
    insert = kind(connection).insert(book).values(**identity, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=list(identity), set_=values))
