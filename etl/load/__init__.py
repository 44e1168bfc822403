"""Loading: one partition's rows go into the target in one transaction with the ledger row that says so."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import resolve_url, url_of
from etl.errors import ReceiptMismatch, TooManyRejects
from etl.load import expect, function, ledger, tables
from etl.load.apply import apply
from etl.load.cursors import Move, advance
from etl.load.deliver import LoadCounts, Way, is_atomic, is_staged
from etl.load.history import Record, remember, write
from etl.load.ledger import Delivery, Entry
from etl.load.skips import is_there, may_skip
from etl.load.staged import Duplicate, Shadow, of_run
from etl.load.targets import kind
from etl.load.targets.connect import check_target, transaction
from etl.partition import Partition
from etl.types.sql import word_of_column

__all__ = [
    "Delivery",
    "Duplicate",
    "FinishCounts",
    "LoadCounts",
    "Move",
    "Record",
    "check_target",
    "column_types",
    "drop_shadow",
    "finish",
    "load",
    "remember",
    "resolve_url",
]


@dataclass(frozen=True)
class FinishCounts:
    """What became of a run's rows.

    Args:
        duplicates: Rows that are rejects because another partition has the same value of a unique column.
        applied: Whether what was staged is in the table now; nothing is where an atomic run is not complete.
    """

    loaded: int = 0
    unchanged: int = 0
    superseded: int = 0
    duplicates: tuple[Duplicate, ...] = ()
    applied: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def rejected(self) -> int:
        """How many duplicates there are."""
        return len(self.duplicates)


def load(
    delivery: Delivery,
    chunks: Iterable[pa.Table],
    *,
    rejected: int,
    read: int,
    url: str | None = None,
    record: Callable[[LoadCounts], Record] | None = None,
    move: Move | None = None,
) -> LoadCounts:
    """Load one partition, once: called again it answers what it did and writes nothing.

    The only partition of a run is final then, as is a plain append; other rows wait in the target for `finish`.

    Args:
        chunks: Rows as the transform gives them, with `_row`; up to 100,000 in each. Read once, one at a time.
        rejected, read: Rows of the partition so far, for `max_rejects` of a run with one partition.
        url: Of the target; by default the pipeline's.
        record: Says what the target is to remember of a run that this load is all of.
        move: Of the cursor, for a run that this load is all of.

    Raises:
        CursorMoved: What is appended may be there already.
        TooManyRejects: More rows were rejected than `max_rejects` allows.
        ChangedFile: An append of a file that has changed since an earlier run appended it.
        TableMismatch, BadSource, MissingColumn, FunctionFailed: The rows can't go into the table as they are.
        TargetUnreachable, TargetBusy, TargetRefused: The target can't take them, now or at all.
    """
    pipeline = delivery.pipeline
    if delivery.partitions == 1:
        expect.check(pipeline, [delivery.partition], read)
        _check_rejects(pipeline, rejected, read)
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        counts = _load(connection, delivery, chunks)
        if move is not None and delivery.partitions == 1:
            advance(connection, pipeline, delivery.run, move)
        if record is not None and delivery.partitions == 1:
            write(connection, pipeline, record(counts))
        return counts


def finish(
    pipeline: Pipeline,
    run: str,
    partitions: Sequence[Partition],
    *,
    done: Sequence[int],
    complete: bool,
    read: int,
    rejected: int,
    url: str | None = None,
    record: Callable[[FinishCounts], Record] | None = None,
    move: Move | None = None,
) -> FinishCounts:
    """Apply what a run's partitions have staged, in one transaction; called again it answers the same.

    Args:
        partitions: All of the run's.
        done: Numbers of those that were loaded.
        complete: Whether that is all of them; if not, an atomic run applies nothing, and what is staged is kept.
        read, rejected: Rows of the whole run, for `max_rejects`.
        url: Of the target; by default the pipeline's.
        record: Says what the target is to remember of the run.
        move: Of the cursor; it stays where the run is not complete.

    Raises:
        CursorMoved: What is appended may be there already.
        TooManyRejects: More rows were rejected than `max_rejects` allows, doubled ones included.
        ReceiptMismatch: The target does not have what was loaded.
        TargetUnreachable, TargetBusy, TargetRefused, TableMismatch: See `load`.
    """
    if not done:
        return FinishCounts(applied=complete)
    if len(partitions) > 1:
        if complete:
            expect.check(pipeline, partitions, read)
        _check_rejects(pipeline, rejected, read)
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        book = ledger.table(connection, pipeline)
        shadow = of_run(connection, pipeline, run)
        # Two executions of one finish meet here; the second finds everything final.
        kind(connection).lock(connection, "apply", pipeline.table, pipeline.client if pipeline.shared else "")
        entries = {entry.partition: entry for entry in ledger.entries(connection, book, run)}
        if lost := sorted(set(done) - set(entries)):
            raise ReceiptMismatch(
                f"partition {lost[0]} of run {run} was loaded, but target {pipeline.target.name} has no record of it",
                "run the pipeline again: the target was restored or changed, or what was staged there was dropped",
            )
        pending = {number for number in done if not entries[number].final}
        applied = not pending or complete or not is_atomic(pipeline)
        duplicates: list[Duplicate] = []
        if pending and applied:
            duplicates = _apply(connection, book, shadow, partitions, {number: entries[number] for number in done})
            if duplicates:
                _check_rejects(pipeline, rejected + len(duplicates), read)
            if complete and not duplicates:
                shadow.drop()
            entries = {entry.partition: entry for entry in ledger.entries(connection, book, run)}
        elif shadow.exists():
            duplicates = shadow.duplicates()
        final = [entries[number] for number in done if entries[number].final]
        counts = FinishCounts(
            loaded=sum(entry.loaded for entry in final),
            unchanged=sum(entry.unchanged for entry in final),
            superseded=sum(entry.superseded for entry in final),
            duplicates=tuple(duplicates),
            applied=applied,
        )
        if move is not None and complete and applied:
            advance(connection, pipeline, run, move)
        if record is not None:
            write(connection, pipeline, record(counts))
        return counts


def drop_shadow(pipeline: Pipeline, run: str, url: str | None = None) -> None:
    """Remove what a run has staged in the target and not applied; the run can't be finished after that, only redone."""
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        shadow = of_run(connection, pipeline, run)
        ledger.forget(connection, ledger.table(connection, pipeline), run)
        shadow.drop()


def column_types(pipeline: Pipeline, url: str | None = None) -> dict[str, str]:
    """Return the types of the columns that the pipeline's table has, in the pipeline's words; {} if there is none."""
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        there = tables.existing(connection, pipeline.table) or {}
        found = {name: word_of_column(type) for name, type in there.items() if name not in ("_client", "_run", "_file")}
        last = ledger.last_types(connection, ledger.table(connection, pipeline), pipeline)
        fits = kind(connection).FITS
        # SQLite keeps dates as text: what was last loaded says which they are.
        found |= {name: type for name, type in last.items() if name in found and found[name] in fits[type]}
        return {name: type for name, type in found.items() if type in fits}


def _load(connection: sa.Connection, delivery: Delivery, chunks: Iterable[pa.Table]) -> LoadCounts:
    pipeline = delivery.pipeline
    book = ledger.table(connection, pipeline)
    shadow = of_run(connection, pipeline, delivery.run)
    known = ledger.claim(connection, book, delivery)
    if known is not None:
        if known.final or known.attempt >= delivery.attempt:
            return _answer(known)
        _take_back(connection, book, shadow, delivery)
    work = Way(connection, book, delivery)
    if delivery.skipped:
        return work.close(LoadCounts(0, delivery.skipped, 0))
    if pipeline.load.function:
        rows = function.call(connection, delivery, chunks)
        return work.close(LoadCounts(rows, 0, 0))
    if pipeline.load.mode == "append" and ledger.loaded_before(connection, book, delivery):
        return work.close(LoadCounts(0, sum(chunk.num_rows for chunk in chunks), 0))
    if pipeline.load.mode == "replace" and not delivery.again and _is_unchanged(connection, book, delivery):
        return work.close(LoadCounts(0, sum(chunk.num_rows for chunk in chunks), 0))
    if delivery.partitions > 1 and is_staged(pipeline):
        staged = work.stage(shadow, chunks)
        return work.close(LoadCounts(0, 0, 0, staged=staged, final=False))
    if pipeline.load.mode == "append":
        return work.close(LoadCounts(work.append(chunks), 0, 0))
    return work.close(work.merge(chunks))


def _is_unchanged(connection: sa.Connection, book: sa.Table, delivery: Delivery) -> bool:
    may = may_skip(delivery.pipeline, delivery.partition, delivery.partitions)
    return may and is_there(connection, book, delivery) is not None


def _answer(known: Entry) -> LoadCounts:
    staged = 0 if known.final else known.rows
    return LoadCounts(known.loaded, known.unchanged, known.superseded, known.rejected, staged, known.final)


def _take_back(connection: sa.Connection, book: sa.Table, shadow: Shadow, delivery: Delivery) -> None:
    """Remove what an earlier attempt staged for this partition, and claim it anew."""
    if shadow.exists():
        shadow.forget(delivery.partition.number)
    ledger.forget(connection, book, delivery.run, delivery.partition.number)
    ledger.claim(connection, book, delivery)


def _apply(
    connection: sa.Connection, book: sa.Table, shadow: Shadow, partitions: Sequence[Partition], done: dict[int, Entry]
) -> list[Duplicate]:
    staged = shadow.counts() if shadow.exists() else {}
    for number, entry in done.items():
        if not entry.final and entry.rows != staged.get(number, 0):
            raise ReceiptMismatch(
                f"partition {number} staged {entry.rows:,} rows, the target has {staged.get(number, 0):,} of them",
                "run the pipeline again: what was staged in the target was changed",
            )
    if not staged and not shadow.types:
        outcomes = {}
    else:
        counting = [partition for partition in partitions if partition.number in done]
        applied = [number for number, entry in done.items() if entry.final]
        outcomes = apply(shadow, counting, applied, staged=staged)
    for number, entry in done.items():
        outcome = outcomes.get(number)
        if outcome is None or (entry.final and not outcome.staged):
            if not entry.final:
                ledger.record(connection, book, shadow.run, number, final=True)
            continue
        ledger.record(
            connection, book, shadow.run, number, final=True, loaded=outcome.loaded, unchanged=outcome.unchanged,
            superseded=outcome.superseded, rejected=outcome.rejected,
        )  # fmt: skip
    return shadow.duplicates()


def _check_rejects(pipeline: Pipeline, rejected: int, read: int) -> None:
    limit = pipeline.reject_limit(read)
    if limit is not None and rejected > limit:
        raise TooManyRejects(
            f"{rejected:,} of {read:,} rows were rejected, max_rejects allows {limit:,}: nothing was loaded",
            "look at them (rq-etl rejects), mend the source, or allow more with --max-rejects",
        )
