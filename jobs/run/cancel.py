"""Canceling a run, and what becomes of those behind it."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis import Redis
from rq.command import send_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import JobStatus

from etl.errors import UnknownName
from jobs.job import EtlJob
from jobs.store import keys, malformed, runs


def find_pending(connection: Redis, text: str) -> str | None:
    """Return the id of the run meant, or None: by `client/pipeline` one that has not ended, else as `runs.find` does.

    That is the active one without a window, else the only one that is running, or queued, else the oldest that is held.

    Raises:
        UnknownName: Several are meant.
    """
    client, slash, pipeline = text.partition("/")
    if not slash:
        with suppress(UnknownName):
            return runs.find(connection, text)
        return None
    if run := runs.holder(connection, client, pipeline):
        return run
    records = runs.read_many(connection, [*runs.active(connection), *runs.held(connection)])
    mine = {run: record for run, record in records.items() if _whose(record) == (client, pipeline)}
    for state in ("running", "queued", "held"):
        chosen = [run for run, record in mine.items() if record["state"] == state]
        if len(chosen) > 1 and state != "held":
            which = ", ".join(f"{run} (window from {mine[run].get('start') or '?'})" for run in chosen[:5])
            raise UnknownName(f"{len(chosen)} runs of {text} are {state}: {which}", "give the id of one")
        if chosen:
            return chosen[0]
    return None


def cancel_run(connection: Redis, run: str) -> bool:
    """Close a run, delete its waiting jobs and stop its running ones.

    Returns:
        False where it had ended already.
    """
    ids = malformed.ids(connection.smembers(keys.jobs_key(run)))
    client = (runs.read(connection, run) or {}).get("client")
    if not runs.close(connection, run, "canceled", error="canceled", client=client):
        return False
    for id in ids:
        try:
            job = EtlJob.fetch(id, connection=connection)
            if job.get_status() == JobStatus.STARTED:
                if job.worker_name:  # RQ's own way to learn it unpickles the job
                    send_command(connection, job.worker_name, "stop-job", job_id=id)
            else:
                job.delete()
        except (NoSuchJobError, InvalidJobOperation):
            continue
    return True


def cancel_runs(connection: Redis, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Cancel runs, one after the other, and return them in the public JSON shape with what came of it.

    Returns:
        Each with `was`, its state before, or None where it had ended; `stays`, how many partitions are loaded for
        good; and `behind`, the runs that wait for it or are of its pipeline too, with what becomes of each.
    """
    before = {run["run"]: run for run in runs.snapshot(connection, ids)}
    waiters = {id: malformed.ids(connection.smembers(keys.waiters_key(id))) for id in before}
    canceled = {id for id in before if cancel_run(connection, id)}
    found = runs.snapshot(connection, list(before))
    pending = runs.read_many(connection, [*runs.active(connection), *runs.held(connection)])
    for run in found:
        id = run["run"]
        run["was"] = before[id]["state"] if id in canceled else None
        records = runs.stage_records(connection, id)
        run["stays"] = sum(
            stage == "load" and record.state == "done" and bool(record.counts.get("final"))
            for (_, stage), record in records.items()
        )
        same = [other for other, record in pending.items() if _whose(record) == _whose(run)]
        run["behind"] = [
            {"run": other, "client": record["client"], "pipeline": record["pipeline"], "becomes": said}
            for other in dict.fromkeys([*sorted(waiters[id]), *same])
            if id in canceled and (record := pending.get(other)) and (said := _becomes(id, record, pending))
        ]
    return found


def _whose(run: Mapping[str, Any]) -> tuple[str, str]:
    return run["client"], run["pipeline"]


def _becomes(canceled: str, record: Mapping[str, str], pending: Collection[str]) -> str:
    """Say what becomes of a run that has not ended."""
    window = f", for the window from {record['start']}" if record.get("start") else ""
    if record["state"] != "held":
        return f"is {record['state']}{window}"
    if canceled in json.loads(record.get("needs") or "[]"):
        return f"needs it and fails now{window}"
    if before := [other for other in json.loads(record.get("after") or "[]") if other in pending]:
        return f"is held behind run {before[0]}{window}"
    return f"was held and begins now{window}"
