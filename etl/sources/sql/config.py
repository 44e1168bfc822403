"""The keys of a source that is a database, and what is wrong with them."""

from collections.abc import Iterable
from typing import ClassVar, Literal

from etl.config.base import Problem
from etl.config.kinds import SOURCES, SourceConfig, SourceFacts, database_problems
from etl.config.pipeline import SPAN
from etl.config.values import Positive, parameters, placeholders


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
