"""Cleanup: once an hour, as a job, what nobody will ask for again is removed from staging, targets and Redis.

| what | kept for |
|---|---|
| staging of a run that is active or held | as long as it is |
| staging of a run that failed, was canceled, or that Redis has forgotten | `settings.keep_failed`, for `retry` |
| rejects, `rejects.json` and `run.json` of a run that succeeded | `settings.history` |
| what is known of deliveries | `settings.history`, or as long as their files lie there |
| which contents have come as files (`etl.staging.contents`) | `settings.history` |
| a shadow table in the target | as long as its run may be retried |
| what a killed writer has left in staging | an hour |

Ages are counted from the last file that was written. A run that loaded something and ended where nobody could report it
to its target (canceled, its `finish` lost, Redis flushed) is written into the target's `_etl_runs`.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from redis import Redis

from etl import output
from etl.config.pipeline import Config
from etl.config.urls import target_places
from etl.errors import EtlError
from etl.load import drop_leftovers, history, remember, resolve_url
from etl.staging import Staging, contents
from etl.staging import folders as staging
from etl.staging.folders import Folder
from jobs.deliveries import record
from jobs.deliveries.expected import delivering
from jobs.job import EtlJob
from jobs.run import balance, finish, schedules
from jobs.run.stage import stage_context
from jobs.store import keys, malformed, over, runs

FRESH = 3600.0  # seconds; files that are younger may belong to a stage that still runs
CANCELED = 7 * 86400  # seconds; RQ never lets go of a job that was canceled by hand


@dataclass
class Cleaned:
    """What a cleanup has done.

    Args:
        folders, shadows: How many were removed.
        remembered: How many runs were written into their targets' history.
        troubles: What it could not do, in sentences.
        aside: What was malformed in Redis and is set aside.
    """

    folders: int = 0
    shadows: int = 0
    remembered: int = 0
    troubles: list[str] = field(default_factory=list)
    aside: list[malformed.Malformed] = field(default_factory=list)


def clean(connection: Redis | None, config: Config, now: float | None = None) -> Cleaned:
    """Clean up staging, targets and Redis.

    Args:
        connection: None where there is no Redis, so that no run is active.
        now: Seconds since the epoch, instead of the clock's.
    """
    found, now = Cleaned(), now or time.time()
    if connection is not None:
        found.aside = malformed.set_aside(connection)
        schedules.wake(config, connection)
    unfinished = _clean_staging(connection, config, now, found)
    _drop_deliveries(config, now - config.settings.history, found)
    try:
        contents.trim(config.staging, now - config.settings.history)
    except EtlError as exc:
        found.troubles.append(exc.what)
    _report_unknown(connection, config, unfinished, found)
    active = runs.active(connection) if connection is not None else []
    kept = {*active, *(folder.run for folder in unfinished)}
    _drop_shadows(config, kept, now - config.settings.keep_failed, found)
    if connection is not None:
        _trim(connection)
    return found


def _clean_staging(connection: Redis | None, config: Config, now: float, found: Cleaned) -> list[Folder]:
    """Remove what is too old from staging; returns the folders of unfinished runs that are left."""
    unfinished: list[Folder] = []
    try:
        for folder in staging.folders(config.staging):
            if not _is_busy(connection, folder.run) and _clean_folder(connection, config, folder, now):
                found.folders += 1
            elif folder.is_unfinished:
                unfinished.append(folder)
    except EtlError as exc:
        found.troubles.append(exc.what)
    return unfinished


def _drop_deliveries(config: Config, before: float, found: Cleaned) -> None:
    """Remove what is known of the deliveries of pipelines that are gone from the configuration."""
    kept = {*delivering(config), *((client, name) for client in config.broken for name in config.pipelines)}
    try:
        record.drop_old(config.staging, kept, before)
    except EtlError as exc:
        found.troubles.append(exc.what)


def _is_busy(connection: Redis | None, run: str) -> bool:
    if connection is None:
        return False
    held = connection.zscore(keys.HELD, run) is not None
    return held or bool(connection.sismember(keys.ACTIVE, run) or connection.exists(keys.claim_key(run)))


def _clean_folder(connection: Redis | None, config: Config, folder: Folder, now: float) -> bool:
    """Remove a run's folder, or what is useless in it; returns whether the folder is gone."""
    age = now - folder.modified
    artifacts = Staging(config.staging, folder.client, folder.run)
    if folder.is_unfinished and age > FRESH:
        record = runs.read(connection, folder.run) if connection is not None else None
        if record is not None and record["state"] == "succeeded" and "rejects.json" in folder.names:
            # Its finish died between closing the run and this.
            said = [name for name in folder.names if name.endswith(output.ENDING)]
            over.mark(artifacts)
            artifacts.remove(keep=[*artifacts.read_json("rejects.json"), *said, "rejects.json", "run.json", over.FILE])
            return False
        artifacts.remove_strays()
    if age <= (config.settings.keep_failed if folder.is_unfinished else config.settings.history):
        return False
    if not _is_busy(connection, folder.run):  # asked again: `retry` may have come in between
        artifacts.remove()
    return True


def _report_unknown(connection: Redis | None, config: Config, folders: Sequence[Folder], found: Cleaned) -> None:
    """Write runs that loaded something and ended without reporting it into their targets."""
    for folder in folders:
        has_loaded = any(name.endswith(".load.json") for name in folder.names)
        try:
            if has_loaded and not _is_busy(connection, folder.run):
                found.remembered += _report(connection, config, folder)
        except EtlError as exc:
            found.troubles.append(exc.what)


def _report(connection: Redis | None, config: Config, folder: Folder) -> bool:
    """Write a run into its target's `_etl_runs`; returns whether it was missing there."""
    record = runs.read(connection, folder.run) if connection is not None else None
    spec = Staging(config.staging, folder.client, folder.run).read_json("run.json") or {}
    attempt = str((record or spec).get("attempt", 1))
    work = stage_context("finish", folder.run, 0, {**(record or {}), "client": folder.client, "attempt": attempt})
    url = resolve_url(work.pipeline.target, folder.client, work.pipeline.root)
    schema, dot, _ = work.pipeline.table.partition(".")
    known = history.read(url, work.pipeline.target.name, [schema if dot else None], runs=[folder.run])
    if any(each.attempt >= work.attempt for each in known):
        return False
    tally = balance.gather(work.staging, work.plan.partitions)
    state, error = (record["state"], record.get("error")) if record else ("failed", "")
    state = state if state in ("failed", "canceled") else "failed"  # of a success the target knows already
    ended = replace(finish.ending(tally, []), error=error or "its end is not known: Redis has forgotten the run")
    finished = float((record or {}).get("ended") or folder.modified)
    row = finish.history_record(work, ended)
    remember(work.pipeline, replace(row, state=state, finished=datetime.fromtimestamp(finished, UTC)), url)
    return True


def _drop_shadows(config: Config, kept: Collection[str], before: float, found: Cleaned) -> None:
    """Drop the shadow tables of runs that can't be retried any more.

    Args:
        kept: Runs whose tables stay.
        before: Tables that are younger stay too; seconds since the epoch.
    """
    moment = datetime.fromtimestamp(before, UTC)
    places = target_places(config, on_error=lambda exc: found.troubles.append(exc.what))
    for (url, name), schemas in places.items():
        try:
            found.shadows += len(drop_leftovers(url, name, schemas, spare=kept, before=moment))
        except EtlError as exc:
            found.troubles.append(exc.what)


def _trim(connection: Redis) -> None:
    """Give jobs that were canceled by hand an end, and remove those that are gone from RQ's lists."""
    for key in malformed.ids(connection.smembers("rq:queues")):
        name = key.removeprefix("rq:queue:")
        for registry in (f"rq:canceled:{name}", f"rq:deferred:{name}"):
            ids = malformed.ids(connection.zrange(registry, 0, -1))
            pipe = connection.pipeline(transaction=False)
            for id in ids:
                pipe.ttl(f"rq:job:{id}")
            for id, life in zip(ids, pipe.execute(), strict=True):
                if life == -2:
                    connection.zrem(registry, id)
                elif life == -1 and registry.startswith("rq:canceled"):
                    EtlJob(id, connection=connection).cleanup(CANCELED)
