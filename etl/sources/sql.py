"""A table or query of a database as a source: see `database` for how it is asked, `statement` for what."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from etl.config.base import Problem
from etl.config.kinds import SOURCES, SourceConfig, SourceFacts, database_problems
from etl.config.pipeline import SPAN, Pipeline
from etl.config.values import Positive, parameters, placeholders
from etl.context import Context
from etl.partition import Chunk, Partition, Plan

if TYPE_CHECKING:
    from etl.sources.statement import Window
    from etl.types.cursor import Cursor, Span


class Config(SourceConfig):
    """Rows come from a table or a query of a database; `${NAME}` in its URL is read where the database is opened."""

    FACTS: ClassVar = SourceFacts(files=False, typed=True, own_code=False, repeatable=True, windows="query")

    type: Literal["sql"] = "sql"
    url: str
    table: str = ""
    query: str = ""
    partition: str | None = None
    rows: Positive = 100_000

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together. The URL may hold a password, so it is never quoted."""
        yield from super().problems()
        yield from database_problems(self.url, SOURCES)
        if bool(self.table.strip()) == bool(self.query.strip()):
            yield ("table",), 'give either table = "claims" or query = "select …", and not both'
        try:
            placeholders(self.table)
        except ValueError as error:
            yield ("table",), str(error)
        if self.query and self.cursor and "since" not in parameters(self.query):
            yield ("query",), f"reads every row each time; say … where {self.cursor} >= :since, or drop cursor"
        if self.partition is not None and not self.partition.strip():
            yield ("partition",), 'is empty; name a column of whole numbers, such as partition = "id"'

    def names(self) -> Iterable[tuple[str, str, str]]:
        """The names in the table's name, and those that the query is given values for."""
        yield from (("table", name, f"{{{name}}}") for name in placeholders(self.table))
        yield from (("query", name, f":{name}") for name in parameters(self.query) if name not in SPAN)

    def not_windowed(self) -> tuple[str, str] | None:
        """Why every window would read the same rows, or None."""
        windowed = {"start", "end", "since", "until", "date"} & set(parameters(self.query))
        if self.cursor if self.table else windowed:
            return None
        what = " names no window: every window would load the same rows"
        return what, "say … >= :start and … < :end in query, or give the table a cursor"


def plan(pipeline: Pipeline, config: Config, window: "Window") -> Plan:
    """Return the partitions of a table or query; only where it has a `partition` key the database is asked."""
    from etl.sources import database

    return Plan(partitions=database.plan(pipeline, config, window))


def read(
    pipeline: Pipeline, config: Config, partition: Partition, context: Context, span: "Span | None"
) -> Generator[Chunk, None, str]:
    """Yield the chunks of one range of keys, `_row` counted from 1; return the sha256 of the content."""
    from etl.sources import database
    from etl.types.cursor import Span

    return database.read(pipeline, config, partition, context, span or Span())


def latest(pipeline: Pipeline, config: Config, partitions: int) -> "Cursor | None":
    """Return the latest value of the cursor's column, where partitions are read one after another or the query asks."""
    if partitions < 2 and "until" not in parameters(config.query):
        return None
    from etl.sources import database

    return database.latest(pipeline, config)
