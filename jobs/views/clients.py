"""Clients and workers as an operator sees them: who waits, who works, and how fairly."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from redis import Redis

from jobs.store import forms, keys, malformed, runs
from jobs.store.keys import PREFIX, SPAN, use_key

if TYPE_CHECKING:
    from jobs.session import Session

HOUR = 3600


def overview(connection: Redis, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return, for each client, what waits and runs, its limits, its last run, and its last hour."""
    pipe = connection.pipeline(transaction=False)
    for name in names:
        pipe.llen(f"rq:queue:{PREFIX}{name}")
        pipe.zcard(f"rq:wip:{PREFIX}{name}")
        pipe.hgetall(keys.client_key(name))
    answers = malformed.answers(pipe)
    held = [run["client"] for run in runs.snapshot(connection, runs.held(connection))]
    used = _last_hour(connection)
    last = _last_runs(connection)
    total = sum(use.get("worked", 0.0) for use in used.values())
    lines = []
    for index, name in enumerate(names):
        waiting, running, raw = answers[3 * index : 3 * index + 3]
        limits = forms.fit("limits", raw or {})
        use = used.get(f"{PREFIX}{name}", {})
        jobs, worked = use.get("jobs", 0.0), use.get("worked", 0.0)
        paused = limits.get("paused") == "1"
        lines.append(
            {
                "client": name,
                "state": "paused" if paused else "running" if running else "waiting" if waiting else "idle",
                "limit": int(limits.get("limit") or limits.get("max_active") or 0) or None,
                "weight": int(limits.get("weight") or 1),
                "waiting": 0 if paused else waiting or 0,
                "running": running or 0,
                "held": (waiting or 0 if paused else 0) + held.count(name),
                "last_run": last.get(name, (None, None))[0],
                "last_state": last.get(name, (None, None))[1],
                "jobs": int(jobs),
                "wait_seconds": round(use.get("waited", 0.0) / jobs, 3) if jobs else None,
                "service_seconds": round(worked / jobs, 3) if jobs else None,
                "share": round(worked / total, 4) if total else None,
            }
        )
    return lines


def _last_hour(connection: Redis) -> dict[str, dict[str, float]]:
    """Return what each queue has had: jobs, seconds waited and seconds worked."""
    now = time.time()
    pipe = connection.pipeline(transaction=False)
    for back in range(0, HOUR + 1, SPAN):
        pipe.hgetall(use_key(now - back))
    found: dict[str, dict[str, float]] = {}
    for record in malformed.answers(pipe):
        for field, value in forms.fit("use", record or {}).items():
            queue, _, kind = field.partition(" ")
            use = found.setdefault(queue, {})
            use[kind] = use.get(kind, 0.0) + float(value)
    return found


def _last_runs(connection: Redis) -> dict[str, tuple[str, str]]:
    """Return the id and the state of a run of each client, of those that ended last of their pipelines."""
    found: dict[str, tuple[str, str]] = {}
    for field, value in forms.fit("last", cast(dict[Any, Any], connection.hgetall(keys.LAST))).items():
        client, (run, _, state) = field.split("/")[0], value.partition(" ")
        if client not in found or state != "succeeded":
            found[client] = run, state
    return found


def fairness(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Return Jain's index over the clients that were busy: 1 where all had the same share of worker time for their
    weight, 1/n where one had all; None where none was busy.

    Source: Jain, Chiu, Hawe: A Quantitative Measure of Fairness (1984).
    """
    shares: list[float] = [line["share"] / line["weight"] for line in lines if line["share"]]
    if not shares:
        return None
    return round(float(sum(shares)) ** 2 / (len(shares) * sum(share**2 for share in shares)), 4)


def workers(session: "Session") -> list[dict[str, Any]]:
    """Return the workers that are alive, as RQ knows them."""
    from rq import worker_registration

    from jobs.worker import Worker  # with the horse, which most commands do without

    lines = []
    for key in malformed.ids(session.connection.smembers(worker_registration.REDIS_WORKER_KEYS)):
        try:
            worker = Worker.find_by_key(key, connection=session.connection)
        except Exception as error:  # RQ reads each field in its own way
            if not malformed.may_be_why(error):
                raise
            continue
        if worker is None:
            continue
        beat = worker.last_heartbeat
        lines.append(
            {
                "name": worker.name,
                "host": worker.hostname,
                "pid": worker.pid,
                "state": worker.get_state(),
                "job": worker.get_current_job_id(),
                "jobs_done": worker.successful_job_count,
                "jobs_failed": worker.failed_job_count,
                "heartbeat_age": round((datetime.now(UTC) - beat.astimezone(UTC)).total_seconds(), 1) if beat else None,
            }
        )
    return lines
