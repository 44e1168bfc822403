"""A table or query of a database as a source: keys in `config`, what is asked in `statement`, how in `database`."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from etl.config.pipeline import Pipeline
from etl.config.values import parameters
from etl.context import Context
from etl.partition import Chunk, Partition, Plan
from etl.sources.sql.config import Config

if TYPE_CHECKING:
    from etl.sources.sql.statement import Window
    from etl.types.cursor import Cursor, Span


def plan(pipeline: Pipeline, config: Config, window: "Window") -> Plan:
    """Return the partitions of a table or query; only where it has a `partition` key the database is asked."""
    from etl.sources.sql import database

    return Plan(partitions=database.plan(pipeline, config, window))


def read(
    pipeline: Pipeline, config: Config, partition: Partition, context: Context, span: "Span | None"
) -> Generator[Chunk, None, str]:
    """Yield the chunks of one range of keys, `_row` counted from 1; return the sha256 of the content."""
    from etl.sources.sql import database
    from etl.types.cursor import Span

    return database.read(pipeline, config, partition, context, span or Span())


def latest(pipeline: Pipeline, config: Config, partitions: int) -> "Cursor | None":
    """Return the latest value of the cursor's column, where partitions are read one after another or the query asks."""
    if partitions < 2 and "until" not in parameters(config.query):
        return None
    from etl.sources.sql import database

    return database.latest(pipeline, config)
