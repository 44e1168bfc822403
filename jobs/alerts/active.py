"""Causes among what goes on: runs to which nothing happens, no worker, no scheduler. See `jobs.alerts.seen`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from redis import Redis
from rq.suspension import WORKERS_SUSPENDED

from etl.config.pipeline import Config
from jobs.alerts import seen
from jobs.alerts.cause import Cause, Conditions
from jobs.store import forms, keys, malformed, runs
from jobs.store.keys import PREFIX

STUCK = 900.0  # seconds without any movement after which a run may be stuck, at the least
QUEUED = 6 * 3600.0  # after which a run that waits for a worker is stuck, although others move
ALONE = 60.0  # seconds without a worker, while runs wait
SLEPT = 120.0  # seconds without a scheduler


def judge(config: Config, connection: Redis, now: datetime, found: Conditions) -> None:
    """Add the causes among active runs, workers and the scheduler."""
    memory = seen.read(connection)
    at = now.timestamp()
    if not memory.noted:  # nobody has looked yet
        return found.doubt(("stuck", "no worker", "no scheduler"))
    _scheduler(config, memory, at, found)
    active = runs.read_many(connection, runs.active(connection))
    waiting = [record for record in active.values() if at - float(record.get("created") or at) > ALONE]
    if waiting and at - memory.worker > ALONE and not connection.exists(WORKERS_SUSPENDED):
        found.add(Cause("no worker", since=memory.worker, count=len(active)))
        return found.doubt(("stuck",))
    found.fine.add(("no worker", "", "", ""))
    _stuck(config, connection, memory, active, at, found)
    return None


def _scheduler(config: Config, memory: seen.Memory, at: float, found: Conditions) -> None:
    for name, since in (("alive", memory.scheduler), ("synced", memory.synced)):
        if at - since > SLEPT and any(client.schedule for client in config.clients.values()):
            found.add(Cause("no scheduler", of=name, since=since))
        else:
            found.fine.add(("no scheduler", "", "", name))


def _stuck(
    config: Config,
    connection: Redis,
    memory: seen.Memory,
    active: Mapping[str, Mapping[str, str]],
    at: float,
    found: Conditions,
) -> None:
    oldest: dict[tuple[str, str], tuple[float, str]] = {}
    for run, record in active.items():
        pair = record["client"], record["pipeline"]
        if pair[0] not in config.clients or pair[1] not in config.pipelines:
            continue
        definition = config.variants.get(pair, config.pipelines[pair[1]])
        since = memory.runs.get(run, at)
        if at - since > max(STUCK, definition.timeout + max(definition.retry_delays)):
            oldest[pair] = min(oldest.get(pair, (since, run)), (since, run))
    kept = _excused(connection, {run: active[run] for _, run in oldest.values()}, at)
    for pair, (since, run) in oldest.items():
        works = kept[run]
        # One that only waits for a worker is not stuck while others move, unless that lasts for hours.
        still = since if works or at - since > QUEUED else max(since, memory.moved)
        if works is not None and at - still > STUCK:
            found.add(Cause("stuck", *pair, since=since, run=run, detail=_why(connection, run)))
    found.fine |= {("stuck", *pair, "") for pair in _pairs(config)}


def _pairs(config: Config) -> list[tuple[str, str]]:
    return [(client.name, pipeline) for client in config.clients.values() for pipeline in client.pipelines]


def _excused(connection: Redis, active: Mapping[str, Mapping[str, str]], at: float) -> dict[str, bool | None]:
    """Return for each run whether one of its jobs is in progress; None where it waits for a moment or an operator."""
    pipe = connection.pipeline(transaction=False)
    for record in active.values():
        client, queue = record["client"], PREFIX + record["client"]
        pipe.hget(keys.client_key(client), "paused")
        pipe.get(keys.rate_key(client, record["pipeline"]))
        pipe.zrange(f"rq:wip:{queue}", 0, -1)
        pipe.zrangebyscore(f"rq:scheduled:{queue}", at, "+inf")
    answers = malformed.answers(pipe)
    found: dict[str, bool | None] = {}
    for number, run in enumerate(active):
        paused, rate, wip, scheduled = answers[4 * number : 4 * number + 4]
        works = any(job.startswith(f"{run}-") for job in malformed.ids(wip or ()))
        limited = bool(rate) and forms.is_number(rate) and float(rate) > at
        waits = any(job.startswith(f"{run}-") for job in malformed.ids(scheduled or ()))
        found[run] = None if not works and (paused == b"1" or limited or waits) else works
    return found


def _why(connection: Redis, run: str) -> str:
    """Return why a run waits, as a run's JSON says it, or nothing."""
    said: Any = next(iter(runs.snapshot(connection, [run])), {}).get("waiting")
    return cast(str, said or "")
