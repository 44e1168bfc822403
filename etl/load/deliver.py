"""One partition's way into the target: straight into the table, or by way of a staging one."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.errors import ReceiptMismatch, TableMismatch
from etl.load import ledger, tables
from etl.load.apply import apply, lock_table
from etl.load.ledger import Delivery
from etl.load.rows import Writer, grouped, kind_of
from etl.load.staged import TEMPORARY, Shadow
from etl.load.targets import kind
from etl.types.cursor import is_strict
from etl.types.sql import word_of_column


@dataclass(frozen=True)
class LoadCounts:
    """What became of a partition's rows.

    Args:
        loaded, unchanged, superseded: Rows, all 0 until `final`.
        staged: Rows that wait in the run's shadow table for `finish`.
        final: Whether nothing is left to do for this partition.
    """

    loaded: int
    unchanged: int
    superseded: int
    rejected: int = 0
    staged: int = 0
    final: bool = True
    warnings: tuple[str, ...] = ()


def is_atomic(pipeline: Pipeline) -> bool:
    """Whether a run loads all of its rows or none."""
    if pipeline.extract.cursor is not None and is_strict(pipeline):
        return True  # half of what is newer can't be appended: the cursor has one place
    guarded = pipeline.max_rejects is not None or (pipeline.expect is not None and pipeline.expect.otherwise == "fail")
    return pipeline.load.atomic or pipeline.load.mode == "replace" or guarded


def is_staged(pipeline: Pipeline) -> bool:
    """Whether the rows of several partitions have to be seen together before they are the table's."""
    unique = any(column.unique for column in pipeline.columns.values())
    return pipeline.load.mode != "append" or is_atomic(pipeline) or unique


class Way:
    """One partition's way into the target, in one transaction."""

    def __init__(self, connection: sa.Connection, book: sa.Table, delivery: Delivery) -> None:
        self.connection, self.book, self.delivery, self.pipeline = connection, book, delivery, delivery.pipeline
        self.warnings: list[str] = []
        self.types: dict[str, str] = {}

    def append(self, chunks: Iterable[pa.Table]) -> int:
        """Write rows straight into the table; return how many."""
        writer = Writer(self.pipeline, self.delivery.run, self.delivery.partition, staged=False)
        own = dict.fromkeys(writer.extra, kind(self.connection).TYPES["string"])
        for schema, group in grouped(self.pipeline, chunks):
            fit = self._fit(schema, alone=True)
            tables.ensure(self.connection, self.pipeline.table, {**fit.types, **own}, known=fit.there)
            self._write(self.pipeline.table, writer, fit, group)
        return writer.written

    def stage(self, shadow: Shadow, chunks: Iterable[pa.Table]) -> int:
        """Write rows into a staging table; return how many."""
        writer = Writer(self.pipeline, self.delivery.run, self.delivery.partition, staged=True)
        for schema, group in grouped(self.pipeline, chunks):
            fit = self._fit(schema, alone=shadow.temporary)
            self._check_staged(shadow, fit)
            shadow.widen(fit.types)
            self._write(shadow.names[0], writer, fit, group)
        return writer.written

    def merge(self, chunks: Iterable[pa.Table]) -> LoadCounts:
        """Bring rows into the table by way of a temporary one."""
        shadow = Shadow(self.connection, self.pipeline, self.delivery.run, TEMPORARY, temporary=True)
        staged = self.stage(shadow, chunks)
        if not shadow.types:
            return LoadCounts(0, 0, 0)
        number = self.delivery.partition.number
        outcome = apply(shadow, [self.delivery.partition], (), staged={number: staged})[number]
        return LoadCounts(outcome.loaded, outcome.unchanged, outcome.superseded)

    def close(self, counts: LoadCounts) -> LoadCounts:
        """Write the counts into the ledger, and return them."""
        rows = counts.loaded + counts.unchanged + counts.superseded + counts.staged
        ledger.record(
            self.connection, self.book, self.delivery.run, self.delivery.partition.number,
            rows=rows, loaded=counts.loaded, unchanged=counts.unchanged, superseded=counts.superseded,
            final=counts.final, types=json.dumps(self.types),
        )  # fmt: skip
        return LoadCounts(**{**asdict(counts), "warnings": tuple(dict.fromkeys(self.warnings))})

    def _fit(self, schema: pa.Schema, *, alone: bool) -> tables.Fit:
        """Say how rows go into the table; `alone` where what it lacks is made in this transaction."""
        fit = tables.fit(self.connection, self.pipeline, schema)
        if fit.makes and alone:
            # Another client's load may be making it at this moment, with types inferred from its own rows.
            lock_table(self.connection, self.pipeline)
            fit = tables.fit(self.connection, self.pipeline, schema)
        self.warnings += fit.warnings
        self.types |= {name: kind_of(name, schema.field(name).type) for name in fit.types}
        return fit

    def _check_staged(self, shadow: Shadow, fit: tables.Fit) -> None:
        """Meet rows that were staged with other types: by an earlier attempt, or from a function that is not steady."""
        there = {} if shadow.temporary else tables.existing(self.connection, shadow.names[0]) or {}
        found = {name: word_of_column(type) for name, type in there.items()}
        wanted = {name: word_of_column(type) for name, type in fit.types.items()}
        differing = [name for name, word in wanted.items() if found.get(name, word) != word]
        if not differing:
            return
        others = ledger.entries(self.connection, self.book, self.delivery.run)
        mine = self.delivery.partition.number
        if any(entry.final or entry.attempt >= self.delivery.attempt for entry in others if entry.partition != mine):
            raise TableMismatch(
                f"column {differing[0]} has other types in other partitions of the run",
                f"declare the type of {differing[0]} in [columns] (computed = true if a function makes it)",
            )
        shadow.drop()

    def _write(self, table: str, writer: Writer, fit: tables.Fit, chunks: Iterable[pa.Table]) -> None:
        before = writer.written
        columns = [*fit.types, *writer.extra]
        into = tables.table(self.connection, table, columns)
        ready = writer.ready(chunks, fit.types, fit.casts)
        written = kind(self.connection).write(self.connection, into, columns, ready)
        if written != writer.written - before:
            raise ReceiptMismatch(
                f"table {table} took {written:,} rows of {writer.written - before:,}",
                "look for a trigger or a rule on the table that drops rows",
            )
