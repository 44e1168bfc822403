"""Looking at the deliveries of clients' pipelines, each as often as its `poll` says; the cron process does it."""

import logging
from collections.abc import Callable
from datetime import datetime

from redis import Redis
from redis.exceptions import RedisError

from etl.calendar import cron
from etl.config.delivery import Delivery
from etl.config.pipeline import Config, Pair, Pipeline, resolve
from etl.errors import AlreadyRunning
from etl.safe_message import safe_message
from etl.sources.arrivals import Arrival, FolderAway, present
from jobs.deliveries import claims, record, sorting
from jobs.deliveries.claims import Looked
from jobs.deliveries.covered import follow, note
from jobs.deliveries.expected import delivering
from jobs.deliveries.record import Record
from jobs.deliveries.sorting import Loaded, Rule, current
from jobs.deliveries.start import run_id, wanted
from jobs.run.submit import submit_run
from jobs.store import runs

LOG = logging.getLogger("rq-etl.cron")
REWRITE = 900.0  # seconds after which the moment of the last look is written, for when Redis has lost it
PART = ("append", "merge")  # modes of loading that a part of a delivery harms in nothing


def due(config: Config, connection: Redis, now: datetime) -> list[Pair]:
    """Return the pipelines to be looked at now, those that have waited longest first.

    That is every `poll`, and when a delivery is due or its grace ends.
    """
    wanted, known = delivering(config), claims.looked(connection)
    claims.forget(connection, [pair for pair in known if pair not in wanted and pair[0] not in config.broken])
    moment = now.timestamp()
    ready = [pair for pair in wanted if _is_time(config, pair, wanted[pair], known.get(pair), moment)]
    return sorted(ready, key=lambda pair: known.get(pair, Looked(0.0)).at)


def look_at_all(config: Config, connection: Redis, now: datetime) -> None:
    """Look at all pipelines that it is time for, one after another."""
    for pair in due(config, connection, now):
        look_at(config, connection, pair, now)


def look_at(config: Config, connection: Redis, pair: Pair, now: datetime) -> None:
    """Look at one pipeline's deliveries; what prevents it is kept for who asks, and stops no other.

    Raises:
        RedisError: Redis is away.
    """
    client, pipeline = pair
    moment = now.timestamp()
    with claims.claimed(connection, pair) as is_ours:
        expected = delivering(config, client).get(pair) if client in config.clients else None
        known = claims.last_look(connection, pair)
        if is_ours is None or expected is None or not _is_time(config, pair, expected, known, moment):
            return  # another has just done it
        try:
            look = _look(config, connection, resolve(config, pipeline, client), expected, moment, known, is_ours)
        except RedisError:
            raise
        except Exception as exc:  # whatever is wrong with this one, others are looked at
            look = Looked(moment, safe_message(exc))
        if look is None:
            return
        if look.error and (known is None or known.error != look.error):
            LOG.warning("%s/%s: %s", client, pipeline, one_line(look.error))
        claims.note(connection, pair, look)


def one_line(text: str) -> str:
    """Return an error as one line of a log."""
    return "; ".join(filter(None, map(str.strip, text.splitlines())))


def rule_of(pipeline: Pipeline, expected: Delivery) -> Rule:
    """Return what a client's pipeline's files are sorted by."""
    has_files = pipeline.extract.FACTS.files
    return Rule(
        timetable=expected.timetable(pipeline.timezone),
        settle=getattr(pipeline.extract, "settle", 0.0),
        poll=expected.poll,
        is_whole=pipeline.load.mode not in PART,
        files=expected.files,
        complete=expected.complete,
        has_files=has_files,
    )


def _is_time(config: Config, pair: Pair, expected: Delivery, known: Looked | None, now: float) -> bool:
    if known is None or abs(now - known.at) >= expected.poll:
        return True
    due = current(expected.timetable(config.clients[pair[0]].timezone), now)
    return due is not None and (known.at <= due.since.timestamp() or known.at < due.at.timestamp() <= now)


def _look(
    config: Config,
    connection: Redis,
    pipeline: Pipeline,
    expected: Delivery,
    now: float,
    known: Looked | None,
    is_ours: Callable[[], bool],
) -> Looked | None:
    """Look at one pipeline's deliveries; None where somebody else does by now.

    Args:
        known: The last look.
        is_ours: Whether nobody else looks at them meanwhile.
    """
    rule, whose = rule_of(pipeline, expected), (config.staging, pipeline.client, pipeline.name)
    ours = record.read(*whose)
    found, problem = _present(pipeline, rule, now)
    is_first, before = ours is None, ours.looked if ours else 0.0
    if ours is None:
        if problem is not None and problem.is_there:
            return Looked(now, str(problem))
        ours = sorting.begin(rule, now, found or [], _loaded(pipeline))
    if known is not None and known.error is None and before < known.at <= now:
        ours.looked = known.at
    sorting.expect(ours, rule, now)
    if found is not None or not ours.items:  # a folder that has never been there has never been away
        sorting.see(ours, rule, now, found or [])
    follow(connection, pipeline, ours, rule, now)
    sorting.judge(ours, rule, now)
    record.trim(ours, now - config.settings.history)
    if found is not None or not ours.items:
        ours.looked = now
    version = record.version(ours)
    if is_first or known is None or known.version != version or ours.looked - before > REWRITE:
        if not is_ours():
            return None
        record.write(*whose, ours)
    if _start(connection, pipeline, ours, rule, now, is_ours):
        record.write(*whose, ours)
        version = record.version(ours)
    return Looked(now, str(problem) if problem else None, version)


def _start(
    connection: Redis, pipeline: Pipeline, record: Record, rule: Rule, now: float, is_ours: Callable[[], bool]
) -> bool:
    """Start the next run that deliveries ask for, unless one is active; returns whether it has."""
    found = next(wanted(pipeline, record, rule, now), None)
    if found is None or runs.pending(connection, pipeline.client, pipeline.name) or not is_ours():
        return False
    delivery, due, items = found
    run = run_id(pipeline.client, pipeline.name, due, items)
    try:
        submit_run(connection, pipeline, run=run, due=cron.local(due, pipeline.timezone))
    except AlreadyRunning:
        return False
    for item in items:
        item.run = run
    note(delivery, run)
    LOG.info("%s/%s: run %s of the delivery of %s", pipeline.client, pipeline.name, run, delivery.day)
    return True


def _present(pipeline: Pipeline, rule: Rule, now: float) -> tuple[list[Arrival] | None, FolderAway | None]:
    """Return the files that are there, or None and why they can't be looked at."""
    if not rule.has_files:
        return [], None
    try:
        return present(pipeline, now, rule.complete), None
    except FolderAway as exc:
        return None, exc


def _loaded(pipeline: Pipeline) -> Loaded:
    """Return which files have been loaded before, as the target knows."""
    from etl.load.known import files_loaded

    return files_loaded(pipeline) if pipeline.extract.FACTS.files else {}
