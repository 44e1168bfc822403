"""Schedules: rq-scheduler enqueues `stages.start_due`, which starts the run of every due moment exactly once.

An entry of rq-scheduler says only "look at pipeline P of client C". Which moments are due follows from the
configuration of the day and from `keys.DUE`, the last moment that was handled; a run's id follows
from client, pipeline and moment, so that starting it twice, from wherever, is starting it once.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

from redis import Redis
from rq.job import JobStatus
from rq.utils import now as utc_now

from etl.calendar import cron
from etl.config.pipeline import Client, Config, Schedule, definition_of, pipelines_of, resolve
from etl.errors import EtlError
from jobs.job import EtlJob
from jobs.run.submit import submit_run
from jobs.store import forms, keys, runs, scripts
from jobs.store.keys import ENTRIES, PREFIX, entry_id

FUNCTION = "jobs.stages.start_due"
AGAIN = 60  # seconds after which rq-scheduler enqueues an entry again whose job was lost
MOST = 100  # moments that one look starts runs for; the entry comes again for the rest
DAY = 86400
LATE = 600  # seconds; with catchup = "none" a moment that is handled later than that is left out
FOR_EVER = -1  # an entry's job outlives its results: rq-scheduler drops an entry whose job is gone


def sync(config: Config, connection: Redis, *, removes: bool = True) -> list[dict[str, Any]]:
    """Make rq-scheduler's entries those of the configuration.

    Args:
        removes: Whether those of other schedules are removed, which may be another etl.toml's; such an entry of ours
            removes itself when its moment comes.

    Returns:
        What was done: `added`, `changed`, `removed` or `kept`, for each schedule.
    """
    for raw in _raw_ids(connection):
        if raw.decode(errors="ignore").encode() != raw:
            connection.zrem(ENTRIES, raw)  # such an id ends rq-scheduler
    found = _entries(connection)
    done = []
    for client, pipeline, about in _configured(config):
        known = found.pop(entry_id(client.name, pipeline), None)
        action = "added" if known is None else "kept" if _is_synced(known, about) else "changed"
        if action != "kept":
            _write(connection, client, pipeline, about, is_new=_about(known) != about)
        done.append({"action": action, "client": client.name, "pipeline": pipeline, **about})
    for id, job in found.items():
        client_name, pipeline = _named(id)
        is_kept = not removes or client_name in config.broken  # its file has a mistake, which takes no schedule away
        if not is_kept:
            _remove(connection, id)
        done.append(
            {
                "action": "kept" if is_kept else "removed",
                "client": client_name,
                "pipeline": pipeline,
                **(_about(job) if job else {}),
            }
        )
    return done


def listing(config: Config, connection: Redis) -> list[dict[str, Any]]:
    """Return each schedule with its next three moments in the client's zone, and whether rq-scheduler has it."""
    found = _entries(connection)
    lines = []
    for client, pipeline, about in _configured(config):
        following = cron.following(about["cron"], client.timezone, datetime.now(UTC), 3)
        lines.append(
            {
                "client": client.name,
                "pipeline": pipeline,
                **about,
                "next": [cron.local(moment, client.timezone).isoformat() for moment in following],
                "synced": _is_synced(found.get(entry_id(client.name, pipeline)), about),
            }
        )
    return lines


def _configured(config: Config) -> Iterator[tuple[Client, str, dict[str, Any]]]:
    """Yield client, pipeline and what an entry says, for each schedule of the configuration."""
    for client in config.clients.values():
        for pipeline, schedule in client.schedule.items():
            yield client, pipeline, {"cron": schedule.cron, "timezone": client.timezone, "catchup": schedule.catchup}


def start_due(config: Config, connection: Redis, client: str, pipeline: str, now: datetime) -> list[str]:
    """Start a run for each moment since the last one handled, as the schedule's `catchup` says, and set the next.

    Args:
        now: In UTC.
    """
    if client in config.broken:
        pipelines_of(config, client)  # raises its mistakes; the schedule stays
    owner = config.clients.get(client)
    schedule = owner.schedule.get(pipeline) if owner else None
    if owner is None or schedule is None:
        _remove(connection, entry_id(client, pipeline))
        return []
    for needed in definition_of(config, client, pipeline).needs:
        if needed in owner.schedule:
            start_due(config, connection, client, needed, now)  # due at the same moment, it must be waited for
    last = min(seen(connection, client, pipeline) or now.timestamp(), now.timestamp())
    moments = _pending(schedule, owner.timezone, last, now, config.settings.history)
    started = []
    for moment in moments:
        run = run_id(client, pipeline, moment)
        is_late = schedule.catchup == "none" and (now - moment).total_seconds() > LATE
        if not is_late and runs.read(connection, run) is None:
            resolved, due = resolve(config, pipeline, client), cron.local(moment, owner.timezone)
            try:
                started.append(submit_run(connection, resolved, queue=True, run=run, due=due))
            except EtlError:
                if runs.read(connection, run) is None:  # else someone else was quicker
                    raise
    see(connection, client, pipeline, moments[-1].timestamp() if moments else last)
    following = now if len(moments) == MOST else cron.following(schedule.cron, owner.timezone, now)[0]
    connection.zadd(ENTRIES, {entry_id(client, pipeline): following.timestamp()}, xx=True)
    connection.zrem(f"rq:failed:{PREFIX}{client}", entry_id(client, pipeline))
    return started


def wake(config: Config, connection: Redis) -> None:
    """Have those schedules looked at now whose entries would never come, or after their next moment."""
    now = clock(connection)
    for client, pipeline, about in _configured(config):
        id = entry_id(client.name, pipeline)
        score = connection.zscore(ENTRIES, id)
        if score is None or 0 <= score <= now.timestamp() + DAY:  # rq-scheduler looks from 0 on
            continue
        if score < 0 or score > cron.following(about["cron"], client.timezone, now)[0].timestamp():
            connection.zadd(ENTRIES, {id: now.timestamp()}, xx=True)


def clock(connection: Redis) -> datetime:
    """Return what the time is for schedules, in UTC: the earlier of this machine's and Redis's.

    So no moment starts early, or is called late and left out, where one clock is ahead; where one is behind, another
    worker starts it, or the same one later.
    """
    return datetime.fromtimestamp(min(datetime.now(UTC).timestamp(), scripts.clock(connection)), UTC)


def _pending(schedule: Schedule, zone: str, last: float, now: datetime, history: float) -> list[datetime]:
    """Return the moments to be handled now: the newest alone, or the first `MOST` of all since the last one.

    Args:
        history: How long Redis knows runs, in seconds: whether an older moment has had its run, nobody can say.
    """
    if schedule.catchup == "all":
        since = max(last, now.timestamp() - history)
        return cron.due(schedule.cron, zone, datetime.fromtimestamp(since, UTC), now, MOST)
    newest = cron.latest(schedule.cron, zone, now, datetime.fromtimestamp(last, UTC))
    return [newest] if newest else []


def seen(connection: Redis, client: str, pipeline: str) -> float | None:
    """Return the last moment of a schedule that was handled, in seconds since the epoch, or None."""
    found = cast(bytes | None, connection.hget(keys.DUE, f"{client}/{pipeline}"))
    return float(found) if found and forms.is_handled(found) else None


def see(connection: Redis, client: str, pipeline: str, moment: float) -> None:
    """Keep the last moment of a schedule that was handled."""
    connection.hset(keys.DUE, f"{client}/{pipeline}", repr(moment))


def run_id(client: str, pipeline: str, moment: datetime) -> str:
    """Return the id of the run that a schedule starts for a moment."""
    return runs.id_of(sha256(f"{client}/{pipeline}@{moment.timestamp():.0f}".encode()).digest())


def _named(id: str) -> tuple[str, str]:
    _, client, pipeline = id.split("-")
    return client, pipeline


def _entries(connection: Redis) -> dict[str, EtlJob | None]:
    """Return our entries by id, with their jobs; None for one that is gone or can't be read."""
    ids = [raw.decode(errors="ignore") for raw in _raw_ids(connection)]
    ours = [id for id in ids if id.startswith("schedule-") and id.count("-") == 2]
    return dict(zip(ours, EtlJob.fetch_many(ours, connection=connection), strict=True))


def _raw_ids(connection: Redis) -> list[bytes]:
    return cast(list[bytes], connection.zrange(ENTRIES, 0, -1))


def _about(job: EtlJob | None) -> dict[str, Any]:
    kept = (job.meta or {}) if job else {}
    return {key: kept.get(key) for key in ("cron", "timezone", "catchup")}


def _is_synced(job: EtlJob | None, about: dict[str, Any]) -> bool:
    """Whether an entry is as configured; one of an older rq-etl has a function that workers refuse."""
    return job is not None and job.func_name == FUNCTION and _about(job) == about


def _write(connection: Redis, client: Client, pipeline: str, about: dict[str, Any], *, is_new: bool) -> None:
    now = clock(connection)
    id = entry_id(client.name, pipeline)
    job = EtlJob.create(
        FUNCTION,
        args=(client.name, pipeline),
        connection=connection,
        id=id,
        origin=PREFIX + client.name,
        status=JobStatus.CREATED,
        timeout=600,
        result_ttl=FOR_EVER,
        failure_ttl=FOR_EVER,
        description=f"{client.name}/{pipeline} schedule",
        meta={**about, "interval": AGAIN},
    )
    job.created_at = utc_now()
    job.enqueue_at_front = True
    following = cron.following(about["cron"], client.timezone, now)[0]
    with connection.pipeline() as pipe:
        job.save(pipeline=pipe)
        pipe.persist(job.key)
        if is_new:  # what a new or changed line would have named before now is not due
            see(pipe, client.name, pipeline, now.timestamp())
        pipe.zadd(ENTRIES, {id: following.timestamp()})
        pipe.execute()


def _remove(connection: Redis, id: str) -> None:
    client, pipeline = _named(id)
    with connection.pipeline() as pipe:
        pipe.zrem(ENTRIES, id)
        pipe.delete(EtlJob.key_for(id), f"rq:results:{id}")
        for registry in ("finished", "failed"):
            pipe.zrem(f"rq:{registry}:{PREFIX}{client}", id)
        pipe.hdel(keys.DUE, f"{client}/{pipeline}")
        pipe.execute()
