"""Names as the target has them: how a table spells its columns, and what no table or column may be called.

A column that differs from the pipeline's by case only is that column. So rows, and the pipeline they are of, get the
table's spelling before anything is asked or written; all that follows compares names as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.errors import BadSource, ConfigError, TableMismatch, TargetRefused
from etl.load.tables import OWN, ROW, split
from etl.load.targets import Target, TargetFacts, driver_errors, kind

STAGED = ("_etl_id", "_etl_order", "_etl_row")
_RENAME = "rename it with [columns] from"


@dataclass(frozen=True)
class Spelling:
    """How the pipeline's table spells its columns.

    Args:
        there: The table's columns, or None where there is no table.
        generated: Those that get their values from the database alone.
    """

    pipeline: Pipeline
    facts: TargetFacts
    there: tuple[str, ...] | None = None
    generated: frozenset[str] = frozenset()

    def of(self, columns: Iterable[str]) -> dict[str, str]:
        """Return the table's names of columns of the pipeline: those that the table spells otherwise.

        Raises:
            TableMismatch: There are two such; or the database itself makes a column's values.
            BadSource: A column has a name that is taken.
        """
        names = [name for name in dict.fromkeys(columns) if name != ROW]
        have, free = self.there or (), dict[str, list[str]]()
        for there in set(have) - set(names):
            free.setdefault(there.casefold(), []).append(there)
        found: dict[str, str] = {}
        for name in names:
            self._refuse_taken(name)
            others = sorted(free.get(name.casefold(), ())) if name not in have else []
            if len(others) > 1:
                raise self._unclear(f'column {name} may be "{others[0]}" or "{others[1]}"')
            if others and others[0] in found.values():
                first = next(each for each, there in found.items() if there == others[0])
                raise self._unclear(f'columns {first} and {name} are both "{others[0]}"')
            if others:
                found[name] = others[0]
            there = found.get(name, name)
            if there in self.generated:
                raise TableMismatch(
                    f"table {self.pipeline.table}, column {there}: the database itself makes its values",
                    "leave the column out of what is loaded, or make it a plain one in the table",
                )
        return found

    def _unclear(self, what: str) -> TableMismatch:
        return TableMismatch(
            f"table {self.pipeline.table}: {what}", "rename a column there, or here with [columns] from"
        )

    def _refuse_taken(self, name: str) -> None:
        if name in self.facts.system:
            raise BadSource(f"column {name} has the name of a column that the database has in every table", _RENAME)
        if name not in OWN and name.casefold() in (*OWN, *STAGED):
            raise BadSource(f"column {name} has the name of a column that rq-etl adds, but for case", _RENAME)

    @cached_property
    def names(self) -> dict[str, str]:
        """The table's names of the columns that the pipeline knows, where it spells them otherwise."""
        load = self.pipeline.load
        return self.of(
            [*load.key, *(name for name in load.by if name != "_file"), *_one(load.newest), *self.pipeline.columns]
        )

    def spelled(self) -> Pipeline:
        """Return the pipeline with its columns spelled as the table does."""
        if not self.names:
            return self.pipeline
        load, there = self.pipeline.load, self.names
        changed = {
            "key": tuple(there.get(name, name) for name in load.key),
            "by": tuple(there.get(name, name) for name in load.by),
            "newest": there.get(load.newest or "", load.newest),
        }
        columns = {there.get(name, name): column for name, column in self.pipeline.columns.items()}
        return self.pipeline.model_copy(update={"load": load.model_copy(update=changed), "columns": columns})

    def rows(self, chunk: pa.Table) -> pa.Table:
        """Return a chunk with its columns spelled as the table does."""
        there = self.of([*chunk.column_names, *self.names])
        return chunk.rename_columns([there.get(name, name) for name in chunk.column_names]) if there else chunk

    def back(self, name: str) -> str:
        """Return the pipeline's name of a column of the table."""
        return next((ours for ours, theirs in self.names.items() if theirs == name), name)


def spelled_otherwise(
    connection: sa.Connection, pipeline: Pipeline, there: Iterable[str], columns: Iterable[str]
) -> dict[str, str]:
    """Return those of the columns that are there under a name that differs in case, with that name."""
    return Spelling(pipeline, kind(connection).FACTS, tuple(there)).of(columns)


def spelling(connection: sa.Connection, pipeline: Pipeline, *, to_make: bool = False) -> Spelling:
    """Return how the pipeline's table spells its columns.

    Args:
        to_make: Whether the table is made in this transaction where there is none: then no other load makes it.

    Raises:
        ConfigError: Its name is longer than the database takes.
        TargetRefused: It is no table.
        TableMismatch: There is no such table, but one that differs in case only; or a column of ours does so.
    """
    database = kind(connection)
    if pipeline.load.function:
        return Spelling(pipeline, database.FACTS)
    schema, table = split(connection, pipeline.table)
    if len(table.encode()) > database.FACTS.name_bytes:
        what = f"the name of table {table} is longer than {database.FACTS.name_bytes} bytes"
        raise ConfigError(what, "give load.table a shorter one")
    found = database.describe(connection, schema, table)
    if found is None and to_make:
        database.lock(connection, "table", pipeline.table)
        found = database.describe(connection, schema, table)  # another load may have made it while this one waited
    if found is None:
        _refuse_twin(connection, database, pipeline, schema, table)
        return Spelling(pipeline, database.FACTS)
    if found.kind != "table":
        cure = f"name a table in load.table{': the one that it shows' if found.kind.endswith('view') else ''}"
        a = "an" if found.kind == "index" else "a"
        raise TargetRefused(f"target {pipeline.target.name}: {pipeline.table} is {a} {found.kind}, no table", cure)
    if not found.columns:
        raise TargetRefused(
            f"target {pipeline.target.name}: table {pipeline.table} has no column", "drop it, and it is made anew"
        )
    for name in found.columns:
        ours = name.lower()
        if ours in OWN and ours not in found.columns:
            what = f'table {pipeline.table}: its column "{name}" differs from {ours}, which rq-etl adds, in case only'
            raise TableMismatch(what, f"rename it to {ours} if it is that one, else to something else")
    return Spelling(pipeline, database.FACTS, found.columns, found.generated)


def _refuse_twin(
    connection: sa.Connection, database: Target, pipeline: Pipeline, schema: str | None, table: str
) -> None:
    if database.FACTS.folds_case:
        return
    inspector = sa.inspect(connection)
    if schema and schema not in (schemas := inspector.get_schema_names()):
        if twin := next((name for name in schemas if name.casefold() == schema.casefold()), None):
            what = f'there is no schema {schema}, but "{twin}", which differs in case only'
            raise TableMismatch(f"target {pipeline.target.name}: {what}", "write load.table as the database does")
        what, cure = driver_errors.NO_SCHEMA
        raise TargetRefused(f"target {pipeline.target.name} {what}: {schema}", cure)
    # The table itself may be among them: another client's load may just have made it.
    names = [*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]
    for name in names:
        if name != table and name.casefold() == table.casefold():
            what = f'there is no table {table}, but "{name}", which differs in case only'
            raise TableMismatch(f"target {pipeline.target.name}: {what}", "write load.table as the database does")


def _one(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()
