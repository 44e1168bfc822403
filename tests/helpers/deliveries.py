"""Small words for tests of the load: pipelines, deliveries, and what is in a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import parse_url
from etl.load import Delivery, FinishCounts, LoadCounts, finish, load
from etl.load.targets import kind_named
from etl.partition import Partition, Piece


def pipeline(mode: str = "append", **changes: Any) -> Pipeline:
    """Return a pipeline `claims` of client `acme` into a table of its own."""
    of_load = {"target": "warehouse", "table": changes.pop("table", "claims_{client}"), "mode": mode}
    of_load |= {name: changes.pop(name) for name in ("key", "newest", "by", "atomic", "function") if name in changes}
    extract = {"type": "csv", "path": "inbox/*.csv", "split": changes.pop("split", "rows")}
    target = {"name": "warehouse", "url": "sqlite:///warehouse.db"}
    known = {"name": "claims", "client": "acme", "root": "/", "staging": "/staging", "modules": ()}
    return Pipeline.model_validate({**known, "extract": extract, "load": of_load, "target": target, **changes})


def partition(number: int = 1, file: str | Sequence[str] = "", order: int | None = None, **piece: Any) -> Partition:
    """Return partition `number`, read from `<number>.csv` by default."""
    names = [file or f"{number}.csv"] if isinstance(file, str) else file
    pieces = tuple(Piece(file=name, path=f"/{name}", **piece) for name in names)
    return Partition(number=number, pieces=pieces, order=number - 1 if order is None else order)


def chunk(rows: Sequence[Any], first: int = 2, types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """Return rows as a chunk; their lines begin at `first`."""
    made = pa.Table.from_pylist(list(rows))
    for name, type in (types or {}).items():
        made = made.set_column(made.schema.get_field_index(name), name, made[name].cast(type))
    return made.append_column("_row", pa.array(range(first, first + len(rows)), pa.int64()))


def deliver(
    url: str,
    pipeline: Pipeline,
    *chunks: pa.Table,
    run: str = "r1",
    of: Partition | None = None,
    partitions: int = 1,
    content: str = "c1",
    rejected: int = 0,
    read: int | None = None,
    attempt: int = 1,
) -> LoadCounts:
    """Load one partition."""
    delivery = Delivery(pipeline, run, of or partition(), content, partitions, attempt)
    read = sum(chunk.num_rows for chunk in chunks) + rejected if read is None else read
    return load(delivery, iter(chunks), url=url, rejected=rejected, read=read)


def finished(
    url: str, pipeline: Pipeline, partitions: Sequence[Partition], done: Sequence[int] | None = None, **more: Any
) -> FinishCounts:
    """Finish run `r1`."""
    numbers = [partition.number for partition in partitions] if done is None else done
    given = {"run": "r1", "read": 100, "rejected": 0, "complete": len(numbers) == len(partitions), **more}
    return finish(pipeline, given.pop("run"), partitions, url=url, done=numbers, **given)


def connected(url: str) -> sa.Connection:
    """Open a connection of the test's own."""
    drivers = {"postgresql:": "postgresql+psycopg:", "duckdb:": "duckdb+rq_etl:"}
    kind_named(parse_url(url).get_backend_name())
    for scheme, driver in drivers.items():
        url = url.replace(scheme, driver)
    return sa.create_engine(url, poolclass=sa.NullPool).connect()


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows."""
    with connected(url) as connection:
        result = connection.exec_driver_sql(statement)
        rows = [tuple(row) for row in result] if result.returns_rows else []
        connection.commit()
        return rows


def table(url: str, name: str = "claims_acme") -> pd.DataFrame:
    """Return a table as a frame."""
    with connected(url) as connection:
        return pd.read_sql_table(name, connection)


def values(url: str, columns: str, name: str = "claims_acme") -> list[tuple[Any, ...]]:
    """Return some columns of a table, sorted."""
    return sorted(query(url, f"SELECT {columns} FROM {name}"), key=str)
