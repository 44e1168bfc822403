"""Loading one partition: its rows go straight into the table, or into a staging one, with its row in the ledger."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.errors import TRIED_AGAIN, ReceiptMismatch, TargetBusy
from etl.load import earlier, expect, function, known, ledger, tables
from etl.load.apply import apply, lock
from etl.load.columns import Change, change, names
from etl.load.columns.fit import Changes, Fit, Kinds, fit, kind_of, lacks
from etl.load.columns.stored import stored
from etl.load.cursors import Move, advance
from etl.load.history import Record, refuse_older, write
from etl.load.ledger import Delivery
from etl.load.staged import ID, LINE, ORDER, TEMPORARY, Shadow, of_run
from etl.load.tables import OWN, ROW
from etl.load.targets import kind
from etl.types.cursor import is_strict


@dataclass(frozen=True)
class LoadCounts:
    """What became of a partition's rows.

    Args:
        loaded, unchanged, superseded: Rows, all 0 until `final`.
        rejected: Rows that are good now, but were rejected when an earlier run appended their file.
        earlier: That run, or "".
        staged: Rows that wait in the run's shadow table for `finish`.
        final: Whether nothing is left to do for this partition.
    """

    loaded: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0
    staged: int = 0
    final: bool = True
    warnings: tuple[str, ...] = ()
    earlier: str = ""


def is_atomic(pipeline: Pipeline) -> bool:
    """Whether a run loads all of its rows or none."""
    if pipeline.extract.cursor is not None and is_strict(pipeline):
        return True  # half of what is newer can't be appended: the cursor has one place
    guarded = pipeline.max_rejects is not None or (pipeline.expect is not None and pipeline.expect.otherwise == "fail")
    return pipeline.load.atomic or pipeline.load.mode == "replace" or guarded


def load(
    delivery: Delivery,
    chunks: Iterable[pa.Table],
    *,
    rejected: int,
    read: int,
    url: str | None = None,
    delivered: expect.Delivered | None = None,
    record: Callable[[LoadCounts], Record] | None = None,
    move: Move | None = None,
    types: Kinds | None = None,
    zones: Mapping[str, str] | None = None,
    locate: change.Locate | None = None,
) -> LoadCounts:
    """Load one partition, once: called again it answers what it did and writes nothing.

    The only partition of a run is final then, as is a plain append; other rows wait in the target for `finish`.

    Args:
        chunks: Rows as the transform gives them, with `_row`; up to 100,000 in each. Read once, one at a time.
        rejected, read: Rows of the partition so far, for `max_rejects` of a run with one partition.
        url: Of the target; by default the pipeline's.
        delivered: What expectations ask for, of a run that this load is all of.
        record: Says what the target is to remember of a run that this load is all of.
        move: Of the cursor, for a run that this load is all of.
        types: Candidates of columns that are not declared, of all chunks; by default each chunk's own types.
        zones: Time zones of clients that share the table.
        locate: Says where a value is that its column's type has to change for.

    Raises:
        CursorMoved: What is appended may be there already.
        TooManyRejects: More rows were rejected than `max_rejects` allows.
        ChangedFile: An append of a file that has changed since an earlier run appended it.
        TableMismatch, BadSource, MissingColumn, FunctionFailed: The rows can't go into the table as they are.
        TargetUnreachable, TargetBusy, TargetRefused: The target can't take them, now or at all.
    """
    pipeline, is_all = delivery.pipeline, delivery.partitions == 1
    if is_all:
        expect.check(pipeline, [delivery.partition], read, delivered, url)
        expect.check_rejects(pipeline, rejected, read)
        expect.check_all_rejected(pipeline, delivery.all_rejected, read)
    rows = iter(chunks)
    first, taken = list[pa.Table](), list[bool]()
    every = bool(delivery.partition.fixed)  # of fixed rows, which are few, some may be there: which are first is open
    while (every or not (first and first[-1].num_rows)) and (chunk := list(islice(rows, 1))):
        first += chunk  # up to the first with rows: what the table lacks is found by that, before any is written
        chunk.clear()

    def once(connection: sa.Connection, warnings: Sequence[str]) -> LoadCounts:
        if record is not None and is_all:
            refuse_older(connection, pipeline, record(LoadCounts()))
        if taken:  # the rest can't be read twice
            raise _is_changing(pipeline)
        counts = _load(connection, delivery, _again(first, rows, taken), types or {}, zones or {})
        counts = replace(counts, warnings=(*warnings, *counts.warnings))
        if move is not None and is_all:
            advance(connection, pipeline, delivery.run, move)
        if record is not None and is_all:
            write(connection, pipeline, record(counts))
        return counts

    return change.changing(url or url_of(pipeline), pipeline, once, locate)


def _again(first: list[pa.Table], rows: Iterator[pa.Table], taken: list[bool]) -> Iterator[pa.Table]:
    yield from first
    taken.append(True)
    first.clear()  # only now, as whoever asks for the next has written these
    yield from rows


def _is_changing(pipeline: Pipeline) -> TargetBusy:
    return TargetBusy(f"table {pipeline.table} is changed by another load at this moment", TRIED_AGAIN)


def _load(
    connection: sa.Connection, delivery: Delivery, chunks: Iterable[pa.Table], kinds: Kinds, zones: Mapping[str, str]
) -> LoadCounts:
    book = ledger.table(connection, delivery.pipeline)
    shadow = of_run(connection, delivery.pipeline, delivery.run)
    entry = ledger.claim(connection, book, delivery)
    if entry is not None:
        if entry.final or entry.attempt >= delivery.attempt:
            staged = 0 if entry.final else entry.rows
            return LoadCounts(entry.loaded, entry.unchanged, entry.superseded, entry.rejected, staged, entry.final)
        # An earlier attempt staged this partition: that goes, and the partition is claimed anew.
        if shadow.exists():
            shadow.forget(delivery.partition.number)
        ledger.forget(connection, book, delivery.run, delivery.partition.number)
        ledger.claim(connection, book, delivery)
    loading = _Loading(connection, book, delivery, kinds, zones)
    counts = loading.load(shadow, chunks)
    if delivery.partitions > 1 and delivery.all_rejected:
        counts = replace(counts, final=False)  # a retry with another configuration reads it again
    number: dict[str, Any] = {}
    if counts.final:
        number["sequence"] = ledger.next_number(connection, book, delivery.pipeline)
    if delivery.partition.fixed:
        number["lines"] = ledger.lines_of(delivery.partition, loading.fixed)
    ledger.record(
        connection, book, delivery.run, delivery.partition.number,
        rows=counts.loaded + counts.unchanged + counts.superseded + counts.staged,
        loaded=counts.loaded, unchanged=counts.unchanged, superseded=counts.superseded,
        rejected=counts.rejected, final=counts.final, types=json.dumps(loading.types), **number,
    )  # fmt: skip
    if counts.loaded:
        loading.warnings += earlier.doubled(
            connection, book, delivery.pipeline, delivery.run, [delivery.partition.number]
        )
    return replace(counts, warnings=tuple(dict.fromkeys(loading.warnings)))


class _Loading:
    """The loading of one partition, in one transaction."""

    def __init__(
        self, connection: sa.Connection, book: sa.Table, delivery: Delivery, kinds: Kinds, zones: Mapping[str, str]
    ) -> None:
        self.connection, self.book, self.delivery, self.pipeline = connection, book, delivery, delivery.pipeline
        self.kinds, self.zones = kinds, zones
        self.warnings: list[str] = []
        self.types: dict[str, str] = {}
        self.absent = False  # whether rows are staged as if there were no table yet
        self.written = 0
        self.unchanged = self.superseded = 0
        self.fixed: list[int] = []  # `_row` of fixed rows that are appended

    def load(self, shadow: Shadow, chunks: Iterable[pa.Table]) -> LoadCounts:
        """Bring the rows to where they belong, unless an earlier run has."""
        delivery, settings = self.delivery, self.pipeline.load
        if delivery.skipped:
            return LoadCounts(unchanged=delivery.skipped)
        if settings.function:
            return LoadCounts(function.call(self.connection, delivery, chunks))
        if (there := self._there(chunks)) is not None:
            return there
        is_append = settings.mode == "append"
        unique = any(column.unique for column in self.pipeline.columns.values())
        # Rows of several partitions that have to be seen together before they are the table's.
        stages = delivery.partitions > 1 and (not is_append or unique or is_atomic(self.pipeline))
        if is_append and not stages:
            tables.hold(self.connection, self.pipeline.table, adds=True)
        spelling = names.spelling(self.connection, self.pipeline)
        if stages:
            # Rows are staged as the run's others are; so is what is there before the table, or before it came.
            staged = tuple(shadow.types) if shadow.exists() else ()
            self.absent = spelling.there is None or bool(spelling.of(staged))
            spelling = replace(spelling, there=staged) if self.absent else spelling
        elif spelling.there is None:
            lock(self.connection, self.pipeline)
            spelling = names.spelling(self.connection, self.pipeline, to_make=True)
        self.pipeline, chunks = spelling.spelled(), map(spelling.rows, chunks)
        respelled = spelling.of([*self.kinds, *spelling.names])
        self.kinds = {respelled.get(name, name): kinds for name, kinds in self.kinds.items()}
        if stages:
            self._stage(shadow, chunks)
            return LoadCounts(staged=self.written, final=False)
        if is_append:
            self._append(self._not_there(chunks) if delivery.partition.fixed else chunks)
            return LoadCounts(self.written, self.unchanged, self.superseded)
        return self._merge(chunks)

    def _there(self, chunks: Iterable[pa.Table]) -> LoadCounts | None:
        """Say what an earlier run has made of the rows, or None where they are to be loaded."""
        delivery = self.delivery
        if delivery.partition.fixed:
            return None  # each of its rows is asked for
        if self.pipeline.load.mode == "append":
            found = earlier.loaded_before(self.connection, self.book, [delivery])
            if not found:
                return None
            there, rows = found[delivery.partition.number], sum(chunk.num_rows for chunk in chunks)
            missing = earlier.never_loaded(self.connection, self.book, self.pipeline, there, rows)
            if missing:
                self.warnings.append(earlier.rejected_then(delivery, there, missing))
            if (window := ledger.window_of(there.code)) and window != ledger.window_of(delivery.code):
                self.warnings.append(earlier.of_another_window(self.pipeline, there))
            return LoadCounts(unchanged=rows - missing, rejected=missing, earlier=there.run)
        if self.pipeline.load.mode != "replace" or delivery.again:
            return None
        may_skip = known.may_skip(self.pipeline, delivery.partition, delivery.partitions)
        if not (may_skip and known.has_rows(self.connection, self.book, delivery)):
            return None
        return LoadCounts(unchanged=sum(chunk.num_rows for chunk in chunks))

    def _not_there(self, chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield chunks of fixed rows without those that were loaded before, or whose file was replaced since."""
        asked = self.connection, self.book, self.delivery
        there, late = (
            pa.array(sorted(rows), pa.int64())
            for rows in (earlier.fixed_before(*asked), earlier.fixed_too_late(*asked))
        )
        for chunk in chunks:
            new = chunk.filter(pc.invert(pc.is_in(chunk[ROW], value_set=there)))
            self.unchanged += chunk.num_rows - new.num_rows
            mine = new.filter(pc.invert(pc.is_in(new[ROW], value_set=late)))
            self.superseded += new.num_rows - mine.num_rows
            self.fixed += mine[ROW].to_pylist()
            yield mine
        if self.superseded:
            what = "1 fixed row is" if self.superseded == 1 else f"{self.superseded:,} fixed rows are"
            self.warnings.append(f"{what} not loaded: {self.pipeline.table} has another version of the file by now")

    def _append(self, chunks: Iterable[pa.Table]) -> None:
        extra = OWN if self.pipeline.shared else OWN[1:]
        own = dict.fromkeys(extra, kind(self.connection).TYPES["string"])
        for schema, group in self._grouped(chunks):
            fit = self._fit(schema, wanted=own)
            if fit.there is None or lacks(self.connection, fit, own):
                change.make(self.connection, self.pipeline, fit, own, self.zones)
            self._write(self.pipeline.table, fit, extra, group)

    def _stage(self, shadow: Shadow, chunks: Iterable[pa.Table]) -> None:
        for schema, group in self._grouped(chunks):
            fit = self._fit(schema, wanted=change.own_columns(self.pipeline))
            fit = change.join(shadow, fit, self.kinds)
            shadow.widen(fit.types, fit.staged)
            self._write(shadow.names[0], fit, (ID, ORDER, LINE, "_file"), group)

    def _merge(self, chunks: Iterable[pa.Table]) -> LoadCounts:
        shadow = Shadow(self.connection, self.pipeline, self.delivery.run, TEMPORARY, temporary=True)
        self._stage(shadow, chunks)
        if not shadow.types:
            return LoadCounts()
        number = self.delivery.partition.number
        lock(self.connection, self.pipeline)
        tables.hold(self.connection, self.pipeline.table, adds=False)
        change.align(shadow, ledger.columns_there(self.connection, self.pipeline), self.zones)
        outcome = apply(shadow, [self.delivery.partition], (), staged={number: self.written})[number]
        return LoadCounts(outcome.loaded, outcome.unchanged, outcome.superseded)

    def _grouped(self, chunks: Iterable[pa.Table]) -> Iterator[tuple[pa.Schema, Iterator[pa.Table]]]:
        """Yield chunks that follow one another and have the same columns; nearly always that is all of them.

        A chunk without rows is kept only where its types were declared: inferred from nothing they would mean nothing.
        """
        kept = (chunk for chunk in chunks if chunk.num_rows or self.pipeline.columns)
        yield from groupby(kept, key=lambda chunk: chunk.schema.remove_metadata())

    def _fit(self, schema: pa.Schema, *, wanted: Collection[str]) -> Fit:
        """Say how rows go into the table.

        Args:
            wanted: Columns of ours that the table has to have beside them.

        Raises:
            Changes: A table that is there has to change before any row is written.
            TargetBusy: It changes at this moment.
        """
        found = self._fitting(self.connection, schema)
        if lacks(self.connection, found, [*found.types, *wanted]):
            if not self.written:
                raise Changes(lambda connection: self._change(connection, schema, wanted))
            change.make(self.connection, self.pipeline, found, wanted, self.zones)
            found = self._fitting(self.connection, schema)
            if lacks(self.connection, found, found.types):
                raise _is_changing(self.pipeline)
        self.warnings += found.warnings
        kinds = {name: kind_of(name, schema.field(name).type) for name in schema.names if name != ROW}
        # A column without a value is one that the rows have, also where nothing is written into it.
        self.types |= {name: word for name, word in kinds.items() if word == "null"} | found.staged
        return found

    def _fitting(self, connection: sa.Connection, schema: pa.Schema) -> Fit:
        # A table that has come since is met when what is staged is applied, by its own names and types.
        there = None if self.absent else ledger.columns_there(connection, self.pipeline)
        return fit(connection, self.pipeline, schema, there, self.kinds, self.zones)

    def _change(self, connection: sa.Connection, schema: pa.Schema, wanted: Collection[str]) -> Mapping[str, Change]:
        found = self._fitting(connection, schema)
        return change.make(connection, self.pipeline, found, wanted, self.zones)

    def _write(self, table: str, fit: Fit, extra: tuple[str, ...], chunks: Iterable[pa.Table]) -> None:
        before = self.written
        columns = [*fit.types, *extra]
        into = tables.table(self.connection, table, columns)
        written = kind(self.connection).write(self.connection, into, columns, self._ready(chunks, fit, extra))
        if written != self.written - before:
            raise ReceiptMismatch(
                f"table {table} took {written:,} rows of {self.written - before:,}",
                "look for a trigger or a rule on the table that drops rows",
            )

    def _ready(self, chunks: Iterable[pa.Table], fit: Fit, extra: tuple[str, ...]) -> Iterator[pa.Table]:
        for chunk in chunks:
            made = stored(self.pipeline, self.delivery.partition, self.delivery.run, chunk, fit, extra, self.written)
            self.written += chunk.num_rows
            yield made
