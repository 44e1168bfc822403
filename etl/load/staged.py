"""Staged rows: the tables in the target where they wait until they are applied."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.load import tables
from etl.load.rows import ID, LINE, ORDER, PARTITION_BITS
from etl.load.targets import kind

TEMPORARY = "_etl_staged", "_etl_settled"
STAGED = {ID: "integer", ORDER: "integer", LINE: "integer", "_file": "string"}
SETTLED = {ID: "integer", "why": "string", "column_name": "string"}


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
    """

    connection: sa.Connection
    pipeline: Pipeline
    run: str
    names: tuple[str, str]
    temporary: bool = False
    types: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> sa.TableClause:
        """The table of rows."""
        return tables.table(self.connection, self.names[0], [*STAGED, *self.types])

    @property
    def settled(self) -> sa.TableClause:
        """The table of rows that are not to be written."""
        return tables.table(self.connection, self.names[1], SETTLED)

    def widen(self, types: Mapping[str, Any]) -> None:
        """Make the table of rows, or give it the columns it lacks."""
        self._make(self.names[0], {**_typed(self.connection, STAGED), **types})
        self.types.update(types)

    def make_settled(self) -> None:
        """Make the table of rows that are not to be written, empty."""
        tables.drop(self.connection, self.names[1])
        self._make(self.names[1], _typed(self.connection, SETTLED))

    def _make(self, name: str, types: Mapping[str, Any]) -> None:
        # Where it costs nothing, the number of the row is the key.
        key = (ID,) if kind(self.connection).FACTS.row_keys else ()
        tables.ensure(self.connection, name, types, key, temporary=self.temporary)

    def exists(self) -> bool:
        """Whether there are staged rows; reads their columns."""
        found = tables.existing(self.connection, self.names[0])
        if found is None:
            return False
        self.types.update({name: type for name, type in found.items() if name not in STAGED})
        return True

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

    def duplicates(self) -> list[Duplicate]:
        """Return the rows that `apply` found to be doubled."""
        if tables.existing(self.connection, self.names[1]) is None:
            return []
        settled, rows = self.settled, self.rows
        query = (
            sa.select(partition_of(rows), rows.c[LINE], settled.c.column_name)
            .join_from(rows, settled, rows.c[ID] == settled.c[ID])
            .where(settled.c.why == "rejected")
            .order_by(rows.c[ID])
        )
        return [Duplicate(int(number), row, column) for number, row, column in self.connection.execute(query)]


def of_run(connection: sa.Connection, pipeline: Pipeline, run: str) -> Shadow:
    """Return the shadow of a run of several partitions; its tables stand beside the pipeline's table."""
    schema, _ = tables.split(connection, pipeline.table)
    mark = run if len(run) <= 40 else hashlib.sha256(run.encode()).hexdigest()[:40]
    names = [".".join(filter(None, (schema, f"{prefix}{mark}"))) for prefix in ("_etl_shadow_", "_etl_settled_")]
    return Shadow(connection, pipeline, run, (names[0], names[1]))


def partition_of(rows: sa.TableClause) -> sa.ColumnElement[int]:
    """Return the number of the partition that a staged row is of."""
    return rows.c[ID].op(">>")(sa.literal_column(str(PARTITION_BITS)))


def _typed(connection: sa.Connection, words: Mapping[str, str]) -> dict[str, Any]:
    return {name: kind(connection).TYPES[word] for name, word in words.items()}
