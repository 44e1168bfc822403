"""Which runs deliveries ask for: when they are complete, or when they are due; each once, whoever looks."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from hashlib import sha256
from zoneinfo import ZoneInfo

from etl.config.pipeline import Pipeline
from jobs.deliveries.record import Delivery, Item, Record
from jobs.deliveries.sorting import Rule, is_complete
from jobs.store import runs

Wanted = tuple[Delivery, datetime, list[Item]]  # a delivery, the moment that {date} means, and what the run is for


def wanted(pipeline: Pipeline, record: Record, rule: Rule, now: float) -> Iterator[Wanted]:
    """Yield the runs that a pipeline's deliveries ask for, the earliest delivery's first."""
    yield from _of_files(record, rule, pipeline, now) if rule.has_files else _when_due(record, pipeline, now)


def run_id(client: str, pipeline: str, due: datetime, items: Sequence[Item]) -> str:
    """Return the id of the run that is started for a moment and the files that have come."""
    versions = sorted(f"{item.name}\n{item.size}\n{item.modified!r}" for item in items)
    text = "\n".join([f"{client}/{pipeline}@{due.timestamp():.0f}", "delivery", *versions])
    return runs.id_of(sha256(text.encode()).digest())


def _of_files(record: Record, rule: Rule, pipeline: Pipeline, now: float) -> Iterator[Wanted]:
    """Yield the deliveries that have files which no run has read, once for each date in the names of their files."""
    asked = _asked(pipeline)
    for delivery in record.in_order() if asked != "no" else ():
        if asked == "when due" and now < delivery.due:
            continue
        if not is_complete(record, rule, delivery.day, here=rule.is_whole):
            continue
        there = [item for item in record.latest().values() if item.day == delivery.day and item.is_here]
        files = [item for item in there if not item.is_marker]
        for named in sorted({item.named or "" for item in files if not item.is_covered}):
            items = [item for item in files if (item.named or "") == named]
            yield delivery, _moment(pipeline, delivery, named), items


def _when_due(record: Record, pipeline: Pipeline, now: float) -> Iterator[Wanted]:
    """Yield the delivery that was due last, where no run has been started for it: its source has no files."""
    past = [each for each in record.in_order() if each.watched and each.due <= now]
    for delivery in past[-1:] if _asked(pipeline) == "when due" else ():
        due = _moment(pipeline, delivery, "")
        if run_id(pipeline.client, pipeline.name, due, []) not in delivery.runs:
            yield delivery, due, []


def _asked(pipeline: Pipeline) -> str:
    return pipeline.delivery.run if pipeline.delivery else "no"


def _moment(pipeline: Pipeline, delivery: Delivery, named: str) -> datetime:
    """Return what `{date}` means for a run: the delivery's due, or on another day that a file's name says, its time."""
    if not named or named == delivery.day or pipeline.delivery is None:
        return datetime.fromtimestamp(delivery.due, UTC)
    clock = time.fromisoformat(pipeline.delivery.due.zfill(5))
    return datetime.combine(date.fromisoformat(named), clock, ZoneInfo(pipeline.timezone)).astimezone(UTC)
