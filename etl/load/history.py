"""Runs as the target remembers them: its table `_etl_runs`, one row for every run that workers have ended.

The row is written in the transaction that makes the run's rows final, so that it is true whatever becomes of Redis.
It is beside `_etl_loads`, in the schema of the pipeline's table. A retried run keeps its row.

| column | what |
|---|---|
| `run` | the run's id; primary key |
| `client`, `pipeline`, `table_name` | whose run of what, and into which table |
| `state` | `succeeded`, `failed` (some partitions may be loaded: see `_etl_loads`) or `canceled` |
| `attempt` | 1, and one more for each retry |
| `submitted`, `started`, `finished` | moments in UTC |
| `rows` | JSON: rows by kind (`read`, `added`, `rejected`, `dropped`, `superseded`, `loaded`, `unchanged`) |
| `partitions` | JSON: `total`, `done`, `failed`, `blocked` |
| `params` | JSON: the run's parameters |
| `window_start`, `window_end` | ISO 8601, or null |
| `fingerprint` | changes when anything in the configuration changes that shapes the rows |
| `code` | sha256 over the source files of the user's modules; empty where the pipeline calls none of them |
| `error` | why the run failed, without row values, or null |
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.errors import EtlError
from etl.load import tables
from etl.load.targets import kind
from etl.load.targets.connect import reading, transaction

NAME = "_etl_runs"
_JSON = ("rows", "partitions", "params")
_MOMENTS = ("submitted", "started", "finished")


@dataclass(frozen=True)
class Record:
    """What the target remembers of a run; the fields are the columns of `_etl_runs`."""

    run: str
    client: str
    pipeline: str
    table_name: str
    state: str
    attempt: int
    submitted: datetime | None
    started: datetime | None
    finished: datetime
    rows: Mapping[str, int]
    partitions: Mapping[str, int]
    params: Mapping[str, Any] = field(default_factory=dict)
    window_start: str | None = None
    window_end: str | None = None
    fingerprint: str = ""
    code: str = ""
    error: str | None = None


def write(connection: sa.Connection, pipeline: Pipeline, record: Record) -> None:
    """Write a run's row, or bring it up to date, in the connection's transaction; a later attempt's row stays."""
    book = tables.own(connection, _table(tables.split(connection, pipeline.table)[0]))
    values: dict[str, Any] = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    values |= {name: json.dumps(dict(values[name]), default=str) for name in _JSON}
    connection.execute(_upsert(kind(connection).insert, book), values)


@lru_cache  # made and compiled once: it is part of every run's last transaction
def _upsert(into: Callable[[Any], Any], book: sa.Table) -> Any:
    insert = into(book)
    return insert.on_conflict_do_update(
        index_elements=["run"],
        set_={column.name: insert.excluded[column.name] for column in book.c if column.name != "run"},
        where=book.c.attempt <= insert.excluded.attempt,
    )


def remember(pipeline: Pipeline, record: Record, url: str | None = None) -> None:
    """Write a run's row in a transaction of its own, for a run that did not end in one of the target's.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target does not take it.
    """
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        write(connection, pipeline, record)


def read(
    url: str,
    name: str,
    schemas: Iterable[str | None] = (None,),
    *,
    run: str | None = None,
    runs: Sequence[str] = (),
    client: str | None = None,
    pipeline: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    latest: bool = False,
    limit: int | None = 1000,
) -> list[Record]:
    """Return what a target remembers of runs, those that finished last first. Nothing is written or locked.

    Args:
        url: Of the target, as `resolve_url` gives it.
        name: The target's, for errors.
        schemas: Where its tables `_etl_runs` are.
        run: Only runs whose id begins so.
        runs: Only these.
        since: Only runs that finished after it.
        latest: Of each client's pipeline only the last run and the last success, those of windows apart.
        limit: How many at most; None means all.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked.
    """
    same = {"client": client, "pipeline": pipeline, "state": state}
    with reading(url, name) as connection:
        if connection is None:
            return []
        found: list[Record] = []
        for schema in schemas:
            book = _table(tables.schema_of(connection, schema))
            if not tables.there(connection, book):
                continue
            wanted = [book.c[column] == value for column, value in same.items() if value]
            if run:
                wanted.append(book.c.run.startswith(run, autoescape=True))
            if runs:
                wanted.append(book.c.run.in_(runs))
            if since:
                wanted.append(book.c.finished >= since.astimezone(UTC))
            columns = [book.c[column] for column in Record.__dataclass_fields__]
            query = sa.select(*columns).where(*wanted).order_by(book.c.finished.desc()).limit(limit)
            if latest:
                is_window = book.c.window_start.is_not(None)
                group = (book.c.client, book.c.pipeline, book.c.state == "succeeded", is_window)
                rank = sa.func.row_number().over(partition_by=group, order_by=book.c.finished.desc()).label("rank")
                ranked = sa.select(*columns, rank).where(*wanted).subquery()
                query = sa.select(*(ranked.c[column.name] for column in columns)).where(ranked.c.rank == 1)
            found += [_record(row._asdict()) for row in connection.execute(query)]
        found.sort(key=lambda record: record.finished, reverse=True)
        return found if latest else found[:limit]


def refuse_older(connection: sa.Connection, pipeline: Pipeline, mine: Record) -> None:
    """Refuse a retry that would replace a whole table by rows that are older than those of a later run.

    Raises:
        EtlError: A run that was submitted later has replaced the table.
    """
    if pipeline.load.mode != "replace" or pipeline.load.by or mine.attempt < 2 or mine.submitted is None:
        return
    book = _table(tables.schema_of(connection, tables.split(connection, pipeline.table)[0]))
    if not tables.there(connection, book):
        return
    same = {"client": mine.client, "pipeline": mine.pipeline, "table_name": mine.table_name, "state": "succeeded"}
    query = sa.select(book.c.run, book.c.rows).where(*(book.c[name] == value for name, value in same.items()))
    query = query.where(book.c.submitted > mine.submitted.astimezone(UTC), book.c.run != mine.run)
    for run, rows in connection.execute(query.order_by(book.c.submitted.desc())):
        if (counts := json.loads(rows)).get("loaded", 0) + counts.get("unchanged", 0):
            raise EtlError(
                f"run {run} has replaced {pipeline.table} since run {mine.run} was submitted: "
                "a retry would put older rows back",
                "run the pipeline again, if the table should have what its source has now",
            )


def _record(values: dict[str, Any]) -> Record:
    values |= {name: json.loads(values[name]) for name in _JSON}
    # Not every database keeps a zone.
    values |= {name: values[name].replace(tzinfo=UTC) for name in _MOMENTS if values[name] and not values[name].tzinfo}
    return Record(**values)


@lru_cache  # statements are compiled anew for a new table
@lru_cache
def _table(schema: str | None) -> sa.Table:
    text, moment = sa.Text, sa.TIMESTAMP(timezone=True)
    kinds: dict[str, Any] = {"attempt": sa.Integer, **dict.fromkeys(_MOMENTS, moment)}
    empty = ("submitted", "started", "window_start", "window_end", "error")
    return sa.Table(
        NAME,
        sa.MetaData(),
        *(
            sa.Column(name, kinds.get(name, text), primary_key=name == "run", nullable=name in empty)
            for name in Record.__dataclass_fields__
        ),
        sa.Index(f"{NAME}_latest", "client", "pipeline", "finished"),
        sa.Index(f"{NAME}_finished", "finished"),
        schema=schema,
    )
