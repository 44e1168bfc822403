"""Staged rows: the tables in the target where they wait until they are applied."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.load import columns, tables
from etl.load.targets import kind

ID, ORDER, LINE = "_etl_id", "_etl_order", "_etl_row"
PARTITION_BITS = 32  # `_etl_id` = partition << 32 | number of the row in it
TEMPORARY = "_etl_staged", "_etl_settled"
PREFIXES = "_etl_shadow_", "_etl_settled_"  # of a run's tables, whose names go on with the run's id
STAGED = {ID: "integer", ORDER: "integer", LINE: "integer", "_file": "string"}
LOST = {ID: "integer", "why": "string", "column_name": "string"}


@dataclass(frozen=True)
class Duplicate:
    """A row whose value of a unique column another partition of the run has too.

    Args:
        row: Its `_row`.
    """

    partition: int
    row: int
    column: str


@dataclass(frozen=True)
class Shadow:
    """A run's staged rows in the target.

    Args:
        names: Of the table of rows, and of the table that says which of them are not to be written, and why.
        types, words: Of the columns of rows: as the database has them, and as the pipeline calls them.
    """

    connection: sa.Connection
    pipeline: Pipeline
    run: str
    names: tuple[str, ...]
    temporary: bool = False
    types: dict[str, Any] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> sa.TableClause:
        """The table of rows."""
        return tables.table(self.connection, self.names[0], [*STAGED, *self.types])

    @property
    def lost(self) -> sa.TableClause:
        """The table of rows that are not to be written: they lost to another row, or are in the target already."""
        return tables.table(self.connection, self.names[1], LOST)

    def widen(self, types: Mapping[str, Any], words: Mapping[str, str]) -> None:
        """Make the table of rows, or give it the columns it lacks."""
        self._make(self.names[0], STAGED, types)
        lacking = {name: words[name] for name in types if name not in self.words and name in words}
        if lacking and not self.temporary:
            columns.remember(self.connection, self.names[0], lacking)
        self.types.update(types)
        self.words.update(lacking)

    def turn(self, changes: Mapping[str, columns.Change]) -> None:
        """Give columns of the staged rows wider types."""
        if not changes:
            return
        columns.widen(self.connection, self.names[0], changes, {}, self.pipeline.timezone)
        words = {name: change.new for name, change in changes.items()}
        if not self.temporary:
            columns.remember(self.connection, self.names[0], words)
        self.words.update(words)
        self.types.update({name: kind(self.connection).TYPES[word] for name, word in words.items()})

    def make_lost(self) -> None:
        """Make the table of rows that are not to be written, empty."""
        tables.drop(self.connection, self.names[1])
        self._make(self.names[1], LOST, {})

    def _make(self, name: str, own: Mapping[str, str], types: Mapping[str, Any]) -> None:
        database = kind(self.connection)
        key = (ID,) if database.FACTS.row_keys else ()
        all_types = {**{column: database.TYPES[word] for column, word in own.items()}, **types}
        tables.ensure(self.connection, name, all_types, key, temporary=self.temporary)

    def exists(self) -> bool:
        """Whether there are staged rows; reads their columns."""
        found = columns.known(self.connection, self.names[0])
        if found is None:
            return False
        self.types.update({name: column.type for name, column in found.items() if name not in STAGED})
        self.words.update({name: column.word for name, column in found.items() if name not in STAGED})
        return True

    def spell(self, names: Mapping[str, str]) -> None:
        """Rename columns that were staged before the pipeline's table was there, which spells them otherwise."""
        for name, there in names.items():
            if name in self.types and there not in self.types:
                tables.rename(self.connection, self.names[0], name, there)
                self.types[there], self.words[there] = self.types.pop(name), self.words.pop(name)
                columns.remember(self.connection, self.names[0], {there: self.words[there]})

    def counts(self) -> dict[int, int]:
        """Return the number of rows by partition."""
        number = partition_of(self.rows)
        query = sa.select(number, sa.func.count()).group_by(number)
        return {int(number): count for number, count in self.connection.execute(query)}

    def forget(self, partition: int) -> None:
        """Remove a partition's rows."""
        rows = self.rows
        self.connection.execute(sa.delete(rows).where(partition_of(rows) == partition))

    def drop(self) -> None:
        """Remove everything that was staged."""
        for name in self.names:
            tables.drop(self.connection, name)
        if not self.temporary:
            columns.forget(self.connection, self.names[0])

    def duplicates(self) -> list[Duplicate]:
        """Return the rows that `apply` found to be doubled."""
        if tables.existing(self.connection, self.names[1]) is None:
            return []
        lost, rows = self.lost, self.rows
        query = (
            sa.select(partition_of(rows), rows.c[LINE], lost.c.column_name)
            .join_from(rows, lost, rows.c[ID] == lost.c[ID])
            .where(lost.c.why == "rejected")
            .order_by(rows.c[ID])
        )
        return [Duplicate(int(number), row, column) for number, row, column in self.connection.execute(query)]


def of_run(connection: sa.Connection, pipeline: Pipeline, run: str) -> Shadow:
    """Return the shadow of a run of several partitions; its tables stand beside the pipeline's table."""
    schema, _ = tables.split(connection, pipeline.table)
    mark = run if len(run) <= 40 else hashlib.sha256(run.encode()).hexdigest()[:40]
    return Shadow(connection, pipeline, run, names_of(schema, mark))


def names_of(schema: str | None, run: str) -> tuple[str, ...]:
    """Return the names of a run's tables: of rows, and of those that are not to be written."""
    return tuple(".".join(filter(None, (schema, f"{prefix}{run}"))) for prefix in PREFIXES)


def partition_of(rows: sa.TableClause) -> sa.ColumnElement[int]:
    """Return the number of the partition that a staged row is of."""
    return rows.c[ID].op(">>")(sa.literal_column(str(PARTITION_BITS)))
