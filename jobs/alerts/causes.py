"""All that is wrong now; here deliveries, runs to which nothing happens, no worker, no scheduler."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from redis import Redis
from rq.suspension import WORKERS_SUSPENDED

from etl.config.pipeline import Config, definition_of
from etl.errors import EtlError
from jobs.alerts import ended
from jobs.alerts.cause import AT_ONCE, Cause, Conditions, one_line
from jobs.alerts.memory import Memory, recalled
from jobs.deliveries.claims import looked
from jobs.deliveries.listing import listing
from jobs.store import forms, keys, malformed, runs
from jobs.store.keys import PREFIX

STUCK = 900.0  # seconds without any movement after which a run may be stuck, at the least
QUEUED = 6 * 3600.0  # after which a run that waits for a worker is stuck, although others move
ALONE = 60.0  # seconds without a worker, while runs wait
SLEPT = 120.0  # seconds without a scheduler


def current(config: Config, connection: Redis, now: datetime) -> Conditions:
    """Return all that is wrong now, and what is known to be right.

    Args:
        now: In UTC.
    """
    found = Conditions()
    days = _deliveries(config, connection, now, found)
    ended.judge(config, connection, now, days, found)
    _judge(config, connection, now, found)
    return found


def _judge(config: Config, connection: Redis, now: datetime, found: Conditions) -> None:
    """Add the causes among active runs, workers and the scheduler."""
    memory = recalled(connection)
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


def _scheduler(config: Config, memory: Memory, at: float, found: Conditions) -> None:
    for name, since in (("alive", memory.scheduler), ("synced", memory.synced)):
        if at - since > SLEPT and any(client.schedule for client in config.clients.values()):
            found.add(Cause("no scheduler", of=name, since=since))
        else:
            found.fine.add(("no scheduler", "", "", name))


def _stuck(
    config: Config,
    connection: Redis,
    memory: Memory,
    active: Mapping[str, Mapping[str, str]],
    at: float,
    found: Conditions,
) -> None:
    oldest: dict[tuple[str, str], tuple[float, str, float]] = {}
    for run, record in active.items():
        pair = record["client"], record["pipeline"]
        if pair[0] not in config.clients or pair[1] not in config.pipelines:
            continue
        definition = definition_of(config, *pair)
        since, patience = memory.runs.get(run, at), max(STUCK, definition.timeout + max(definition.retry_delays))
        if at - since > patience:
            oldest[pair] = min(oldest.get(pair, (since, run, patience)), (since, run, patience))
    kept = _excused(connection, {run: active[run] for _, run, _ in oldest.values()}, at)
    for pair, (since, run, patience) in oldest.items():
        works = kept[run]
        # One that only waits for a worker is not stuck while others move, unless that lasts for hours.
        still = since if works or at - since > QUEUED else max(since, memory.moved)
        if works is not None and at - still > patience:
            found.add(Cause("stuck", *pair, since=since, run=run))
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


def _deliveries(config: Config, connection: Redis, now: datetime, found: Conditions) -> dict[str, str]:
    """Add deliveries that are missing or odd; returns the days of all by the run that loaded them."""
    days: dict[str, str] = {}
    try:
        lines = listing(config, connection, now=now)
    except EtlError:  # staging can't be read
        found.doubt(AT_ONCE)
        return days
    troubles = {pair: each.error for pair, each in looked(connection).items() if each.error} if lines else {}
    for line in lines:
        pair = line["client"], line["pipeline"]
        since = datetime.fromisoformat(line["due"]).timestamp()
        about: dict[str, Any] = {"of": line["day"], "since": since, "run": line["run"] or ""}
        if line["run"]:
            days[line["run"]] = line["day"]
        if line["missing"] and line["watched"]:
            found.add(Cause("missing", *pair, **about, detail=_came(line, troubles.get(pair) or "")))
        elif line["odd"]:
            found.add(Cause("odd", *pair, **about, count=len(line["odd"]), detail=one_line("; ".join(line["odd"]))))
        found.fine |= {(kind, *pair, line["day"]) for kind in AT_ONCE}
    return days


def _came(line: Mapping[str, Any], trouble: str) -> str:
    due, until = (datetime.fromisoformat(line[name]) for name in ("due", "until"))
    came = f"{len(line['files'])} of {line['expected']} files came" if line["expected"] else "it has not come"
    return f"due {due:%H:%M}, with its grace {until:%H:%M}; {one_line(trouble) or came}"
