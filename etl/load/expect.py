"""Guards: whether a delivery is as the pipeline expects, and has as few rejects as it allows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from etl.calendar.days import Days
from etl.calendar.dues import Due
from etl.calendar.usual import unusual
from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.errors import AllRejected, TooManyRejects, UnexpectedDelivery
from etl.load import ledger
from etl.load.targets.connect import reading
from etl.partition import Partition


@dataclass(frozen=True)
class Part:
    """What was read of a file, or of one of its parts.

    Args:
        modified: When the file was modified, in seconds since the epoch; None where there are several, or none.
        read, newly: Rows; see `etl.load.ledger.Delivery`.
    """

    file: str
    first_byte: int
    content: str
    modified: float | None
    read: int
    newly: int


@dataclass(frozen=True)
class Delivered:
    """What a run has read of a client's delivery, as far as expectations ask for it.

    Args:
        day, due: The day that it is for, and the delivery, where deliveries are expected.
        parts: All that was read; None where that is not all of the delivery.
        dated, outside: How many values of `expect.period` there are, and how many are outside of its span.
        same: Sentences about files that have come before.
        is_past: Whether the run is for a window of the past.
    """

    run: str
    day: date
    due: Due | None = None
    parts: tuple[Part, ...] | None = None
    dated: int = 0
    outside: int = 0
    same: tuple[str, ...] = ()
    is_past: bool = False


def is_fatal(pipeline: Pipeline) -> bool:
    """Whether a delivery that isn't as expected is not loaded."""
    return pipeline.expect is not None and pipeline.expect.otherwise == "fail"


def unmet(
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    read: int,
    delivered: Delivered | None = None,
    *,
    now: float | None = None,
    url: str | None = None,
) -> list[str]:
    """Return a sentence for each expectation that a run's delivery doesn't meet.

    Args:
        partitions: All of the run's.
        read: Rows read.
        delivered: What more is known; None for nothing.
        now: Seconds since the epoch; None means now.
        url: Of the target; by default the pipeline's.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target, which knows what is usual, can't be asked.
    """
    found = list(_of_run(pipeline, partitions, read, time.time() if now is None else now))
    if delivered is not None:
        found += [*delivered.same, *_outside(pipeline, delivered)]
        if pipeline.expect is not None and pipeline.expect.change is not None:
            found += _changed(pipeline, delivered, float(pipeline.expect.change.rstrip("% ")) / 100, url)
    return found


def _of_run(pipeline: Pipeline, partitions: Sequence[Partition], read: int, now: float) -> Sequence[str]:
    expect, found = pipeline.expect, list[str]()
    if expect is not None and expect.rows is not None and not expect.rows[0] <= read <= expect.rows[1]:
        delivered = "1 row was" if read == 1 else f"{read:,} rows were"
        found.append(f"{delivered} delivered, {expect.rows[0]:,} to {expect.rows[1]:,} were expected")
    modified = [piece.modified for partition in partitions for piece in partition.pieces if piece.modified]
    if expect is not None and expect.fresh is not None:
        age = now - max(modified, default=0.0)
        if not partitions:
            found.append(f"nothing was delivered, something not older than {_span(expect.fresh)} was expected")
        elif modified and age > expect.fresh:
            found.append(f"the newest file is {_span(age)} old, at most {_span(expect.fresh)} was expected")
    return found


def _outside(pipeline: Pipeline, delivered: Delivered) -> Sequence[str]:
    if not delivered.outside or delivered.due is None or pipeline.expect is None:
        return ()
    values = f"{delivered.outside:,} of {delivered.dated:,} values" if delivered.dated > 1 else "the only value"
    are = "are" if delivered.dated > 1 else "is"
    span = f"{delivered.due.before} to {delivered.due.day}"
    return [f"{values} of {pipeline.expect.period} {are} outside of {span}"]


def _changed(pipeline: Pipeline, delivered: Delivered, change: float, url: str | None) -> Sequence[str]:
    """Say whether a delivery has as many rows as is usual for its day."""
    if delivered.is_past or not delivered.parts:
        return ()

    def day_of(moment: datetime) -> date:
        if table is None or (due := table.at(moment)) is None:
            return moment.astimezone(ZoneInfo(pipeline.timezone)).date()
        return due.day

    table = pipeline.delivery.timetable(pipeline.timezone) if pipeline.delivery else None
    with reading(url or url_of(pipeline), pipeline.target.name) as connection:
        earlier, seen = ledger.by_day(connection, pipeline, delivered.run, day_of) if connection else ({}, set())
    new = []
    for each in delivered.parts:
        key = ledger.part(pipeline, each.content, each.first_byte, each.file, each.modified, each.read)
        if (key is None or key not in seen) and (each.newly or not each.read):
            new.append(each.newly)
    if not new:
        return ()  # nothing has been delivered
    rows = sum(new) + earlier.pop(delivered.day, 0)
    said = unusual(delivered.day, rows, earlier, change, table.days if table else Days())
    return [said] if said else ()


def check(
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    read: int,
    delivered: Delivered | None = None,
    url: str | None = None,
) -> None:
    """Refuse a delivery that isn't as expected, where the pipeline says `otherwise = "fail"`.

    Raises:
        UnexpectedDelivery: With what was expected.
        TargetUnreachable, TargetBusy, TargetRefused: See `unmet`.
    """
    wrong = unmet(pipeline, partitions, read, delivered, url=url) if is_fatal(pipeline) else []
    if wrong:
        raise UnexpectedDelivery("; ".join(wrong), "nothing was loaded; if it is right, change `expect` and retry")


def check_rejects(pipeline: Pipeline, rejected: int, read: int) -> None:
    """Refuse a delivery of which more rows were rejected than `max_rejects` allows.

    Raises:
        TooManyRejects: There are.
    """
    limit = pipeline.reject_limit(read)
    if limit is not None and rejected > limit:
        raise TooManyRejects(
            f"{rejected:,} of {read:,} rows were rejected, max_rejects allows {limit:,}: nothing was loaded",
            "look at them (rq-etl rejects), fix the source, or allow more with --max-rejects",
        )


def check_all_rejected(pipeline: Pipeline, all_rejected: bool, read: int) -> None:
    """Refuse a delivery of which every row was rejected, unless the pipeline says `all_rejected = "warn"`.

    Raises:
        AllRejected: It is one.
    """
    if all_rejected and pipeline.all_rejected == "fail":
        what = "the only row was rejected" if read == 1 else f"all {read:,} rows were rejected"
        cure = 'look at them (rq-etl rejects) and fix the source or the pipeline; all_rejected = "warn" lets it pass'
        raise AllRejected(f"{what}: nothing was loaded", cure)


def _span(seconds: float) -> str:
    hours = seconds / 3600
    return (
        f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{seconds / 60:.0f} min"
    )


def overtaken(pipeline: Pipeline, rows: int) -> list[str]:
    """Return a warning where a replace left out rows, as a later run had replaced the same meanwhile."""
    if pipeline.load.mode != "replace" or not rows:
        return []
    what = f"{rows:,} rows are" if rows > 1 else "1 row is"
    return [f"{what} not loaded: a later run has replaced the same in {pipeline.table} since this run read its source"]
