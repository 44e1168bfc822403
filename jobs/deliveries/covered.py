"""Which runs have read what has come: those that were started for it, and any other of the pipeline."""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from redis import Redis

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.errors import EtlError
from etl.staging import Staging
from jobs.deliveries.record import Delivery, Record
from jobs.deliveries.sorting import Rule
from jobs.store import over, runs
from jobs.store.run_json import seconds_of

DAY = 86400.0
FEW = 20  # runs of a pipeline that are looked at when another has ended


def follow(connection: Redis, pipeline: Pipeline, record: Record, rule: Rule, now: float) -> None:
    """Bring a record up to date with the pipeline's runs."""
    client, name = pipeline.client, pipeline.name
    ended, active = runs.last(connection, client, name), runs.holder(connection, client, name)
    last = " ".join(ended) if ended else None
    has_ended = last is not None and last != record.last
    if rule.has_files:
        started = {run for each in record.deliveries.values() for run in each.runs}
        fresh = {ended[0]} if ended and has_ended else set()
        fresh |= {active} - started if active else set()
        for run in sorted(fresh):
            _cover(record, run, set().union(*_read_by(pipeline, run).values()))
    elif has_ended:
        found = runs.search(connection, client=client, pipeline=name, since=record.looked - 2 * DAY)
        _credit(record, rule, islice(found, FEW))
    if not rule.has_files and _is_about_to_be_missing(record, now):
        lately = record.looked - 2 * DAY
        if not runs.knows_all(connection, lately):
            _credit(record, rule, _remembered(pipeline, since=datetime.fromtimestamp(lately, UTC)) or ())
    record.last = last or record.last
    _bring_up_to_date(connection, pipeline, record)


def _is_about_to_be_missing(record: Record, now: float) -> bool:
    return any(each.came is None and each.missing is None and each.until < now for each in record.deliveries.values())


def _read_by(pipeline: Pipeline, run: str) -> dict[int, set[tuple[str, float | None]]]:
    """Return which files a run reads, and their times, by partition, as its staging knows."""
    spec = Staging(pipeline.staging, pipeline.client, run).read_json("run.json") or {"plan": {"partitions": []}}
    return {
        partition["number"]: {(piece["file"], piece["modified"]) for piece in partition["pieces"]}
        for partition in spec["plan"]["partitions"]
    }


def _cover(record: Record, run: str, files: Collection[tuple[str, float | None]]) -> None:
    """Have a run be that of the files it reads and no other has read, or has failed to."""
    for item in record.items:
        delivery = record.deliveries.get(item.day or "")
        if delivery is None or item.is_known or item.is_marker or (item.name, item.modified) not in files:
            continue
        if item.run in (None, run) or delivery.state in ("failed", "canceled"):
            item.run = run
            note(delivery, run)


def note(delivery: Delivery | None, run: str) -> None:
    """Have a run in a delivery as its latest, whose state is not known yet."""
    if delivery is not None:
        delivery.runs = [*(each for each in delivery.runs if each != run), run]
        delivery.state = delivery.rows = None
        delivery.odd = []


def _credit(record: Record, rule: Rule, found: Iterable[Mapping[str, Any]]) -> None:
    """Have runs with rows be the deliveries in whose spans they began, or those that they were started for."""
    for run in sorted(found, key=lambda run: seconds_of(run["started"])):
        started = seconds_of(run["started"])
        if run["start"] or not started or run["state"] not in runs.ENDED:  # of a window, never begun, not over
            continue
        delivery = next((each for each in record.deliveries.values() if run["run"] in each.runs), None)
        if delivery is None:
            due = rule.timetable.at(datetime.fromtimestamp(started, UTC))
            delivery = record.deliveries.get(due.day.isoformat()) if due else None
        if delivery is None:
            continue
        is_it = run["state"] == "succeeded" and run["rows"]["read"] > run["rows"]["unchanged"]
        if is_it or delivery.came is None:
            note(delivery, run["run"])
        if is_it and delivery.came is None:
            delivery.came = seconds_of(run["finished"])


def _remembered(pipeline: Pipeline, **wanted: Any) -> list[dict[str, Any]] | None:
    """Return runs of a pipeline as its target remembers them; None where it can't be asked."""
    from etl.load import history

    schema = pipeline.table.partition(".")[0] if "." in pipeline.table else None
    wanted |= {"client": pipeline.client, "pipeline": pipeline.name, "limit": FEW}
    try:
        found = history.read(url_of(pipeline), pipeline.target.name, [schema], **wanted)
    except EtlError:
        return None
    return [
        {
            "run": each.run,
            "state": each.state,
            "start": each.window_start,
            "rows": each.rows,
            "started": each.started.isoformat() if each.started else None,
            "finished": each.finished.isoformat(),
        }
        for each in found
    ]


def _bring_up_to_date(connection: Redis, pipeline: Pipeline, record: Record) -> None:
    """Keep how the latest run of each delivery is; one that Redis has lost before its end is as if never started."""
    open_ = {each.runs[-1]: each for each in record.deliveries.values() if each.runs and each.state not in runs.ENDED}
    found = {run["run"]: run for run in runs.snapshot(connection, list(open_))}
    for run, delivery in open_.items():
        known = found.get(run)
        if known is None:
            remembered = _remembered(pipeline, runs=[run])
            if remembered is None:
                continue  # the next look may know
            known = next(iter(remembered), None)
        if known is not None:
            delivery.state, delivery.odd = known["state"], list(known.get("odd") or [])
            delivery.rows = _rows(connection, pipeline, record, delivery, known)
        elif over.is_over(Staging(pipeline.staging, pipeline.client, run)):
            delivery.state = "failed"
        else:
            _lose(record, delivery, run)


def _rows(
    connection: Redis, pipeline: Pipeline, record: Record, delivery: Delivery, run: Mapping[str, Any]
) -> int | None:
    """Return how many rows a run has read of a delivery's files: it may have read those of others, too."""
    names = {item.name for item in record.of(delivery.day)}
    read = _read_by(pipeline, run["run"]) if names and run["state"] in runs.ENDED else {}
    mine = {number for number, files in read.items() if any(name in names for name, _ in files)}
    if len(mine) == len(read):
        return int(run["rows"]["read"])
    stages = runs.stage_records(connection, run["run"])
    counted = [
        record.counts.get("read", 0)
        for (number, stage), record in stages.items()
        if number in mine and stage == "extract"
    ]
    return sum(counted) if counted else None


def _lose(record: Record, delivery: Delivery, run: str) -> None:
    """Have what a run reads be as if it had never started."""
    for item in record.items:
        item.run = None if item.run == run else item.run
    delivery.runs.remove(run)
    delivery.state = delivery.rows = None
