"""Loading: one partition's rows go into the target in one transaction with the ledger row that says so."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import parse_url, resolve_url, url_of
from etl.errors import ReceiptMismatch
from etl.load import columns, earlier, expect, ledger, tables
from etl.load.apply import apply, lock
from etl.load.columns import change, names
from etl.load.cursors import Move, advance
from etl.load.deliver import LoadCounts, is_atomic, load
from etl.load.earlier import passed_over
from etl.load.history import Record, refuse_older, remember, write
from etl.load.ledger import Delivery, Entry
from etl.load.limits import limits
from etl.load.staged import PREFIXES, Duplicate, Shadow, names_of, of_run
from etl.load.targets import kind, kind_named
from etl.load.targets.connect import check_target, reading, transaction
from etl.partition import Partition

__all__ = [
    "Delivery",
    "Duplicate",
    "FinishCounts",
    "LoadCounts",
    "Move",
    "Record",
    "check_target",
    "column_types",
    "drop_leftovers",
    "drop_shadow",
    "finish",
    "keeps_digits",
    "limits",
    "load",
    "passed_over",
    "remember",
    "resolve_url",
]


@dataclass(frozen=True)
class FinishCounts:
    """What became of a run's rows.

    Args:
        rejected: Rows that the load has made rejects: `duplicates`, and what an earlier run rejected when it appended
            their file.
        duplicates: Rows that are rejects because another partition has the same value of a unique column.
        applied: Whether what was staged is in the table now; nothing is where an atomic run is not complete.
    """

    loaded: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0
    duplicates: tuple[Duplicate, ...] = ()
    applied: bool = True
    warnings: tuple[str, ...] = ()


def finish(
    pipeline: Pipeline,
    run: str,
    partitions: Sequence[Partition],
    *,
    done: Sequence[int],
    complete: bool,
    read: int,
    rejected: int,
    all_rejected: bool = False,
    url: str | None = None,
    delivered: expect.Delivered | None = None,
    record: Callable[[FinishCounts], Record] | None = None,
    move: Move | None = None,
    zones: Mapping[str, str] | None = None,
    locate: change.Locate | None = None,
) -> FinishCounts:
    """Apply what a run's partitions have staged, in one transaction; called again it answers the same.

    Args:
        partitions: All of the run's.
        done: Numbers of those that were loaded.
        complete: Whether that is all of them; if not, an atomic run applies nothing, and what is staged is kept.
        read, rejected: Rows of the whole run, for `max_rejects`.
        all_rejected: Whether rows were read and each of them was rejected.
        url: Of the target; by default the pipeline's.
        delivered: What expectations ask for.
        record: Says what the target is to remember of the run.
        move: Of the cursor; it stays where the run is not complete.
        zones: Time zones of clients that share the table.
        locate: Says where a value is that its column's type has to change for.

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
            expect.check(pipeline, partitions, read, delivered, url)
        expect.check_rejects(pipeline, rejected, read)
        if complete:
            expect.check_all_rejected(pipeline, all_rejected, read)

    def once(connection: sa.Connection, warnings: Sequence[str]) -> FinishCounts:
        book = ledger.table(connection, pipeline)
        if earlier.is_known_again(pipeline):
            earlier.lock_files(connection, pipeline, (each for each in partitions if each.number in done))
        # Two executions of one finish meet here; the second finds everything final.
        lock(connection, pipeline)
        stages = len(partitions) > 1 and not pipeline.load.function
        if stages:
            tables.hold(connection, pipeline.table, adds=False)
        spelling = names.spelling(connection, pipeline, to_make=stages)
        shadow = of_run(connection, pipeline, run)
        if stages and shadow.exists() and spelling.there is None:
            spelling = replace(spelling, there=tuple(shadow.types))
        shadow = replace(shadow, pipeline=spelling.spelled())
        entries = {entry.partition: entry for entry in ledger.entries(connection, book, run)}
        if lost := sorted(set(done) - set(entries)):
            raise ReceiptMismatch(
                f"partition {lost[0]} of run {run} was loaded, but target {pipeline.target.name} has no record of it",
                "run the pipeline again: the target was restored or changed, or what was staged there was dropped",
            )
        pending = {number for number in done if not entries[number].final}
        applied = not pending or complete or not is_atomic(pipeline)
        duplicates: list[Duplicate] = []
        said = [*warnings]
        if pending and applied:
            if record is not None:
                refuse_older(connection, pipeline, record(FinishCounts()))
            shadow.spell(spelling.of(shadow.types))
            waiting = {number: entries[number] for number in pending}
            if (taken := _take_out_loaded(connection, book, shadow, partitions, waiting)) is not None:
                said += taken
                entries = {entry.partition: entry for entry in ledger.entries(connection, book, run)}
            # What had no row to load stays open until the run is complete: a retry may find rows in it.
            ready = {number: entries[number] for number in done if complete or entries[number].rows}
            duplicates = _apply(connection, book, shadow, partitions, ready, zones or {})
            if duplicates:
                expect.check_rejects(pipeline, rejected + len(duplicates), read)
            if complete and not duplicates:
                shadow.drop()
            entries = {entry.partition: entry for entry in ledger.entries(connection, book, run)}
        elif len(partitions) > 1 and shadow.exists():
            duplicates = shadow.duplicates()
        final = [entries[number] for number in done if entries[number].final]
        counts = FinishCounts(
            loaded=sum(entry.loaded for entry in final),
            unchanged=sum(entry.unchanged for entry in final),
            superseded=sum(entry.superseded for entry in final),
            rejected=sum(entry.rejected for entry in final) + (0 if applied else len(duplicates)),
            duplicates=tuple(replace(each, column=spelling.back(each.column)) for each in duplicates),
            applied=applied,
            warnings=(
                *said,
                *earlier.doubled(connection, book, pipeline, run, [entry.partition for entry in final]),
                *expect.overtaken(pipeline, sum(entry.superseded for entry in final)),
            ),
        )
        if move is not None and complete and applied:
            advance(connection, pipeline, run, move)
        if record is not None:
            write(connection, pipeline, record(counts))
        return counts

    return change.changing(url or url_of(pipeline), pipeline, once, locate)


def drop_shadow(pipeline: Pipeline, run: str, url: str | None = None) -> None:
    """Remove what a run has staged in the target and not applied; the run can't be finished after that, only redone."""
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        shadow = of_run(connection, pipeline, run)
        ledger.forget(connection, ledger.table(connection, pipeline), run)
        shadow.drop()


def drop_leftovers(
    url: str, name: str, schemas: Iterable[str | None], *, spare: Collection[str], before: datetime
) -> list[str]:
    """Drop shadow tables whose last load was long ago, and forget what they held; returns the runs' ids.

    Args:
        url: Of the target, as `resolve_url` gives it.
        name: The target's, for errors.
        schemas: Where its ledgers are.
        spare: Runs that are active, or may be retried.
        before: A run that has loaded something since then may be of another project that has the same target.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked, or does not permit it.
    """
    found: dict[str | None, set[str]] = {}
    with reading(url, name) as connection:
        if connection is None:
            return []
        for each in schemas:
            schema = tables.schema_of(connection, each)
            names = sa.inspect(connection).get_table_names(schema=schema)
            found[schema] = {name.removeprefix(PREFIXES[0]) for name in names if name.startswith(PREFIXES[0])}
    old = [(schema, run) for schema, runs in found.items() for run in sorted(runs - set(spare))]
    if not old:
        return []
    dropped = []
    with transaction(url, name) as connection:
        for schema, run in old:
            book = ledger.named(schema)
            has_ledger = tables.there(connection, book)
            if has_ledger and ledger.last_load(connection, book, run) >= before:
                continue
            if has_ledger:
                ledger.forget(connection, book, run)
            for table in names_of(schema, run):
                tables.drop(connection, table)
            columns.forget(connection, names_of(schema, run)[0])
            dropped.append(run)
    return dropped


def column_types(pipeline: Pipeline, url: str | None = None) -> dict[str, str]:
    """Return the types of the columns that the pipeline's table has, in the pipeline's words; {} if there is none."""
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        there = ledger.columns_there(connection, pipeline) or {}
        fits = kind(connection).FITS
        ours = {theirs: ours for ours, theirs in names.spelling(connection, pipeline).names.items()}
        found = {name: each.word for name, each in there.items() if name not in tables.OWN and each.word in fits}
        return {ours.get(name, name): word for name, word in found.items()}


def keeps_digits(pipeline: Pipeline) -> bool:
    """Whether the pipeline's target keeps each digit of a decimal."""
    url = parse_url(url_of(pipeline), pipeline.target.name)
    return kind_named(url.get_backend_name()).FACTS.exact_decimals


def _take_out_loaded(
    connection: sa.Connection,
    book: sa.Table,
    shadow: Shadow,
    partitions: Sequence[Partition],
    waiting: Mapping[int, Entry],
) -> list[str] | None:
    """Leave out what another run has loaded, or loaded newer, since it was staged here; None where there is nothing.

    Whether it was there already was asked when it was staged, by a run that may have ended long ago.

    Returns:
        Warnings about rows that are good here and that the other run has rejected.

    Raises:
        ChangedFile: What the other run has appended is another version of the file.
    """
    deliveries = [
        Delivery(shadow.pipeline, shadow.run, each, waiting[each.number].content, len(partitions))
        for each in partitions
        if each.number in waiting
    ]
    there = earlier.loaded_before(connection, book, deliveries)
    older = earlier.outdated(connection, book, deliveries)
    if not (there or older):
        return None
    number, warnings = ledger.next_number(connection, book, shadow.pipeline), list[str]()
    for delivery in deliveries:
        each = delivery.partition.number
        rows = waiting[each].rows
        if each in older:
            counts = {"superseded": rows}
        elif each in there:
            missing = earlier.never_loaded(connection, book, shadow.pipeline, there[each], rows)
            counts = {"unchanged": rows - missing, "rejected": missing}
            if missing:
                warnings.append(earlier.rejected_then(delivery, there[each], missing))
        else:
            continue
        if rows:
            shadow.forget(each)
        ledger.record(connection, book, shadow.run, each, final=True, sequence=number, **counts)
    return warnings


def _apply(
    connection: sa.Connection,
    book: sa.Table,
    shadow: Shadow,
    partitions: Sequence[Partition],
    done: dict[int, Entry],
    zones: Mapping[str, str],
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
        change.align(shadow, ledger.columns_there(connection, shadow.pipeline), zones)
        named = {number: {name.casefold() for name in json.loads(entry.types)} for number, entry in done.items()}
        outcomes = apply(shadow, counting, applied, staged=staged, columns=named)
    sequence = ledger.next_number(connection, book, shadow.pipeline)
    for number, entry in done.items():
        outcome = outcomes.get(number)
        if outcome is None or (entry.final and not outcome.staged):
            if not entry.final:
                ledger.record(connection, book, shadow.run, number, final=True, sequence=sequence)
            continue
        if not entry.final:
            ledger.record(connection, book, shadow.run, number, sequence=sequence)
        ledger.record(
            connection, book, shadow.run, number, final=True, loaded=outcome.loaded, unchanged=outcome.unchanged,
            superseded=outcome.superseded, rejected=outcome.rejected,
        )  # fmt: skip
    return shadow.duplicates()
